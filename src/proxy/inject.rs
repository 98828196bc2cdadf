//! What the gateway says about the session, written into the request.
//!
//! By now every client header that could be mistaken for one of these is gone, and so are the hop-by-hop ones, so what
//! is set here stays. An [`Outbound`] is the only thing that can be forwarded, and only this module makes one, from an
//! [`Admitted`]:
//!
//! ```
//! use sessiongate::proxy::{Admitted, Injection, Outbound, inject};
//! fn forwardable(admitted: Admitted, injection: &Injection<'_>) -> Option<Outbound> {
//!     inject(admitted, injection).ok().map(|(outbound, _)| outbound)
//! }
//! ```
//!
//! It cannot be made of a request that was only cleaned:
//!
//! ```compile_fail
//! use sessiongate::proxy::{Injection, Outbound, Sanitized, inject};
//! fn forwardable(sanitized: Sanitized, injection: &Injection<'_>) -> Option<Outbound> {
//!     inject(sanitized, injection).ok().map(|(outbound, _)| outbound)
//! }
//! ```

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, Entry, HOST, VIA};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};

use super::Route;
use super::admit::{Admitted, Visitor};
use super::edit::{Facts, Prepared};
use super::refusal::Refusal;
use super::rewrite::{self, Site};
use super::{grpc, mapping, visit};
use crate::config::{Destination, UpstreamHost};
use crate::headers::{
    REQUEST_ID, SESSION_CSRF, SESSION_EXPIRES, SESSION_FLASH, SESSION_REF, SESSION_STATUS, SESSION_VERSION,
    Scrub, TRACEPARENT,
};
use crate::session::cookie::{Stripped, values, without};
use crate::session::{Active, MappingTooLarge, Realm, UserState, csrf};
use crate::telemetry::trace::Trace;
use crate::time::Timestamp;
use crate::tls::ClientCertificate;
use crate::upstream::{self, Pace, RequestBody, Said};

/// How many headers most requests get.
const USUAL: usize = 20;

/// A request that says nothing but what the gateway answers for.
#[derive(Debug)]
pub struct Outbound {
    pub(super) request: Request<RequestBody>,
    /// What we say of it.
    pub(super) said: Said,
    /// Index of the upstream in the gateway.
    pub(super) upstream: usize,
    /// Whether its Host is the server's, which only who sends it knows.
    pub(super) host_is_server: bool,
    /// The route's own limit of waiting for the response.
    pub(super) response_timeout: Option<Duration>,
    /// The `Sec-WebSocket-Accept` of a 101 that the request asks for.
    pub(super) accept: Option<String>,
}

/// What injection needs to know besides the request.
#[derive(Debug)]
pub struct Injection<'g> {
    /// The budget of the injected headers.
    pub max_header_bytes: usize,
    /// The client's certificate.
    pub certificate: Option<&'g ClientCertificate>,
    /// The request's id.
    pub request_id: &'g HeaderValue,
    /// Its place in a trace.
    pub trace: Option<&'g Trace>,
    /// Flash messages that were taken out of the session.
    pub flash: &'g [String],
    /// The names of the cookies that no upstream is to see, whatever route a request takes.
    pub hidden: &'g [String],
    /// How fast the client has to send the body.
    pub pace: Pace,
    /// What clients may not say.
    pub scrub: &'g Arc<Scrub>,
}

/// What the response needs to know of the request.
#[derive(Debug)]
pub struct Exchange {
    pub(super) visitor: Visitor,
    pub(super) route: Arc<Route>,
    pub(super) secure: bool,
    client: Option<IpAddr>,
    /// What paths in the answer are changed back to, where they are.
    pub(super) site: Option<Site>,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

/// Writes what is known of the session into the request.
///
/// # Errors
/// If the route's headers exceed their budget, or it has no upstream.
pub fn inject(admitted: Admitted, injection: &Injection<'_>) -> Result<(Outbound, Exchange), Refusal> {
    let Admitted { request, route, visitor } = admitted;
    let Destination::Upstream(forwarding) = &route.destination else { return Err(Refusal::Internal) };
    let edits = Prepared::new(&route.request_headers, &Facts::of(&request, injection.request_id));
    let (head, origin) = request.into_parts();
    let mut headers = head.headers;
    edits.apply_to_request(&mut headers);
    let mut said = Said::with_capacity(USUAL);
    let host = match &forwarding.host {
        UpstreamHost::Preserve | UpstreamHost::Server => head.host.header,
        UpstreamHost::Name(name) => HeaderValue::from_str(name).map_err(|_| Refusal::Internal)?,
    };
    said.say(HOST, host);
    said.say_instead(&mut headers, REQUEST_ID, injection.request_id.clone());
    if let Some(trace) = injection.trace {
        said.say(TRACEPARENT, trace.renew(&mut headers));
    }
    said.say(SESSION_STATUS, HeaderValue::from_static(visitor.status()));
    if headers.contains_key(COOKIE) {
        forward_cookies(&mut headers, route.realm.as_deref(), &visitor, injection.hidden);
    }
    // What the client sent under these names is gone already, on every route.
    if let Some(certificate) = injection.certificate.filter(|_| !route.certificate_headers.is_empty()) {
        let (rules, budget) = (&route.certificate_headers, injection.max_header_bytes);
        mapping::certificate(rules, certificate, budget, &mut said).map_err(|MappingTooLarge(name)| {
            tracing::error!(
                id = injection.request_id.to_str().unwrap_or_default(),
                route = %route.name, header = %name,
                "the headers of the client's certificate exceed max_header_bytes"
            );
            Refusal::MappingTooLarge
        })?;
    }
    if let Visitor::Session(active) = &visitor {
        let session = &active.session;
        said.say(SESSION_REF, session.headers().reference.clone());
        said.say(SESSION_VERSION, session.headers().version.clone());
        if active.life.expires != Timestamp::NEVER {
            said.say(SESSION_EXPIRES, HeaderValue::from(active.life.expires.as_secs()));
        }
        if let Some(flash) = visit::flash_header(injection.flash) {
            said.say(SESSION_FLASH, flash);
        }
        if let Some(token) = csrf::token(&session.record().claims).filter(|_| route.csrf) {
            // Ours is hex digits; an app's own may be anything, and is no header then.
            if let Ok(token) = HeaderValue::from_str(token) {
                said.say(SESSION_CSRF, token);
            }
        }
        if let Some(mapping) = route.mapping {
            let make = |record: &crate::format::Record| {
                mapping::map(&route.headers, &record.claims, injection.max_header_bytes)
            };
            match session.mapped(mapping, make).as_ref() {
                Ok(mapped) => {
                    for (name, value) in mapped {
                        said.say(name.clone(), value.clone());
                    }
                }
                Err(MappingTooLarge(name)) => {
                    tracing::error!(
                        id = injection.request_id.to_str().unwrap_or_default(),
                        trace = injection.trace.map(Trace::id),
                        route = %route.name, session = %session.reference(), header = %name,
                        "the injected headers exceed max_header_bytes"
                    );
                    return Err(Refusal::MappingTooLarge);
                }
            }
        }
    }
    let (secure, client) = (origin.secure, origin.client);
    let site = forwarding.rewrite.answers.then(|| Site::new(origin.site()));
    origin.say(&mut headers, &mut said);
    rewrite::say_prefix(&forwarding.rewrite, &mut headers, &mut said);
    let target = rewrite::target(&forwarding.rewrite, head.target)?;
    // Its lines are a list, of which this is the end.
    match headers.entry(VIA) {
        Entry::Occupied(mut before) => before.append(via(head.version)),
        Entry::Vacant(_) => said.say(VIA, via(head.version)),
    }
    if !route.request_headers.is_empty() {
        // Configurations in which an edit meets one of these names are refused. Were one not, our word would stand.
        said.clear(&mut headers);
    }
    debug_assert!(said.iter().all(|(name, _)| !headers.contains_key(name)), "said twice");
    // A call of gRPC may be quiet for as long as the two ends of it like.
    let pace = (!grpc::is_call(&head.method, &headers)).then_some(injection.pace);
    let mut outbound = Request::new(RequestBody::new(head.body, forwarding.max_body, pace, injection.scrub));
    *outbound.method_mut() = head.method;
    *outbound.uri_mut() = Uri::from(target);
    *outbound.version_mut() = Version::HTTP_11;
    *outbound.headers_mut() = headers;
    let outbound = Outbound {
        request: outbound,
        said,
        upstream: forwarding.upstream,
        host_is_server: forwarding.host == UpstreamHost::Server,
        response_timeout: forwarding.response_timeout,
        accept: None,
    };
    Ok((outbound, Exchange { visitor, route, secure, client, site, trailers: head.trailers }))
}

/// The protocol of the hop to us, and who we are (RFC 9110, 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 sessiongate",
        Version::HTTP_2 => "2.0 sessiongate",
        _ => "1.1 sessiongate",
    })
}

impl Visitor {
    fn status(&self) -> &'static str {
        match self {
            Self::Public | Self::Anonymous => "anonymous",
            Self::Unknown => "unavailable",
            Self::Session(active) if active.session.user() == UserState::Guest => "guest",
            Self::Session(_) => "active",
        }
    }
}

/// Leaves of the realms' cookies what the upstream may see. Of the route's realm: none if it is not to see any; of
/// several, the one that was chosen; of one that came to nothing, that one if it is well formed, since an app may know
/// more of its cookie than its row says. Of other realms: those that are not hidden. All other cookies stay byte for
/// byte.
fn forward_cookies(headers: &mut HeaderMap, realm: Option<&Realm>, visitor: &Visitor, hidden: &[String]) {
    let mut lines = headers.get_all(COOKIE).iter();
    let Some(first) = lines.next() else { return };
    // RFC 6265, 5.4 allows one line; an app that reads one must not read another than we did.
    let several = lines.next().is_some();
    let mut header: Cow<'_, [u8]> = if several { join(headers).into() } else { first.as_bytes().into() };
    if let Some(realm) = realm.filter(|realm| realm.forwards_cookie()) {
        let name = realm.cookie_name();
        let keep = match visitor {
            Visitor::Session(active) => values(&header, name).nth(active.chosen),
            Visitor::Public | Visitor::Anonymous | Visitor::Unknown => sole(&header, realm),
        };
        let stripped = without(&header, name, keep);
        take(&mut header, stripped);
    }
    for name in hidden {
        let stripped = without(&header, name, None);
        take(&mut header, stripped);
    }
    if !several && matches!(header, Cow::Borrowed(_)) {
        return;
    }
    let line = header.into_owned();
    headers.remove(COOKIE);
    // These are bytes of header values, so they make one.
    if let Ok(mut line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line))
        && !line.is_empty()
    {
        line.set_sensitive(true);
        headers.insert(COOKIE, line);
    }
}

fn take(header: &mut Cow<'_, [u8]>, stripped: Stripped) {
    match stripped {
        Stripped::Unchanged => {}
        Stripped::Rest(rest) => *header = rest.into(),
        Stripped::Empty => *header = Vec::new().into(),
    }
}

/// The one cookie of the realm's that is well formed; none if there are several.
fn sole<'h>(header: &'h [u8], realm: &Realm) -> Option<&'h [u8]> {
    let mut formed = values(header, realm.cookie_name()).filter(|value| realm.accepts(value));
    let first = formed.next()?;
    formed.all(|other| other == first).then_some(first)
}

/// All lines of the Cookie header as one.
pub(super) fn join(headers: &HeaderMap) -> Vec<u8> {
    headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..])
}

impl Exchange {
    /// What keeps a session with the server that it is with; without one, a client's address.
    pub(super) fn affinity(&self) -> u64 {
        match self.active() {
            Some(active) => active.session.reference().affinity(),
            None => self.client.map_or(0, upstream::affinity),
        }
    }

    /// The session that the request came with.
    pub(super) fn active(&self) -> Option<&Active> {
        match &self.visitor {
            Visitor::Session(active) => Some(active),
            Visitor::Public | Visitor::Anonymous | Visitor::Unknown => None,
        }
    }
}
