//! Writes request heads.

use std::io::Write as _;

use bytes::Bytes;
use http::Method;
use http::header::CONTENT_LENGTH;
use http_body::Body;

use super::super::gateway_headers::GatewayHeaders;
use crate::http1::parse_decimal;
use crate::message::{Request, RequestHead};

/// The framing of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// The Content-Length in the headers of the request; 0 if it has neither that field nor a body.
    Announced(u64),
    /// `Transfer-Encoding: chunked`, added by the gateway.
    Chunked,
    /// A Content-Length added by the gateway, since HTTP/2 requests may lack one.
    Length(u64),
}

impl Framing {
    /// Returns the framing of the body of `request`.
    pub(super) fn for_request<B: Body>(request: &Request<B>) -> Self {
        let expects_body = matches!(request.head.method, Method::POST | Method::PUT | Method::PATCH);
        let empty = request.body.is_end_stream().then_some(0);
        match (request.head.fields.get(&CONTENT_LENGTH), empty.or_else(|| request.body.size_hint().exact())) {
            // An invalid length matches no body.
            (Some(announced), _) => Self::Announced(parse_decimal(announced).unwrap_or(u64::MAX)),
            (None, None) => Self::Chunked,
            // With methods that usually have a body, an empty one gets `Content-Length: 0` (RFC 9110, 8.6).
            (None, Some(0)) if !expects_body => Self::Announced(0),
            (None, Some(length)) => Self::Length(length),
        }
    }

    /// Returns the length of the body, or `None` if it is chunked.
    pub(super) fn length(self) -> Option<u64> {
        match self {
            Self::Announced(length) | Self::Length(length) => Some(length),
            Self::Chunked => None,
        }
    }
}

/// Returns the request head, with `gateway_headers` before the fields of `request`.
pub(super) fn write(request: &RequestHead, gateway_headers: &GatewayHeaders, framing: Framing) -> Bytes {
    let RequestHead { method, uri, fields, .. } = request;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let fields_size = gateway_headers.written_size() + fields.written_size();
    let mut head = Vec::with_capacity(method.as_str().len() + path.len() + fields_size + 64);
    head.extend_from_slice(method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(path.as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    gateway_headers.write(&mut head);
    fields.write(&mut head);
    match framing {
        Framing::Announced(_) => {}
        Framing::Chunked => head.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => {
            // Writing to memory never fails.
            let _ = write!(head, "content-length: {length}\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}
