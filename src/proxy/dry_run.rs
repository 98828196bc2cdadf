//! Dry runs: what would happen to a request, without anything being written or sent. It is [`decide`] itself, and then the
//! request that the upstream would receive.

use std::sync::Arc;

use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};

use super::header_edits::PreparedEdits;
use super::model::{Gateway, Route, Visitor};
use super::observer::Observer;
use super::refusal::Refusal;
use super::request::{Forwardable, Injection, Outbound, Peer, Sanitized};
use super::{Arrival, Decision, decide};
use crate::headers::{self, Fate};
use crate::session::judge::Life;
use crate::session::reference::Ref;
use crate::session::{Anonymous, LookupSource, Resolution, UserState};
use crate::time::Now;
use crate::upstream::ClientBody;

/// What would happen to a request.
#[derive(Debug)]
pub(crate) struct DryRun {
    /// The request headers that clients may not send.
    pub(crate) scrubbed: Vec<HeaderName>,
    /// The route, if one takes the request.
    pub(crate) route: Option<Arc<Route>>,
    /// What the cookies resolve to, if they are looked up.
    pub(crate) resolved: Option<ResolvedCookies>,
    /// The outcome of a request that is let through, or the refusal.
    pub(crate) outcome: Result<DryRunOutcome, Refusal>,
}

/// The outcome of a request that is let through.
#[derive(Debug)]
pub(crate) enum DryRunOutcome {
    /// The upstream would receive this.
    Forwarded {
        /// Path and query.
        target: String,
        /// The headers.
        headers: HeaderMap,
    },
    /// The route responds without an upstream: with this status, and a location if it redirects.
    Local(StatusCode, Option<HeaderValue>),
}

/// What the cookies of a request resolve to.
#[derive(Debug)]
pub(crate) enum ResolvedCookies {
    /// A live session, and whether a user is logged in.
    Active(Ref, Life, UserState),
    /// No session, and why.
    Anonymous(Anonymous),
    /// The session could not be looked up.
    Unavailable,
}

/// Decides `request` of `peer` as [`handle`](super::handle) would, and stops.
pub(crate) async fn dry_run(
    gateway: &Gateway,
    peer: &Peer,
    request: Request<ClientBody>,
    now: Now,
) -> DryRun {
    let scrubbed = request.headers().keys().filter(|name| gateway.scrub.fate(name) == Fate::Scrub);
    let mut observed = Observed { scrubbed: scrubbed.cloned().collect(), ..Observed::default() };
    let overrides = request.headers().keys().filter(|name| headers::is_override(name.as_str()));
    let overrides: Vec<_> = overrides.filter(|name| !observed.scrubbed.contains(name)).cloned().collect();
    let id = HeaderValue::from_static("dry-run");
    let mut edits = PreparedEdits::none();
    let arrival = Arrival { peer, id: &id, now };
    let outcome = match decide(gateway, request, arrival, &mut edits, &mut observed).await {
        Ok(Decision::Forward(forwardable)) => outbound(gateway, peer, forwardable, &id),
        Ok(Decision::Respond(response)) => {
            Ok(DryRunOutcome::Local(response.status(), response.headers().get(LOCATION).cloned()))
        }
        Err(refusal) => Err(refusal),
    };
    let Observed { mut scrubbed, route, resolved } = observed;
    if let Some(route) = &route {
        // Another route lets these through.
        let is_removed = |name: &HeaderName| route.request_headers.remove.contains(name);
        scrubbed.extend(overrides.into_iter().filter(is_removed));
    }
    DryRun { scrubbed, route, resolved, outcome }
}

/// Makes the request that the upstream would receive.
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
        pace: gateway.pace(),
        scrub: &gateway.scrub,
    };
    let outbound = Outbound::new(forwardable, &injection)?.into_parts();
    let target = outbound.request.uri().to_string();
    let mut headers = outbound.request.headers().clone();
    outbound.added.write(&mut headers);
    Ok(DryRunOutcome::Forwarded { target, headers })
}

/// What the steps found out.
#[derive(Debug, Default)]
struct Observed {
    scrubbed: Vec<HeaderName>,
    route: Option<Arc<Route>>,
    resolved: Option<ResolvedCookies>,
}

impl Observer for Observed {
    fn sanitized(&mut self, _: &Sanitized) {}

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
