//! WebSockets: from a request that asks for one to a tunnel, and what becomes of it.
//!
//! 1. Only where the route says so, and only `websocket`; every other upgrade is taken off its request, which goes on as
//!    an ordinary one.
//! 2. The request's way is every other request's: scrubbed, resolved, admitted, injected. What makes it a handshake to
//!    the upstream is written by us.
//! 3. Where sessions are looked up, a page of another site does not get one: browsers send cookies along with a
//!    handshake whoever's page asks for it, and let that page read the answers.
//! 4. Nothing of the tunnel goes to the upstream before its 101, and nothing at all if it answers anything else.
//! 5. The client's key is answered by whoever is at the other end of the tunnel, or there is none.
//!
//! HTTP/2 asks by an extended CONNECT (RFC 8441); the upstream is asked in HTTP/1.1 all the same.

mod frames;
mod relay;
mod tunnel;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Body as _;
use hyper::ext::Protocol;
use sha1::{Digest as _, Sha1};

use super::admit::Admitted;
use super::body::ResponseBody;
use super::bond::Bond;
use super::handover::Handover;
use super::inject::Outbound;
use super::refusal::{Malformed, Refusal};
use crate::config::{Access, StreamsConfig, WebsocketConfig};
use crate::upstream::Lease;

pub(crate) use relay::Scratch;
use tunnel::Terms;
pub(super) use tunnel::Tunnel;
pub use tunnel::Tunnels;

const WEBSOCKET: &[u8] = b"websocket";
/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a request asks for besides an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    None,
    /// Some other protocol, which it does not get.
    Other,
    /// A WebSocket.
    Websocket(By),
}

/// A handshake that its route allows.
#[derive(Debug)]
pub(super) struct Handshake {
    by: By,
    /// For the upstream to show that it speaks WebSocket, and to us.
    key: HeaderValue,
}

/// How a WebSocket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// By an Upgrade header.
    Upgrade,
    /// By an extended CONNECT.
    Connect,
}

/// Whether what follows on a request's head may be the first bytes of a tunnel, from a client that did not wait for one.
pub(super) fn may_be_early<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT || names(request.headers(), &UPGRADE, WEBSOCKET)
}

impl Wish {
    /// Reads what a request asks for.
    pub(super) fn read(parts: &Parts) -> Self {
        let Parts { method, headers, extensions, version, .. } = parts;
        if *method == Method::CONNECT {
            let is_websocket = extensions.get::<Protocol>().is_some_and(|name| name.as_ref() == WEBSOCKET);
            return if is_websocket { Self::Websocket(By::Connect) } else { Self::Other };
        }
        if !headers.contains_key(UPGRADE) {
            return Self::None;
        }
        let is_websocket = *method == Method::GET
            && *version == Version::HTTP_11
            && names(headers, &UPGRADE, WEBSOCKET)
            && names(headers, &CONNECTION, b"upgrade");
        if is_websocket { Self::Websocket(By::Upgrade) } else { Self::Other }
    }
}

impl Handshake {
    /// The handshake of a request, if that is one and its route allows it.
    ///
    /// # Errors
    /// If it is none that could succeed, or comes from another site.
    pub(super) fn of(admitted: &mut Admitted) -> Result<Option<Self>, Refusal> {
        let wish = admitted.request.take_wish();
        let Some(config) = &admitted.route.streams.websocket else {
            return match wish {
                // There is no ordinary request that this could go on as.
                Wish::Websocket(By::Connect) => Err(Refusal::Method(Vec::new())),
                Wish::None | Wish::Other | Wish::Websocket(By::Upgrade) => Ok(None),
            };
        };
        let headers = admitted.request.headers();
        let (by, key) = match wish {
            Wish::None | Wish::Other => return Ok(None),
            Wish::Websocket(By::Connect) => (By::Connect, new_key()?),
            Wish::Websocket(By::Upgrade) => {
                if !admitted.request.body().is_end_stream() {
                    return Err(Refusal::Malformed(Malformed::Framing));
                }
                (By::Upgrade, key(headers).ok_or(Refusal::Malformed(Malformed::Handshake))?)
            }
        };
        let matters = admitted.route.access != Access::Public || !config.origins.is_empty();
        if matters && !is_welcome(headers, config, admitted.request.origin().site()) {
            return Err(Refusal::CrossSite);
        }
        Ok(Some(Self { by, key }))
    }

    /// Makes the request a handshake to the upstream.
    pub(super) fn ask(&self, outbound: &mut Outbound) {
        let headers = outbound.request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
        outbound.accept = Some(accept(&self.key));
    }

    /// Makes the tunnel of a response that agrees to one.
    ///
    /// # Errors
    /// If the client would take the response for an agreement, and it is none.
    pub(super) fn conclude(
        self,
        response: &mut Response<ResponseBody>,
        far: Option<Lease>,
        bond: Option<Bond>,
        streams: &StreamsConfig,
    ) -> Result<Option<Tunnel>, Refusal> {
        match (far, &streams.websocket) {
            (Some(far), Some(config)) => {
                self.agree(response);
                let (handover, near) = Handover::channel();
                response.body_mut().hand_over(handover);
                let (idle_timeout, max_age) = (streams.idle_timeout, config.max_age);
                let terms = Terms { idle_timeout, max_age };
                Ok(Some(Tunnel { near, far, bond, terms }))
            }
            (_, _) if self.by == By::Connect && response.status().is_success() => Err(Refusal::BadAnswer),
            (_, _) => Ok(None),
        }
    }

    /// Makes the response that the upstream agreed with the client's.
    fn agree(&self, response: &mut Response<ResponseBody>) {
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        match self.by {
            By::Upgrade => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            }
            // RFC 8441, 5: the status says it all.
            By::Connect => {
                headers.remove(SEC_WEBSOCKET_ACCEPT);
                *response.status_mut() = StatusCode::OK;
            }
        }
    }
}

/// Whether an upstream's 101 is one to the handshake that it was sent; or what is wrong with it.
pub(super) fn check_agreement(headers: &HeaderMap, accept: &str) -> Result<(), &'static str> {
    let mut shown = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    if !names(headers, &UPGRADE, WEBSOCKET) || !names(headers, &CONNECTION, b"upgrade") {
        Err("switches to another protocol than WebSocket")
    } else if (shown.next().map(HeaderValue::as_bytes), shown.next()) != (Some(accept.as_bytes()), None) {
        Err("has a Sec-WebSocket-Accept that is not the key's")
    } else if headers.contains_key(TRANSFER_ENCODING) {
        Err("has a body, and switches protocols")
    } else {
        Ok(())
    }
}

/// Whether the header's list has `element`.
fn names(headers: &HeaderMap, name: &HeaderName, element: &[u8]) -> bool {
    let lines = headers.get_all(name).iter();
    let mut elements = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    elements.any(|other| other.trim_ascii().eq_ignore_ascii_case(element))
}

/// The client's key: 16 bytes in base64 (RFC 6455, 4.1).
fn key(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (key, None) = (keys.next()?, keys.next()) else { return None };
    let bytes = BASE64_STANDARD.decode(key.as_bytes()).ok()?;
    (bytes.len() == 16).then(|| key.clone())
}

fn new_key() -> Result<HeaderValue, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::Internal)?;
    HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).map_err(|_| Refusal::Internal)
}

/// What answers `key`.
fn accept(key: &HeaderValue) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Whether a page of the request's Origin may open a WebSocket. Without one it is no page that asks: browsers always
/// send it with a handshake.
fn is_welcome(headers: &HeaderMap, config: &WebsocketConfig, (scheme, host): (&str, &[u8])) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (origin, more) = (origins.next(), origins.next());
    let Some(origin) = origin.map(HeaderValue::as_bytes) else { return true };
    let implied: &[u8] = if scheme == "https" { b":443" } else { b":80" };
    let host = host.strip_suffix(implied).unwrap_or(host);
    let rest = origin.strip_prefix(scheme.as_bytes()).and_then(|rest| rest.strip_prefix(b"://"));
    let is_ours = rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host));
    let is_listed = config.origins.iter().any(|other| other.as_bytes().eq_ignore_ascii_case(origin));
    more.is_none() && (is_ours || is_listed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_key_is_sixteen_bytes_and_alone() {
        let one = headers(&[(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")]);
        assert!(key(&one).is_some());
        let mut two = one.clone();
        two.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(key(&two).is_none());
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ==", "!"] {
            assert!(key(&headers(&[(SEC_WEBSOCKET_KEY, bad)])).is_none(), "{bad}");
        }
    }

    #[test]
    fn who_may_open_one() {
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
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ORIGIN, HeaderValue::from_static(line));
            }
            assert_eq!(is_welcome(&headers, &config, ("https", b"app.example:443")), expected, "{lines:?}");
        }
    }

    #[test]
    fn an_agreement_is_to_the_letter() {
        let good =
            [(UPGRADE, "WebSocket"), (CONNECTION, "keep-alive, Upgrade"), (SEC_WEBSOCKET_ACCEPT, "abc=")];
        assert_eq!(check_agreement(&headers(&good), "abc="), Ok(()));
        assert!(check_agreement(&headers(&good), "abd=").is_err());
        for left_out in 0..3 {
            let lines: Vec<_> = good.iter().enumerate().filter(|(at, _)| *at != left_out).collect();
            let lines: Vec<_> = lines.into_iter().map(|(_, line)| line.clone()).collect();
            assert!(check_agreement(&headers(&lines), "abc=").is_err());
        }
    }
}
