//! Checks WebSocket handshakes.
//!
//! 1. The route must allow WebSockets. On other routes, an extended CONNECT is refused. An Upgrade header is removed,
//!    and the request is handled as an ordinary one.
//! 2. A handshake passes the same checks as every other request. The gateway writes the headers of the handshake with
//!    the upstream.
//! 3. Where sessions are looked up or the route lists origins, the handshake of another site's page is refused, unless
//!    its origin is listed.
//!    Otherwise that page could read the messages, since browsers send cookies with the handshakes of any page
//!    (cross-site WebSocket hijacking).

use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue, ORIGIN, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::body::Body as _;

use super::admit::Admitted;
use super::inbound::Sanitized;
use super::upgrade::{self, UpgradeMethod, UpgradeRequest};
use crate::config::{Access, WebsocketConfig};
use crate::fields::Fields;
use crate::host::is_origin_of;
use crate::proxy::model::{Route, Visitor};
use crate::proxy::refusal::{Malformed, Refusal};

/// A request that is not a WebSocket handshake, or whose route allows the handshake. Only [`UpgradeChecked::check`]
/// makes one.
#[derive(Debug)]
pub struct UpgradeChecked {
    request: Sanitized,
    route: Arc<Route>,
    visitor: Visitor,
    handshake: Option<Handshake>,
}

/// A WebSocket handshake that its route allows.
#[derive(Debug)]
pub(in crate::proxy) struct Handshake {
    method: UpgradeMethod,
    /// The Sec-WebSocket-Key that the upstream must accept: the client's key, or over HTTP/2 a key that the gateway
    /// generates.
    key: HeaderValue,
}

impl UpgradeChecked {
    /// Checks a request that may be a WebSocket handshake.
    ///
    /// # Errors
    /// Returns a refusal if the handshake is invalid, or if it comes from a page of another site.
    pub fn check(admitted: Admitted) -> Result<Self, Refusal> {
        let (request, route, visitor) = admitted.into_parts();
        let handshake = Handshake::check(&request, &route)?;
        Ok(Self { request, route, visitor, handshake })
    }

    pub(in crate::proxy) fn request(&self) -> &Sanitized {
        &self.request
    }

    pub(in crate::proxy) fn route(&self) -> &Route {
        &self.route
    }

    pub(super) fn into_parts(self) -> (Sanitized, Arc<Route>, Visitor, Option<Handshake>) {
        (self.request, self.route, self.visitor, self.handshake)
    }
}

impl Handshake {
    fn check(request: &Sanitized, route: &Route) -> Result<Option<Self>, Refusal> {
        let Some(config) = &route.streams.websocket else {
            return match request.upgrade() {
                // An extended CONNECT has no meaning without a tunnel, so it is not forwarded.
                UpgradeRequest::Websocket(UpgradeMethod::Connect) => Err(Refusal::Method(Vec::new())),
                UpgradeRequest::None
                | UpgradeRequest::Other
                | UpgradeRequest::Websocket(UpgradeMethod::Upgrade) => Ok(None),
            };
        };
        let fields = request.fields();
        let (method, key) = match request.upgrade() {
            UpgradeRequest::None | UpgradeRequest::Other => return Ok(None),
            UpgradeRequest::Websocket(method @ UpgradeMethod::Connect) => {
                (method, upgrade::new_key().map_err(|_| Refusal::Internal)?)
            }
            UpgradeRequest::Websocket(method @ UpgradeMethod::Upgrade) => {
                if !request.body().is_end_stream() {
                    return Err(Refusal::Malformed(Malformed::Framing));
                }
                (method, upgrade::key(fields).ok_or(Refusal::Malformed(Malformed::Handshake))?)
            }
        };
        let checks_origin = route.access != Access::Public || !config.origins.is_empty();
        if checks_origin && !is_allowed_origin(fields, config, request.origin().site()) {
            return Err(Refusal::CrossSite);
        }
        Ok(Some(Self { method, key }))
    }

    /// Returns how the client requests the WebSocket.
    pub(in crate::proxy) fn method(&self) -> UpgradeMethod {
        self.method
    }

    /// Makes the request with `fields` a handshake to the upstream, and returns the `Sec-WebSocket-Accept` that a 101
    /// must carry.
    pub(super) fn write(&self, fields: &mut Fields) -> String {
        fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        fields.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        upgrade::accept(&self.key)
    }
}

/// Returns whether a page of the request's Origin may open a WebSocket. A request without Origin is allowed, since
/// browsers always send Origin with a handshake.
fn is_allowed_origin(fields: &Fields, config: &WebsocketConfig, site: (&str, &[u8])) -> bool {
    let mut origins = fields.get_all(&ORIGIN);
    let (origin, more) = (origins.next(), origins.next());
    let Some(origin) = origin else { return true };
    let is_listed = config.origins.iter().any(|other| other.as_bytes().eq_ignore_ascii_case(origin));
    more.is_none() && (is_origin_of(origin, site) || is_listed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_pages_of_this_site_and_listed_origins_may_open_a_websocket() {
        let origins = vec!["https://partner.example".to_owned()];
        let config = WebsocketConfig { origins, max_age: Duration::ZERO };
        for (lines, expected) in [
            (&[][..], true),
            (&["https://app.example"], true),
            (&["https://APP.example"], true),
            (&["https://Partner.example"], true),
            (&["http://app.example"], false),
            (&["https://app.example:8443"], false),
            (&["https://app.example.evil"], false),
            (&["https://evil.example"], false),
            (&["https://app.example/"], false),
            (&["null"], false),
            (&[""], false),
            (&["https://app.example", "https://app.example"], false),
        ] {
            let mut fields = Fields::new();
            for line in lines {
                fields.append(ORIGIN, HeaderValue::from_static(line));
            }
            assert_eq!(
                is_allowed_origin(&fields, &config, ("https", b"app.example:443")),
                expected,
                "{lines:?}"
            );
        }
    }
}
