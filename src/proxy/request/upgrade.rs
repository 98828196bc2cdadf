//! Requests to switch protocols, and the parts of a WebSocket handshake.
//!
//! A client requests a WebSocket by an Upgrade header over HTTP/1.1 (RFC 6455), or by an extended CONNECT over HTTP/2
//! (RFC 8441). The handshake with the upstream uses HTTP/1.1 in both cases.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};
use sha1::{Digest as _, Sha1};

use crate::fields::Fields;
use crate::message::RequestHead;

const WEBSOCKET: &[u8] = b"websocket";
/// The GUID of RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The protocol that a request asks to switch to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpgradeRequest {
    /// The request does not ask to switch protocols.
    None,
    /// A protocol other than WebSocket, or a WebSocket requested incorrectly. The gateway supports neither.
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
pub(in crate::proxy) fn may_send_early(request: &RequestHead) -> bool {
    request.method == Method::CONNECT || has_element(&request.fields, &UPGRADE, WEBSOCKET)
}

impl UpgradeRequest {
    /// Returns the protocol that a request asks to switch to.
    pub(super) fn read(head: &RequestHead) -> Self {
        let RequestHead { method, fields, protocol, version, .. } = head;
        if *method == Method::CONNECT {
            let is_websocket = protocol.as_ref().is_some_and(|name| name.as_ref() == WEBSOCKET);
            return if is_websocket { Self::Websocket(UpgradeMethod::Connect) } else { Self::Other };
        }
        if !fields.contains(&UPGRADE) {
            return Self::None;
        }
        let is_websocket = *method == Method::GET
            && *version == Version::HTTP_11
            && has_element(fields, &UPGRADE, WEBSOCKET)
            && has_element(fields, &CONNECTION, b"upgrade");
        if is_websocket { Self::Websocket(UpgradeMethod::Upgrade) } else { Self::Other }
    }
}

/// Checks that an upstream's 101 response accepts the handshake whose Sec-WebSocket-Accept must be `accept`.
///
/// # Errors
/// Returns the fault of the response.
pub(in crate::proxy) fn check_switch(fields: &Fields, accept: &str) -> Result<(), &'static str> {
    if !has_element(fields, &UPGRADE, WEBSOCKET) || !has_element(fields, &CONNECTION, b"upgrade") {
        Err("switches protocols and lacks `Upgrade: websocket` or `Connection: upgrade`")
    } else if fields.single(&SEC_WEBSOCKET_ACCEPT) != Some(accept.as_bytes()) {
        Err("has no single Sec-WebSocket-Accept that matches the key")
    } else if fields.contains(&TRANSFER_ENCODING) {
        Err("switches protocols and has a Transfer-Encoding")
    } else {
        Ok(())
    }
}

/// Returns whether the list in header `name` has `element`.
fn has_element(fields: &Fields, name: &HeaderName, element: &[u8]) -> bool {
    let mut elements = fields.get_all(name).flat_map(|line| line.split(|&byte| byte == b','));
    elements.any(|other| other.trim_ascii().eq_ignore_ascii_case(element))
}

/// Returns the client's key, or `None` unless there is exactly one, with 16 bytes in base64 (RFC 6455, 4.1).
pub(super) fn key(fields: &Fields) -> Option<HeaderValue> {
    let key = fields.single(&SEC_WEBSOCKET_KEY)?;
    let bytes = BASE64_STANDARD.decode(key).ok()?;
    HeaderValue::from_bytes(key).ok().filter(|_| bytes.len() == 16)
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

    fn fields(lines: &[(HeaderName, &'static str)]) -> Fields {
        lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn accept_value_matches_the_example_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn key_must_be_single_and_have_sixteen_bytes() {
        let one = fields(&[(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")]);
        assert!(key(&one).is_some());
        let mut two = one.clone();
        two.append(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert!(key(&two).is_none());
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZQ==", "!"] {
            assert!(key(&fields(&[(SEC_WEBSOCKET_KEY, bad)])).is_none(), "{bad}");
        }
    }

    #[test]
    fn switch_without_a_matching_accept_value_is_rejected() {
        let good =
            [(UPGRADE, "WebSocket"), (CONNECTION, "keep-alive, Upgrade"), (SEC_WEBSOCKET_ACCEPT, "abc=")];
        assert_eq!(check_switch(&fields(&good), "abc="), Ok(()));
        assert!(check_switch(&fields(&good), "abd=").is_err());
        for left_out in 0..3 {
            let lines: Vec<_> = good.iter().enumerate().filter(|(at, _)| *at != left_out).collect();
            let lines: Vec<_> = lines.into_iter().map(|(_, line)| line.clone()).collect();
            assert!(check_switch(&fields(&lines), "abc=").is_err());
        }
        let mut encoded = fields(&good);
        encoded.append(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        assert!(check_switch(&encoded, "abc=").is_err());
    }

    #[test]
    fn websocket_is_requested_by_upgrade_over_http_1_1_or_by_extended_connect() {
        use UpgradeRequest::{None, Other, Websocket};
        let websocket = [(UPGRADE, "h2c, WebSocket"), (CONNECTION, "keep-alive, Upgrade")];
        let http11 = Version::HTTP_11;
        // The last column: whether the bytes after the head may belong to a tunnel.
        for (method, version, protocol, lines, expected, early) in [
            (Method::GET, http11, Option::None, &[][..], None, false),
            (Method::GET, http11, Option::None, &websocket[1..], None, false),
            (Method::GET, http11, Option::None, &websocket, Websocket(UpgradeMethod::Upgrade), true),
            (Method::POST, http11, Option::None, &websocket, Other, true),
            (Method::GET, Version::HTTP_10, Option::None, &websocket, Other, true),
            (Method::GET, http11, Option::None, &websocket[..1], Other, true),
            (Method::GET, http11, Option::None, &[(UPGRADE, "h2c"), (CONNECTION, "upgrade")], Other, false),
            (Method::CONNECT, http11, Option::None, &websocket, Other, true),
            (
                Method::CONNECT,
                Version::HTTP_2,
                Some("websocket"),
                &[],
                Websocket(UpgradeMethod::Connect),
                true,
            ),
            (Method::CONNECT, Version::HTTP_2, Some("connect-udp"), &[], Other, true),
        ] {
            let protocol = protocol.map(hyper::ext::Protocol::from_static);
            let uri = http::Uri::from_static("/");
            let head = RequestHead { method, uri, version, protocol, fields: fields(lines) };
            assert_eq!(UpgradeRequest::read(&head), expected, "{head:?}");
            assert_eq!(may_send_early(&head), early, "{head:?}");
        }
    }

    #[test]
    fn new_keys_are_valid_and_differ() {
        let (one, other) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(one, other);
        assert!(key(&[(SEC_WEBSOCKET_KEY, one)].into_iter().collect()).is_some());
    }
}
