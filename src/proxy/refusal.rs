//! What the gateway answers itself. One enum of causes, one table from cause to answer.
//!
//! A body says what happened in constant words and under which id; never a detail of the store, the upstream or the
//! configuration. The log has those under the same id.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Method, Response, StatusCode};

use super::admit::prefers_html;
use super::body::ResponseBody;
use super::grpc;
use crate::route::{Ambiguity, NoRoute};

/// Why a request is not answered by its upstream.
#[derive(Debug)]
pub enum Refusal {
    /// The request's head or framing could be read in two ways.
    Malformed(Malformed),
    /// The path could be read as another path.
    Ambiguous(Ambiguity),
    /// The host is not one that the connection was made for.
    Misdirected,
    /// It is to come over TLS: with this status, there.
    Https(StatusCode, HeaderValue),
    /// No route takes it.
    NotFound,
    /// A route takes it with other methods.
    Method(Vec<Method>),
    /// The request's target is too long.
    UriTooLong,
    /// The request has too many header lines.
    TooManyHeaders,
    /// `Expect` with anything but `100-continue`.
    Expectation,
    /// A session is required and there is none.
    Unauthenticated(Challenge),
    /// The same, and the browser is to log in here.
    Login(HeaderValue),
    /// A required claim fails.
    Forbidden,
    /// An unsafe method that may come from another site.
    CrossSite,
    /// The upstream's change was made of a session that has moved on.
    Conflict,
    /// The upstream's change makes a session that cannot be written.
    Unwritable,
    /// The store did not answer.
    StoreUnavailable,
    /// The request's body is larger than the route takes.
    BodyTooLarge,
    /// The client's address asks too often, for so long.
    TooMany(Duration),
    /// The client stopped sending its request's body.
    BodyTimeout,
    /// No server of the upstream took the connection.
    Unreachable,
    /// No server of the upstream is healthy.
    NoServer,
    /// Every server of the upstream has as many requests as it may have.
    Busy,
    /// The upstream broke off, or answered what is not HTTP.
    BadAnswer,
    /// The upstream did not answer in time.
    Timeout,
    /// The injected headers exceed their budget.
    MappingTooLarge,
    /// A defect of the gateway.
    Internal,
}

/// What makes a request malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// No Host, two, or one that is not a host.
    Host,
    /// Transfer-Encoding or Content-Length that leave room for doubt.
    Framing,
    /// The request target is not a path.
    Target,
    /// A WebSocket's handshake without its key.
    Handshake,
}

/// What a `WWW-Authenticate` says.
#[derive(Debug)]
pub struct Challenge {
    /// The realm's name.
    pub realm: String,
    /// Its cookie's name.
    pub cookie: String,
}

/// How a refusal is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// RFC 9457.
    Problem,
    /// A small page.
    Page,
    /// As a gRPC client reads it.
    Grpc,
}

impl Style {
    /// How a request with this method and these headers is refused.
    pub fn of(method: &Method, headers: &HeaderMap) -> Self {
        if grpc::is_call(method, headers) {
            Self::Grpc
        } else if prefers_html(headers) {
            Self::Page
        } else {
            Self::Problem
        }
    }
}

impl Refusal {
    /// The status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Ambiguous(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Https(status, _) => *status,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Login(_) => StatusCode::FOUND,
            Self::Forbidden | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::Conflict => StatusCode::CONFLICT,
            Self::StoreUnavailable | Self::NoServer | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Unreachable | Self::BadAnswer => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::MappingTooLarge | Self::Unwritable | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The cause in one word, for logs and counts.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Host) => "bad-host",
            Self::Malformed(Malformed::Framing) => "bad-framing",
            Self::Malformed(Malformed::Target) => "bad-target",
            Self::Malformed(Malformed::Handshake) => "bad-handshake",
            Self::Ambiguous(_) => "ambiguous-path",
            Self::Misdirected => "misdirected",
            Self::Https(..) => "https",
            Self::NotFound => "no-route",
            Self::Method(_) => "method",
            Self::UriTooLong => "uri-too-long",
            Self::TooManyHeaders => "too-many-headers",
            Self::Expectation => "expectation",
            Self::Unauthenticated(_) => "unauthenticated",
            Self::Login(_) => "login",
            Self::Forbidden => "forbidden",
            Self::CrossSite => "cross-site",
            Self::Conflict => "conflict",
            Self::Unwritable => "unwritable",
            Self::StoreUnavailable => "store-unavailable",
            Self::BodyTooLarge => "body-too-large",
            Self::TooMany(_) => "rate",
            Self::BodyTimeout => "body-timeout",
            Self::Unreachable => "upstream-unreachable",
            Self::NoServer => "upstream-no-server",
            Self::Busy => "upstream-busy",
            Self::BadAnswer => "upstream-bad-answer",
            Self::Timeout => "upstream-timeout",
            Self::MappingTooLarge => "headers-too-large",
            Self::Internal => "internal",
        }
    }

    /// What the body says.
    fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "The request is malformed",
            Self::Ambiguous(_) => "The path is ambiguous",
            Self::Misdirected => "The request came to the wrong place",
            Self::Https(..) => "This site is visited over HTTPS",
            Self::NotFound => "There is nothing here",
            Self::Method(_) => "The method is not allowed here",
            Self::UriTooLong => "The address is too long",
            Self::TooManyHeaders => "The request has too many headers",
            Self::Expectation => "The expectation cannot be met",
            Self::Unauthenticated(_) | Self::Login(_) => "You are not logged in",
            Self::Forbidden => "You may not see this",
            Self::CrossSite => "The request may come from another site",
            Self::Conflict => "Your session has changed meanwhile",
            Self::StoreUnavailable | Self::NoServer => "The service is unavailable for the moment",
            Self::Busy => "The service is busy",
            Self::BodyTooLarge => "The request is too large",
            Self::TooMany(_) => "There are too many requests from your address",
            Self::BodyTimeout => "The request took too long to arrive",
            Self::Unreachable => "The application cannot be reached",
            Self::BadAnswer => "The application gave no usable answer",
            Self::Timeout => "The application took too long to answer",
            Self::MappingTooLarge | Self::Unwritable | Self::Internal => "Something went wrong",
        }
    }

    /// The answer to the request `id`, with `style`'s body.
    pub fn respond(self, id: &HeaderValue, style: Style) -> Response<ResponseBody> {
        let is_last = self.is_last();
        let mut response = self.answer(id, style);
        if is_last {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Whether the connection ends with it: what comes after a head that could be read in two ways is anybody's guess.
    fn is_last(&self) -> bool {
        matches!(self, Self::Malformed(_) | Self::BodyTooLarge | Self::BodyTimeout | Self::Internal)
    }

    fn answer(self, id: &HeaderValue, style: Style) -> Response<ResponseBody> {
        if style == Style::Grpc {
            return grpc::refuse(self.status(), self.title());
        }
        let status = self.status();
        let (content_type, body) = self.body(status, id.to_str().unwrap_or_default(), style);
        let mut response = Response::new(ResponseBody::full(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            Self::Method(allowed) => {
                let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
                if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
                    headers.insert(ALLOW, allowed);
                }
            }
            Self::Unauthenticated(Challenge { realm, cookie }) => {
                let challenge = format!("Cookie realm=\"{realm}\", cookie-name=\"{cookie}\"");
                if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                    headers.insert(WWW_AUTHENTICATE, challenge);
                }
            }
            Self::TooMany(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
            }
            Self::Login(location) | Self::Https(_, location) => {
                headers.insert(LOCATION, location);
            }
            Self::StoreUnavailable | Self::NoServer | Self::Busy => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Malformed(_)
            | Self::Ambiguous(_)
            | Self::Misdirected
            | Self::NotFound
            | Self::UriTooLong
            | Self::TooManyHeaders
            | Self::Expectation
            | Self::Forbidden
            | Self::CrossSite
            | Self::Conflict
            | Self::Unwritable
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::Unreachable
            | Self::BadAnswer
            | Self::Timeout
            | Self::MappingTooLarge
            | Self::Internal => {}
        }
        response
    }

    fn body(&self, status: StatusCode, id: &str, style: Style) -> (HeaderValue, Bytes) {
        let title = self.title();
        match style {
            Style::Problem | Style::Grpc => {
                let problem = serde_json::json!({
                    "type": "about:blank",
                    "title": title,
                    "status": status.as_u16(),
                    "instance": id,
                });
                (HeaderValue::from_static("application/problem+json"), Bytes::from(problem.to_string()))
            }
            // The id is letters, digits and `-_.` by the time it gets here: nothing to escape.
            Style::Page => {
                let page = format!(
                    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
                     <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
                     <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}}\
                     small{{opacity:.6}}</style><h1>{title}</h1><p><small>{} · {id}</small></p></html>\n",
                    status.as_u16(),
                );
                (HeaderValue::from_static("text/html; charset=utf-8"), Bytes::from(page))
            }
        }
    }
}

impl From<NoRoute> for Refusal {
    fn from(none: NoRoute) -> Self {
        match none {
            NoRoute::NotFound => Self::NotFound,
            NoRoute::Method(allowed) => Self::Method(allowed),
            NoRoute::Ambiguous(why) => Self::Ambiguous(why),
        }
    }
}
