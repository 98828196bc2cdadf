//! What gRPC is told when its call is not passed on.
//!
//! A client of gRPC reads the status of a call in `grpc-status`, under an HTTP status that is 200 whatever happens; a
//! redirect or a page means nothing to it. Calls are forwarded like any other request.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::body::ResponseBody;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: &str = "application/grpc";
/// What a message may not hold as it is.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether the request is a call: of gRPC itself, not of gRPC-Web, which reads HTTP's status.
pub(super) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    let is_grpc = |value: &HeaderValue| {
        let rest = value.as_bytes().strip_prefix(GRPC.as_bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    *method == Method::POST && headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

/// The answer to a call that is refused with `status` and `message`: trailers, and nothing before them.
pub(super) fn refuse(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(bytes::Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(GRPC_STATUS, HeaderValue::from(code(status)));
    let message = utf8_percent_encode(message, ESCAPED).to_string();
    if let Ok(message) = HeaderValue::from_str(&message) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// gRPC's own mapping, where it has one; what it leaves at *unknown* is told as what it is.
fn code(status: StatusCode) -> u16 {
    const UNKNOWN: u16 = 2;
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const ABORTED: u16 = 10;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match status.as_u16() {
        // Where a browser is sent to log in.
        302 | 303 | 401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        409 => ABORTED,
        413 | 414 | 429 | 431 => RESOURCE_EXHAUSTED,
        400 | 417 | 500 => INTERNAL,
        502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_method_and_content_type() {
        for (method, content_type, expected) in [
            (Method::POST, "application/grpc", true),
            (Method::POST, "application/grpc+proto", true),
            (Method::POST, "application/grpc; x", true),
            (Method::POST, "application/grpc-web", false),
            (Method::POST, "application/json", false),
            (Method::GET, "application/grpc", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(is_call(&method, &headers), expected, "{method} {content_type}");
        }
    }
}
