//! The reasons for which a request is not answered by its upstream, each with its status, its label in the log and the
//! sentence that its client reads. `response/refused.rs` makes the responses.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use crate::http1::BadRequest;
use crate::route::{Ambiguity, NoRoute};

/// Why a request is not answered by its upstream.
#[derive(Debug)]
pub enum Refusal {
    /// The request's head or framing could be read in two ways.
    Malformed(Malformed),
    /// The path could be read as another path.
    Ambiguous(Ambiguity),
    /// The connection was made for another host.
    Misdirected,
    /// The request must be sent over TLS: a redirect with this status and location.
    Https(StatusCode, HeaderValue),
    /// A browser asked for a page by a path with `//`: a redirect to this location, without.
    Merged(HeaderValue),
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
    /// The route requires a log-in or a session, and the request has none.
    Unauthenticated(Challenge),
    /// The route requires a log-in, and a browser is redirected to this log-in page.
    Login(HeaderValue),
    /// The session's claims do not meet the route's requirements.
    Forbidden,
    /// An unsafe method that may come from another site.
    CrossSite,
    /// The session was modified concurrently with the upstream's change of it.
    Conflict,
    /// The upstream's change makes a session that its format or DynamoDB cannot store.
    Unwritable,
    /// DynamoDB did not answer.
    StoreUnavailable,
    /// The request's body is larger than the route's limit.
    BodyTooLarge,
    /// The client is over its request rate, for so long.
    TooMany(Duration),
    /// The client stopped sending its request's body.
    BodyTimeout,
    /// No server of the upstream accepted a connection.
    Unreachable,
    /// No server of the upstream is healthy.
    NoServer,
    /// Every server of the upstream is at its limit of requests.
    Busy,
    /// The upstream closed the connection early, or its response is not valid HTTP.
    BadAnswer,
    /// The upstream sent no response in time.
    Timeout,
    /// The injected headers exceed their limit.
    MappingTooLarge,
    /// A defect of the gateway.
    Internal,
}

/// What makes a request malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The head has invalid syntax.
    Syntax,
    /// No Host, two, or one that is not a host.
    Host,
    /// Transfer-Encoding or Content-Length that can be read in two ways.
    Framing,
    /// The request target is not a path.
    Target,
    /// A WebSocket handshake without a valid key.
    Handshake,
}

/// The parameters of a `WWW-Authenticate` challenge.
#[derive(Debug)]
pub struct Challenge {
    /// The realm's name.
    pub realm: String,
    /// Its cookie's name.
    pub cookie: String,
}

impl From<BadRequest> for Refusal {
    fn from(bad: BadRequest) -> Self {
        match bad {
            BadRequest::Syntax => Self::Malformed(Malformed::Syntax),
            BadRequest::TargetTooLong => Self::UriTooLong,
            BadRequest::HeadTooLarge => Self::TooManyHeaders,
        }
    }
}

impl Refusal {
    /// Returns the status of the response.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Ambiguous(_) => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Https(status, _) => *status,
            Self::Merged(_) => StatusCode::PERMANENT_REDIRECT,
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

    /// Returns the cause in one word, for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Syntax) => "bad-syntax",
            Self::Malformed(Malformed::Host) => "bad-host",
            Self::Malformed(Malformed::Framing) => "bad-framing",
            Self::Malformed(Malformed::Target) => "bad-target",
            Self::Malformed(Malformed::Handshake) => "bad-handshake",
            Self::Ambiguous(_) => "ambiguous-path",
            Self::Misdirected => "misdirected",
            Self::Https(..) => "https",
            Self::Merged(_) => "duplicate-slashes",
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

    /// Returns the sentence that the response's body says. It holds no detail of the store, the upstream or the
    /// configuration; the log has those under the request's id.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "The request is malformed",
            Self::Ambiguous(_) => "The path is ambiguous",
            Self::Misdirected => "The request came to the wrong place",
            Self::Https(..) => "This site is visited over HTTPS",
            Self::Merged(_) => "This page has another address",
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
