//! Refusals of gRPC calls.
//!
//! A gRPC client reads the status of a call from `grpc-status`, with an HTTP status that is always 200. It cannot use a
//! redirect or a page. Calls that are not refused are forwarded like any other request.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::body::ResponseBody;
use crate::message::Response;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC: &str = "application/grpc";
/// The characters that are percent-encoded in `grpc-message`.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Returns the Trailers-Only response to a call that is refused with `status` and `message`.
pub(super) fn refuse(status: StatusCode, message: &str) -> Response<ResponseBody> {
    let mut response = Response::new(StatusCode::OK, ResponseBody::full(bytes::Bytes::new()));
    let fields = &mut response.fields;
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(GRPC_STATUS, HeaderValue::from(code(status)));
    let message = utf8_percent_encode(message, ESCAPED).to_string();
    if let Ok(message) = HeaderValue::from_str(&message) {
        fields.insert(GRPC_MESSAGE, message);
    }
    response
}

/// Returns the gRPC status code of an HTTP status: the code of gRPC's mapping, or a more precise code where the mapping
/// yields UNKNOWN, and for 429 and 504, where it yields UNAVAILABLE.
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
