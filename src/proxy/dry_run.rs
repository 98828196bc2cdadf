//! Dry runs: evaluates a request without writing or sending anything. A dry run calls [`decide`] itself, and then builds
//! the request that the upstream would receive.

use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::header_edits::PreparedEdits;
use super::model::{Gateway, Route, Visitor};
use super::observer::Observer;
use super::refusal::Refusal;
use super::request::{Forwardable, Injection, Outbound, Peer, Sanitized};
use super::{Decision, RequestContext, decide};
use crate::config::Access;
use crate::headers;
use crate::message::Request;
use crate::route::Router;
use crate::session::judge::Life;
use crate::session::reference::Ref;
use crate::session::{Anonymous, LookupSource, Resolution, UserState};
use crate::time::Now;
use crate::upstream::ClientBody;

/// The result of a dry run.
#[derive(Debug)]
pub(crate) struct DryRun {
    /// The request headers that the peer may not send.
    pub(crate) scrubbed: Vec<HeaderName>,
    /// The matching route, if any.
    pub(crate) route: Option<Arc<Route>>,
    /// The result of looking up the cookies, if the route does so.
    pub(crate) resolved: Option<ResolvedCookies>,
    /// A route that a change of case bypasses, if the upstream ignores case and the routes do not.
    pub(crate) other_case: Option<OtherCase>,
    /// The outcome of an admitted request, or the refusal.
    pub(crate) outcome: Result<DryRunOutcome, Refusal>,
}

/// A path that matches one route, and would match a stricter route to the same upstream if letter case were ignored.
#[derive(Debug)]
pub(crate) struct OtherCase {
    /// The path that bypasses `guard`.
    pub(crate) path: String,
    /// The route that matches `path`.
    pub(crate) matching: Arc<Route>,
    /// The stricter route, which would match if case were ignored.
    pub(crate) guard: Arc<Route>,
}

/// The outcome of an admitted request.
#[derive(Debug)]
pub(crate) enum DryRunOutcome {
    /// The request that the upstream would receive.
    Forwarded {
        /// Path and query.
        target: String,
        /// The headers.
        headers: HeaderMap,
    },
    /// The status of the route's local response, and its location if it is a redirect.
    Local(StatusCode, Option<HeaderValue>),
}

/// The result of looking up a request's cookies.
#[derive(Debug)]
pub(crate) enum ResolvedCookies {
    /// An active session, and whether a user is logged in.
    Active(Ref, Life, UserState),
    /// No session, with the reason.
    Anonymous(Anonymous),
    /// The session could not be looked up.
    Unavailable,
}

/// Evaluates `request` from `peer` as [`handle`](super::handle) would, without executing it.
pub(crate) async fn dry_run(
    gateway: &Gateway,
    peer: &Peer,
    request: Request<ClientBody>,
    now: Now,
) -> DryRun {
    let names = || request.head.fields.names();
    let scrubbed = names().filter(|name| gateway.scrub.removes(name) && !peer.may_send(name));
    let mut observed = Observed { scrubbed: scrubbed.cloned().collect(), ..Observed::default() };
    let overrides = names().filter(|name| headers::is_override(name.as_str()));
    let overrides: Vec<_> = overrides.filter(|name| !observed.scrubbed.contains(name)).cloned().collect();
    let id = HeaderValue::from_static("dry-run");
    let mut edits = PreparedEdits::none();
    let context = RequestContext { peer, id: &id, now };
    let outcome = match decide(gateway, request, context, &mut edits, &mut observed).await {
        Ok(Decision::Forward(forwardable)) => outbound(gateway, peer, forwardable, &id),
        Ok(Decision::Respond(response)) => {
            let location =
                response.fields.get(&LOCATION).and_then(|value| HeaderValue::from_bytes(value).ok());
            Ok(DryRunOutcome::Local(response.status, location))
        }
        Err(refusal) => Err(refusal),
    };
    let Observed { mut scrubbed, route, resolved, target } = observed;
    let other_case =
        target.and_then(|(host, path, method)| other_case(&gateway.router, &host, &path, &method));
    if let Some(route) = &route {
        // Only another route allows these headers.
        let is_removed = |name: &HeaderName| route.request_headers.remove.contains(name);
        scrubbed.extend(overrides.into_iter().filter(is_removed));
    }
    DryRun { scrubbed, route, resolved, other_case, outcome }
}

/// Returns how a client could bypass a stricter route if the upstream ignores case: by this path, or by the same path in
/// another case.
fn other_case(router: &Router<Route>, host: &str, path: &str, method: &Method) -> Option<OtherCase> {
    let found = router.find(host, path, method).ok()?;
    let upstream = found.route.destination.upstream()?;
    let is_bypass = |matching: &Arc<Route>, guard: &Arc<Route>| {
        let is_same_upstream =
            [matching, guard].iter().all(|route| route.destination.upstream() == Some(upstream));
        let requires_more =
            guard.access.needs_session() && !guard.require.is_empty() && guard.require != matching.require;
        is_same_upstream && (strictness(guard.access) > strictness(matching.access) || requires_more)
    };
    let bypass = |path: String, matching: &Arc<Route>, guard: &Arc<Route>| {
        is_bypass(matching, guard).then(|| OtherCase {
            path,
            matching: Arc::clone(matching),
            guard: Arc::clone(guard),
        })
    };
    let path = found.merged.unwrap_or_else(|| path.to_owned());
    let swapped = swap_case(&path);
    let guard = router.find_ignoring_case(host, &path, method);
    guard.and_then(|guard| bypass(path, found.route, guard)).or_else(|| {
        let matching = router.find(host, &swapped, method).ok()?.route;
        bypass(swapped, matching, found.route)
    })
}

/// Returns the rank of an access rule; a higher rank requires more.
fn strictness(access: Access) -> u8 {
    match access {
        Access::Public | Access::Optional => 0,
        Access::Session => 1,
        Access::Required => 2,
    }
}

fn swap_case(path: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    path.chars().map(swap).collect()
}

/// Returns the request that the upstream would receive.
fn outbound(
    gateway: &Gateway,
    peer: &Peer,
    forwardable: Forwardable,
    id: &HeaderValue,
) -> Result<DryRunOutcome, Refusal> {
    let injection = Injection {
        max_header_bytes: gateway.max_header_bytes,
        certificate: peer.certificate(),
        request_id: id,
        trace: None,
        flash: &[],
        hidden: &gateway.hidden_cookies,
        min_rate: gateway.min_rate(),
        scrub: &gateway.scrub,
    };
    let outbound = Outbound::new(forwardable, &injection)?.into_parts();
    let target = outbound.request.head.uri.to_string();
    let mut headers = outbound.request.head.fields.into_map();
    outbound.added.insert_into(&mut headers);
    Ok(DryRunOutcome::Forwarded { target, headers })
}

/// The results of the steps.
#[derive(Debug, Default)]
struct Observed {
    scrubbed: Vec<HeaderName>,
    route: Option<Arc<Route>>,
    resolved: Option<ResolvedCookies>,
    /// Host, path and method.
    target: Option<(String, String, Method)>,
}

impl Observer for Observed {
    fn sanitized(&mut self, request: &Sanitized) {
        let (host, path) = (request.host().to_owned(), request.path().to_owned());
        self.target = Some((host, path, request.method().clone()));
    }

    fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    fn resolved(&mut self, _: &Route, resolution: &Resolution, _: LookupSource, _: Now) {
        self.resolved = Some(ResolvedCookies::from(resolution));
    }

    fn admitted(&mut self, _: &Visitor) {}
}

impl From<&Resolution> for ResolvedCookies {
    fn from(resolution: &Resolution) -> Self {
        match resolution {
            Resolution::Active(active) => {
                Self::Active(active.session.reference(), active.life, active.session.user())
            }
            Resolution::Anonymous(why) => Self::Anonymous(why.clone()),
            Resolution::Unavailable | Resolution::Throttled(_) => Self::Unavailable,
        }
    }
}
