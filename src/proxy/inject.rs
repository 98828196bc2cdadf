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

use http::header::{COOKIE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use hyper::body::Body as _;

use super::admit::{Admitted, Visitor};
use super::mapping;
use super::refusal::Refusal;
use crate::headers::{REQUEST_ID, SESSION_EXPIRES, SESSION_REF, SESSION_STATUS, SESSION_VERSION};
use crate::session::cookie::{Stripped, values, without};
use crate::session::{Active, MappingTooLarge, Realm};
use crate::time::Timestamp;
use crate::upstream::RequestBody;

/// A request that says nothing but what the gateway answers for.
#[derive(Debug)]
pub struct Outbound {
    pub(super) request: Request<RequestBody>,
    /// Index of the upstream in the gateway.
    pub(super) upstream: usize,
}

/// What injection needs to know besides the request.
#[derive(Debug)]
pub struct Injection<'g> {
    /// The budget of the injected headers.
    pub max_header_bytes: usize,
    /// The request's id.
    pub request_id: &'g HeaderValue,
}

/// What the response needs to know of the request.
#[derive(Debug)]
pub struct Exchange {
    pub(super) visitor: Visitor,
    pub(super) secure: bool,
}

/// Writes what is known of the session into the request.
///
/// # Errors
/// If the route's headers exceed their budget.
pub fn inject(admitted: Admitted, injection: &Injection<'_>) -> Result<(Outbound, Exchange), Refusal> {
    let Admitted { request, route, visitor } = admitted;
    let (head, origin) = request.into_parts();
    let mut headers = head.headers;
    headers.insert(HOST, head.host.header);
    headers.insert(REQUEST_ID, injection.request_id.clone());
    headers.insert(SESSION_STATUS, HeaderValue::from_static(visitor.status()));
    if let Some(realm) = &route.realm {
        forward_cookies(&mut headers, realm, &visitor);
    }
    if let Visitor::Session(active) = &visitor {
        let session = &active.session;
        headers.insert(SESSION_REF, session.headers().reference.clone());
        headers.insert(SESSION_VERSION, session.headers().version.clone());
        if active.life.expires != Timestamp::NEVER {
            headers.insert(SESSION_EXPIRES, HeaderValue::from(active.life.expires.as_secs()));
        }
        if let Some(mapping) = route.mapping {
            let make = |record: &crate::format::Record| {
                mapping::map(&route.headers, &record.claims, injection.max_header_bytes)
            };
            match session.mapped(mapping, make) {
                Some(Ok(mapped)) => {
                    for (name, value) in mapped {
                        headers.insert(name.clone(), value.clone());
                    }
                }
                Some(Err(MappingTooLarge(name))) => {
                    tracing::error!(
                        route = %route.name, session = %session.reference(), header = %name,
                        "the injected headers exceed max_header_bytes"
                    );
                    return Err(Refusal::MappingTooLarge);
                }
                None => {}
            }
        }
    }
    let secure = origin.secure;
    origin.write(&mut headers);
    // Left to itself, hyper would take a GET to have no body, and send none.
    if !head.body.is_end_stream() && head.body.size_hint().exact().is_none() {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut outbound = Request::new(RequestBody::new(head.body));
    *outbound.method_mut() = head.method;
    *outbound.uri_mut() = Uri::from(head.target);
    *outbound.version_mut() = Version::HTTP_11;
    *outbound.headers_mut() = headers;
    Ok((Outbound { request: outbound, upstream: route.upstream }, Exchange { visitor, secure }))
}

impl Visitor {
    fn status(&self) -> &'static str {
        match self {
            Self::Public | Self::Anonymous => "anonymous",
            Self::Unknown => "unavailable",
            Self::Session(_) => "active",
        }
    }
}

/// Leaves of the realm's cookies what the upstream may see: none if it is not to see any; of several, the one that
/// was chosen; of one that came to nothing, that one if it is well formed, since an app may know more of its cookie
/// than its row says. All other cookies stay byte for byte.
fn forward_cookies(headers: &mut HeaderMap, realm: &Realm, visitor: &Visitor) {
    let name = realm.cookie_name();
    let mut lines = headers.get_all(COOKIE).iter();
    let Some(first) = lines.next() else { return };
    let joined;
    let header: &[u8] = if lines.next().is_none() {
        first.as_bytes()
    } else {
        // RFC 6265, 5.4 allows one line; an app that reads one must not read another than we did.
        joined = join(headers);
        &joined
    };
    let keep = match visitor {
        _ if !realm.forwards_cookie() => None,
        Visitor::Session(active) => values(header, name).nth(active.chosen),
        Visitor::Public | Visitor::Anonymous | Visitor::Unknown => sole(header, realm),
    };
    let line = match without(header, name, keep) {
        Stripped::Unchanged if headers.get_all(COOKIE).iter().nth(1).is_none() => return,
        Stripped::Unchanged => header.to_vec(),
        Stripped::Rest(rest) => rest,
        Stripped::Empty => Vec::new(),
    };
    headers.remove(COOKIE);
    // These are bytes of header values, so they make one.
    if let Ok(mut line) = HeaderValue::from_maybe_shared(bytes::Bytes::from(line))
        && !line.is_empty()
    {
        line.set_sensitive(true);
        headers.insert(COOKIE, line);
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
    /// The session that the request came with.
    pub(super) fn active(&self) -> Option<&Active> {
        match &self.visitor {
            Visitor::Session(active) => Some(active),
            Visitor::Public | Visitor::Anonymous | Visitor::Unknown => None,
        }
    }
}
