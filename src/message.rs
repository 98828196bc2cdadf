//! Requests and responses on their way through the gateway, of any HTTP version.

use http::{Method, StatusCode, Uri, Version};
use hyper::ext::{Protocol, ReasonPhrase};

use crate::fields::Fields;

/// A request.
#[derive(Debug)]
pub struct Request<B> {
    /// The request's head. Boxed, since every step of the request moves it.
    pub head: Box<RequestHead>,
    /// The request's body.
    pub body: B,
}

/// The head of a request.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The request target (RFC 9112, 3.2).
    pub uri: Uri,
    /// The HTTP version.
    pub version: Version,
    /// The `:protocol` of an extended CONNECT (RFC 8441).
    pub protocol: Option<Protocol>,
    /// The header fields.
    pub fields: Fields,
}

/// A response.
#[derive(Debug)]
pub struct Response<B> {
    /// The status code.
    pub status: StatusCode,
    /// The reason phrase, if it is not the status code's canonical one.
    pub reason: Option<ReasonPhrase>,
    /// The header fields.
    pub fields: Fields,
    /// The body.
    pub body: B,
}

impl<B> Response<B> {
    /// Returns a response without fields.
    pub fn new(status: StatusCode, body: B) -> Self {
        Self { status, reason: None, fields: Fields::new(), body }
    }

    /// Returns the response with another body.
    pub fn map<C>(self, change: impl FnOnce(B) -> C) -> Response<C> {
        Response { status: self.status, reason: self.reason, fields: self.fields, body: change(self.body) }
    }
}

impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (mut parts, body) = request.into_parts();
        let protocol = parts.extensions.remove();
        let http::request::Parts { method, uri, version, headers, .. } = parts;
        let head = RequestHead { method, uri, version, protocol, fields: headers.into() };
        Self { head: Box::new(head), body }
    }
}

impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (mut parts, body) = response.into_parts();
        let reason = parts.extensions.remove();
        Self { status: parts.status, reason, fields: parts.headers.into(), body }
    }
}

impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let mut converted = Self::new(response.body);
        *converted.status_mut() = response.status;
        *converted.headers_mut() = response.fields.into_map();
        converted
    }
}
