//! The headers that the gateway adds: what it knows of the session, the client and the request.
//!
//! By now every client header that could be mistaken for one of these is gone, and so are the hop-by-hop ones, so what
//! is set here stays. An [`Outbound`] is the only thing that can be forwarded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, Entry, HOST, VIA};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};

use super::csrf::Forwardable;
use super::handshake::Handshake;
use super::inbound::join;
use super::{grpc, mapping, preparation};
use crate::config::{Destination, UpstreamHost};
use crate::headers::{
    REQUEST_ID, SESSION_CSRF, SESSION_EXPIRES, SESSION_FLASH, SESSION_REF, SESSION_STATUS, SESSION_VERSION,
    Scrub, TRACEPARENT,
};
use crate::proxy::header_edits::{EditVariables, PreparedEdits};
use crate::proxy::model::{Exchange, Visitor};
use crate::proxy::refusal::Refusal;
use crate::proxy::rewrite::{self, PublicSite};
use crate::session::cookie::{Stripped, values, without};
use crate::session::{MappingTooLarge, Realm, csrf};
use crate::telemetry::trace::Trace;
use crate::time::Timestamp;
use crate::tls::ClientCertificate;
use crate::upstream::{GatewayHeaders, MinBodyRate, RequestBody};

/// Room for the headers that most requests get.
const USUAL: usize = 20;

/// A request that is ready to be sent to its upstream. Only `inject` makes one.
#[derive(Debug)]
pub struct Outbound {
    request: Request<RequestBody>,
    added: GatewayHeaders,
    upstream: usize,
    host_is_server: bool,
    response_timeout: Option<Duration>,
    accept: Option<String>,
}

/// The parts of an [`Outbound`].
#[derive(Debug)]
pub(in crate::proxy) struct OutboundParts {
    pub(in crate::proxy) request: Request<RequestBody>,
    /// The headers added by the gateway.
    pub(in crate::proxy) added: GatewayHeaders,
    /// Whether its Host is that of the server that it is sent to.
    pub(in crate::proxy) host_is_server: bool,
    /// The route's timeout for the response head, if it has its own.
    pub(in crate::proxy) response_timeout: Option<Duration>,
    /// The `Sec-WebSocket-Accept` that a 101 must carry, if the request is a handshake.
    pub(in crate::proxy) accept: Option<String>,
}

impl Outbound {
    /// Returns the request that `inject` makes, for a caller that handles no response.
    ///
    /// # Errors
    /// See `inject`.
    pub fn new(forwardable: Forwardable, injection: &Injection<'_>) -> Result<Self, Refusal> {
        inject(forwardable, injection).map(|(outbound, _, _)| outbound)
    }

    /// Returns the index of the upstream in the gateway.
    pub(in crate::proxy) fn upstream(&self) -> usize {
        self.upstream
    }

    pub(in crate::proxy) fn into_parts(self) -> OutboundParts {
        let Self { request, added, upstream: _, host_is_server, response_timeout, accept } = self;
        OutboundParts { request, added, host_is_server, response_timeout, accept }
    }
}

/// What injection needs besides the request.
#[derive(Debug)]
pub struct Injection<'g> {
    /// Limit on the injected headers, names and values together, in bytes.
    pub max_header_bytes: usize,
    /// The client's certificate.
    pub certificate: Option<&'g ClientCertificate>,
    /// The request's id.
    pub request_id: &'g HeaderValue,
    /// The request's trace context.
    pub trace: Option<&'g Trace>,
    /// The flash messages that were taken out of the session.
    pub flash: &'g [String],
    /// The names of the cookies that no upstream receives, whichever route a request takes.
    pub hidden: &'g [String],
    /// The minimum speed at which the client must send the body.
    pub min_rate: MinBodyRate,
    /// The header fields that clients may not send, in trailers too.
    pub scrub: &'g Arc<Scrub>,
}

/// Makes the request that the upstream receives. Also returns the request's handshake, if it is one, and what the
/// response needs to know of the request.
///
/// # Errors
/// Returns a refusal if the injected headers exceed their limit, or if the route has no upstream.
pub(in crate::proxy) fn inject(
    forwardable: Forwardable,
    injection: &Injection<'_>,
) -> Result<(Outbound, Option<Handshake>, Exchange), Refusal> {
    let (request, route, visitor, handshake) = forwardable.into_parts();
    let Destination::Upstream(forwarding) = &route.destination else { return Err(Refusal::Internal) };
    let edits = PreparedEdits::new(
        &route.request_headers,
        &EditVariables::from_request(&request, injection.request_id),
    );
    let (head, origin) = request.into_parts();
    let mut headers = head.headers;
    edits.apply_to_request(&mut headers);
    let mut added = GatewayHeaders::with_capacity(USUAL);
    let host = match &forwarding.host {
        UpstreamHost::Preserve | UpstreamHost::Server => head.host.header,
        UpstreamHost::Name(name) => HeaderValue::from_str(name).map_err(|_| Refusal::Internal)?,
    };
    added.insert(HOST, host);
    added.replace(&mut headers, REQUEST_ID, injection.request_id.clone());
    if let Some(trace) = injection.trace {
        added.insert(TRACEPARENT, trace.replace(&mut headers));
    }
    added.insert(SESSION_STATUS, HeaderValue::from_static(visitor.status()));
    if headers.contains_key(COOKIE) {
        forward_cookies(&mut headers, route.realm.as_deref(), &visitor, injection.hidden);
    }
    // Headers of these names that the client sent have been removed, on every route.
    if let Some(certificate) = injection.certificate.filter(|_| !route.certificate_headers.is_empty()) {
        let (rules, budget) = (&route.certificate_headers, injection.max_header_bytes);
        mapping::certificate(rules, certificate, budget, &mut added).map_err(|MappingTooLarge(name)| {
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
        added.insert(SESSION_REF, session.headers().reference.clone());
        added.insert(SESSION_VERSION, session.headers().version.clone());
        if active.life.expires != Timestamp::NEVER {
            added.insert(SESSION_EXPIRES, HeaderValue::from(active.life.expires.as_secs()));
        }
        if let Some(flash) = preparation::flash_header(injection.flash) {
            added.insert(SESSION_FLASH, flash);
        }
        if let Some(token) = csrf::token(&session.record().claims).filter(|_| route.csrf) {
            // A token of the gateway's is hexadecimal; an app's own may not be valid in a header, and is not sent then.
            if let Ok(token) = HeaderValue::from_str(token) {
                added.insert(SESSION_CSRF, token);
            }
        }
        if let Some(mapping) = route.mapping {
            let make = |record: &crate::format::SessionRecord| {
                mapping::map(&route.headers, &record.claims, injection.max_header_bytes)
            };
            match session.mapped(mapping, make).as_ref() {
                Ok(mapped) => {
                    for (name, value) in mapped {
                        added.insert(name.clone(), value.clone());
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
    let site = forwarding.rewrite.rewrite_location.then(|| PublicSite::new(origin.site()));
    origin.write(&mut headers, &mut added);
    rewrite::add_prefix_header(&forwarding.rewrite, &mut headers, &mut added);
    let target = rewrite::target(&forwarding.rewrite, head.target)?;
    // Via is a list: the gateway appends its element.
    match headers.entry(VIA) {
        Entry::Occupied(mut before) => before.append(via(head.version)),
        Entry::Vacant(_) => added.insert(VIA, via(head.version)),
    }
    if !route.request_headers.is_empty() {
        // The configuration refuses edits of these names; if one passed all the same, the gateway's value would stand.
        added.remove_from(&mut headers);
    }
    debug_assert!(added.iter().all(|(name, _)| !headers.contains_key(name)), "added twice");
    // A gRPC call may be silent for as long as its client and server like.
    let min_rate = (!grpc::is_call(&head.method, &headers)).then_some(injection.min_rate);
    let mut outbound =
        Request::new(RequestBody::new(head.body, forwarding.max_body, min_rate, injection.scrub));
    *outbound.method_mut() = head.method;
    *outbound.uri_mut() = Uri::from(target);
    *outbound.version_mut() = Version::HTTP_11;
    *outbound.headers_mut() = headers;
    let accept = handshake.as_ref().map(|handshake| handshake.write(outbound.headers_mut()));
    let outbound = Outbound {
        request: outbound,
        added,
        upstream: forwarding.upstream,
        host_is_server: forwarding.host == UpstreamHost::Server,
        response_timeout: forwarding.response_timeout,
        accept,
    };
    let exchange = Exchange { visitor, route, secure, client, site, trailers: head.trailers };
    Ok((outbound, handshake, exchange))
}

/// Returns the Via element of the gateway (RFC 9110, 7.6.3), with the version that the client used.
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 sessiongate",
        Version::HTTP_2 => "2.0 sessiongate",
        _ => "1.1 sessiongate",
    })
}

/// Removes the session cookies that the upstream may not receive.
///
/// Of the route's realm the upstream receives no cookie if the realm does not forward it, the one that names the session
/// if there are several, and one that names no live session if it is well formed, since an app may know more of its
/// cookie than its row says. Of other realms it receives those that are not hidden. All other cookies stay byte for
/// byte.
fn forward_cookies(headers: &mut HeaderMap, realm: Option<&Realm>, visitor: &Visitor, hidden: &[String]) {
    let mut lines = headers.get_all(COOKIE).iter();
    let Some(first) = lines.next() else { return };
    // RFC 6265, 5.4 allows one line: an app that reads only one must read the same cookies as the gateway.
    let several = lines.next().is_some();
    let mut header: Cow<'_, [u8]> = if several { join(headers).into() } else { first.as_bytes().into() };
    if let Some(realm) = realm.filter(|realm| realm.forwards_cookie()) {
        let name = realm.cookie_name();
        let keep = match visitor {
            Visitor::Session(active) => values(&header, name).nth(active.cookie_index),
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
    // The bytes of header values are valid in a header value.
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

/// Returns the only well-formed cookie of the realm, or `None` if there are several.
fn sole<'h>(header: &'h [u8], realm: &Realm) -> Option<&'h [u8]> {
    let mut formed = values(header, realm.cookie_name()).filter(|value| realm.accepts(value));
    let first = formed.next()?;
    formed.all(|other| other == first).then_some(first)
}
