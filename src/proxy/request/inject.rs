//! Injects the headers that the gateway adds, about the session, the client and the request.
//!
//! The earlier steps have removed every client header that could be mistaken for one of these, and all hop-by-hop
//! headers, so no later step removes an injected header. Only an [`Outbound`] can be forwarded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{COOKIE, VIA};
use http::{HeaderValue, Uri, Version};

use super::csrf::Forwardable;
use super::handshake::Handshake;
use super::inbound::{InboundParts, joined_cookies};
use super::{grpc, mapping, preparation};
use crate::config::{Destination, UpstreamHost};
use crate::fields::Fields;
use crate::headers::{
    REQUEST_ID, SESSION_CSRF, SESSION_EXPIRES, SESSION_FLASH, SESSION_STATUS, Scrub, TRACEPARENT,
};
use crate::message::{Request, RequestHead};
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

/// Initial capacity for injected headers in bytes, enough for most requests.
const USUAL_SIZE: usize = 1024;

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
    /// Whether Host is replaced by the host of the chosen server.
    pub(in crate::proxy) host_is_server: bool,
    /// The route's timeout for the response head, if it overrides the upstream's.
    pub(in crate::proxy) response_timeout: Option<Duration>,
    /// The `Sec-WebSocket-Accept` that a 101 response must have, if the request is a handshake.
    pub(in crate::proxy) accept: Option<String>,
}

impl Outbound {
    /// Calls `inject`, for a caller that handles no response.
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

/// The arguments of injection besides the request.
#[derive(Debug)]
pub struct Injection<'g> {
    /// Limit on the headers from claims, and on those from the certificate, names and values together, in bytes.
    pub max_header_bytes: usize,
    /// The client's certificate.
    pub certificate: Option<&'g ClientCertificate>,
    /// The request's id.
    pub request_id: &'g HeaderValue,
    /// The request's trace context.
    pub trace: Option<&'g Trace>,
    /// The flash messages that were removed from the session.
    pub flash: &'g [String],
    /// The names of the cookies that no upstream receives, whichever route a request takes.
    pub hidden: &'g [String],
    /// The minimum rate at which the client must send the body.
    pub min_rate: MinBodyRate,
    /// The header fields that clients may not send, also in trailers.
    pub scrub: &'g Arc<Scrub>,
}

/// Returns the request that the upstream receives, its WebSocket handshake, if it is one, and the exchange for its
/// response.
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
    let (InboundParts { mut head, target, host, body, trailers, .. }, origin) = request.into_parts();
    let RequestHead { method, version, fields, .. } = &mut *head;
    edits.apply_to_request(fields);
    let host = match &forwarding.host {
        UpstreamHost::Preserve | UpstreamHost::Server => host.header,
        UpstreamHost::Name(name) => HeaderValue::from_str(name).map_err(|_| Refusal::Internal)?,
    };
    let mut added = GatewayHeaders::new(host, USUAL_SIZE);
    added.replace(fields, &REQUEST_ID, injection.request_id);
    if let Some(trace) = injection.trace {
        added.insert(&TRACEPARENT, trace.replace(fields));
    }
    added.insert(&SESSION_STATUS, &HeaderValue::from_static(visitor.status()));
    forward_cookies(fields, route.realm.as_deref(), &visitor, injection.hidden);
    // Client headers of these names have been removed, on every route.
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
        added.extend(&session.headers().lines);
        if active.life.expires != Timestamp::NEVER {
            added.insert(&SESSION_EXPIRES, &HeaderValue::from(active.life.expires.as_secs()));
        }
        if let Some(flash) = preparation::flash_header(injection.flash) {
            added.insert(&SESSION_FLASH, &flash);
        }
        if let Some(token) = csrf::token(&session.record().claims).filter(|_| route.csrf) {
            // The gateway's tokens are hexadecimal. An app's own token is not sent if it is invalid in a header.
            if let Ok(token) = HeaderValue::from_str(token) {
                added.insert(&SESSION_CSRF, &token);
            }
        }
        if let Some(mapping) = route.mapping {
            let map = |record: &crate::format::SessionRecord| {
                mapping::map(&route.headers, &record.claims, injection.max_header_bytes)
            };
            match session.mapped(mapping, map).as_ref() {
                Ok(mapped) => added.extend(mapped),
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
    origin.write(fields, &mut added);
    rewrite::add_prefix_header(&forwarding.rewrite, fields, &mut added);
    let target = rewrite::target(&forwarding.rewrite, target)?;
    // Via is a list, to which the gateway appends its element.
    if fields.contains(&VIA) {
        fields.append(VIA, via(*version));
    } else {
        added.insert(&VIA, &via(*version));
    }
    if !route.request_headers.is_empty() {
        // The configuration rejects edits of these names. If one got through, the gateway's value would take precedence.
        added.remove_from(fields);
    }
    debug_assert!(added.iter().all(|(name, _)| !fields.contains(&name)), "added twice");
    // A gRPC call may be idle indefinitely, so it has no minimum rate.
    let min_rate = (!grpc::is_call(method, fields)).then_some(injection.min_rate);
    let body = RequestBody::new(body, forwarding.max_body, min_rate, injection.scrub);
    let accept = handshake.as_ref().map(|handshake| handshake.write(fields));
    (head.uri, head.version, head.protocol) = (Uri::from(target), Version::HTTP_11, None);
    let outbound = Outbound {
        request: Request { head, body },
        added,
        upstream: forwarding.upstream,
        host_is_server: forwarding.host == UpstreamHost::Server,
        response_timeout: forwarding.response_timeout,
        accept,
    };
    let exchange = Exchange { visitor, route, secure, client, site, trailers };
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
/// If the route's realm forwards its cookie, the upstream receives the one that names the session. Without a session, it
/// receives the realm's cookie if there is only one well-formed value, since the app may accept a cookie for which the
/// gateway has no session. Cookies named in `hidden` are removed. All other cookies are forwarded byte for byte.
fn forward_cookies(fields: &mut Fields, realm: Option<&Realm>, visitor: &Visitor, hidden: &[String]) {
    let mut lines = fields.get_all(&COOKIE);
    let Some(first) = lines.next() else { return };
    // RFC 6265, 5.4 allows one line. An app that reads only one line must read the same cookies as the gateway.
    let is_only_line = lines.next().is_none();
    let mut header: Cow<'_, [u8]> = if is_only_line { first.into() } else { joined_cookies(fields).into() };
    if let Some(realm) = realm.filter(|realm| realm.forwards_cookie()) {
        let name = realm.cookie_name();
        let keep = match visitor {
            Visitor::Session(active) => values(&header, name).nth(active.cookie_index),
            Visitor::Public | Visitor::Anonymous | Visitor::Ambiguous | Visitor::Unknown => {
                only_well_formed(&header, realm)
            }
        };
        let stripped = without(&header, name, keep);
        update(&mut header, stripped);
    }
    for name in hidden {
        let stripped = without(&header, name, None);
        update(&mut header, stripped);
    }
    if matches!(header, Cow::Borrowed(_)) {
        return;
    }
    let line = header.into_owned();
    drop(lines);
    // The cookies come from header values, so they are a valid header value.
    if let Ok(mut line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line))
        && !line.is_empty()
    {
        line.set_sensitive(true);
        fields.insert(COOKIE, line);
    } else {
        fields.remove(&COOKIE);
    }
}

/// Replaces `header` by the result of removing cookies from it.
fn update(header: &mut Cow<'_, [u8]>, stripped: Stripped) {
    match stripped {
        Stripped::Unchanged => {}
        Stripped::Rest(rest) => *header = rest.into(),
        Stripped::Empty => *header = Vec::new().into(),
    }
}

/// Returns the well-formed cookie of the realm. Returns `None` if no cookie is well formed, or if well-formed cookies differ.
fn only_well_formed<'h>(header: &'h [u8], realm: &Realm) -> Option<&'h [u8]> {
    let mut well_formed = values(header, realm.cookie_name()).filter(|value| realm.accepts(value));
    let first = well_formed.next()?;
    well_formed.all(|other| other == first).then_some(first)
}
