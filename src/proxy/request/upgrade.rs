//! Requests to switch protocols, and the parts of a WebSocket handshake.
//!
//! A client requests a WebSocket by an Upgrade header over HTTP/1.1 (RFC 6455), or by an extended CONNECT over HTTP/2
//! (RFC 8441). The handshake with the upstream uses HTTP/1.1 in both cases.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Version};
use hyper::ext::Protocol;
use sha1::{Digest as _, Sha1};

const WEBSOCKET: &[u8] = b"websocket";
/// The GUID of RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The protocol that a request asks to switch to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpgradeRequest {
    /// None.
    None,
    /// A protocol other than WebSocket, which the gateway does not support.
    Other,
    /// WebSocket.
    Websocket(UpgradeMethod),
}

/// The method by which a client requests a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum UpgradeMethod {
    /// An Upgrade header (RFC 6455).
    Upgrade,
    /// An extended CONNECT (RFC 8441).
    Connect,
}

/// Returns whether the bytes after the request head may belong to a tunnel, since the client may not wait for the 101
/// response.
pub(in crate::proxy) fn may_send_early<B>(request: &Request<B>) -> bool {
    *request.method() == Method::CONNECT || has_element(request.headers(), &UPGRADE, WEBSOCKET)
}

impl UpgradeRequest {
    /// Returns the protocol that a request asks to switch to.
    pub(super) fn read(parts: &Parts) -> Self {
        let Parts { method, headers, extensions, version, .. } = parts;
        if *method == Method::CONNECT {
            let is_websocket = extensions.get::<Protocol>().is_some_and(|name| name.as_ref() == WEBSOCKET);
            return if is_websocket { Self::Websocket(UpgradeMethod::Connect) } else { Self::Other };
        }
        if !headers.contains_key(UPGRADE) {
            return Self::None;
        }
        let is_websocket = *method == Method::GET
            && *version == Version::HTTP_11
            && has_element(headers, &UPGRADE, WEBSOCKET)
            && has_element(headers, &CONNECTION, b"upgrade");
        if is_websocket { Self::Websocket(UpgradeMethod::Upgrade) } else { Self::Other }
    }
}

/// Checks that an upstream's 101 response accepts the handshake whose Sec-WebSocket-Accept must be `accept`.
///
/// # Errors
/// Returns the fault of the response.
pub(in crate::proxy) fn check_switch(headers: &HeaderMap, accept: &str) -> Result<(), &'static str> {
    let mut received = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
    if !has_element(headers, &UPGRADE, WEBSOCKET) || !has_element(headers, &CONNECTION, b"upgrade") {
        Err("switches to a protocol other than WebSocket")
    } else if (received.next().map(HeaderValue::as_bytes), received.next()) != (Some(accept.as_bytes()), None)
    {
        Err("has a Sec-WebSocket-Accept that does not match the key")
    } else if headers.contains_key(TRANSFER_ENCODING) {
        Err("switches protocols and has a Transfer-Encoding")
    } else {
        Ok(())
    }
}

/// Returns whether the list in header `name` has `element`.
fn has_element(headers: &HeaderMap, name: &HeaderName, element: &[u8]) -> bool {
    let lines = headers.get_all(name).iter();
    let mut elements = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    elements.any(|other| other.trim_ascii().eq_ignore_ascii_case(element))
}

/// Returns the client's key, or `None` unless there is exactly one, with 16 bytes in base64 (RFC 6455, 4.1).
pub(super) fn key(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let (key, None) = (keys.next()?, keys.next()) else { return None };
    let bytes = BASE64_STANDARD.decode(key.as_bytes()).ok()?;
    (bytes.len() == 16).then(|| key.clone())
}

/// Returns a new key, for a handshake over HTTP/2, which has none.
///
/// # Errors
/// Returns an error if the operating system provides no randomness.
pub(super) fn new_key() -> Result<HeaderValue, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    // Base64 is valid in a header value.
    Ok(HeaderValue::try_from(BASE64_STANDARD.encode(bytes)).unwrap_or(HeaderValue::from_static("")))
}

/// Returns the `Sec-WebSocket-Accept` for `key`.
pub(super) fn accept(key: &HeaderValue) -> String {
    BASE64_STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn accept_value_matches_the_example_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn key_must_be_single_and_have_sixteen_bytes() {
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
    fn switch_without_a_matching_accept_value_is_rejected() {
        let good =
            [(UPGRADE, "WebSocket"), (CONNECTION, "keep-alive, Upgrade"), (SEC_WEBSOCKET_ACCEPT, "abc=")];
        assert_eq!(check_switch(&headers(&good), "abc="), Ok(()));
        assert!(check_switch(&headers(&good), "abd=").is_err());
        for left_out in 0..3 {
            let lines: Vec<_> = good.iter().enumerate().filter(|(at, _)| *at != left_out).collect();
            let lines: Vec<_> = lines.into_iter().map(|(_, line)| line.clone()).collect();
            assert!(check_switch(&headers(&lines), "abc=").is_err());
        }
    }
}
