//! The reasons for refusing a request, each with the status and title of the response and the label in logs and metrics.
//! `response/refused.rs` makes the responses.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};

use crate::http1::BadRequest;
use crate::route::{Ambiguity, NoRoute};

/// The reason why the gateway responds instead of the upstream.
#[derive(Debug)]
pub enum Refusal {
    /// The request head or the framing is invalid or ambiguous.
    Malformed(Malformed),
    /// Servers could interpret the path differently.
    Ambiguous(Ambiguity),
    /// The connection was made under another host's client certificate rule.
    Misdirected,
    /// The request must be sent over TLS: a redirect with this status and location.
    Https(StatusCode, HeaderValue),
    /// A browser loads a page by a path with `//`: a redirect to this location, which has the merged path.
    Merged(HeaderValue),
    /// No route matches the host and path.
    NotFound,
    /// The method is not allowed; the path allows these. The list is empty for a refused TRACE or CONNECT.
    Method(Vec<Method>),
    /// The request's target is too long.
    UriTooLong,
    /// The request head is too large or has too many lines.
    TooManyHeaders,
    /// `Expect` has a value other than `100-continue`.
    Expectation,
    /// The route requires a user or a session, and the request has none.
    Unauthenticated(Challenge),
    /// As `Unauthenticated`, but a browser is redirected to this log-in page.
    Login(HeaderValue),
    /// The session's claims do not meet the route's requirements.
    Forbidden,
    /// A request with an unsafe method, or a WebSocket handshake, may come from another site.
    CrossSite,
    /// The session was modified concurrently with the upstream's change.
    Conflict,
    /// The upstream's change results in a session that its format or DynamoDB cannot store.
    Unwritable,
    /// The session cannot be looked up or written, because the store is unavailable.
    StoreUnavailable,
    /// The request's body is larger than the route's limit.
    BodyTooLarge,
    /// The client exceeds a rate limit; it may retry after this time.
    TooMany(Duration),
    /// The client sends the request body too slowly.
    BodyTimeout,
    /// No server of the upstream accepted a connection.
    Unreachable,
    /// No server of the upstream is healthy.
    NoServer,
    /// Every server of the upstream has reached its limit of requests in flight.
    Busy,
    /// The upstream closed the connection early, or its response is invalid: as HTTP, as a switch of protocols, or in a
    /// session command.
    BadResponse,
    /// The upstream sent no response before the timeout.
    Timeout,
    /// The injected headers exceed their size limit.
    MappingTooLarge,
    /// A defect of the gateway.
    Internal,
}

/// The fault of a malformed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The head has invalid syntax.
    Syntax,
    /// Host is missing, repeated or invalid.
    Host,
    /// Transfer-Encoding or Content-Length is invalid or ambiguous.
    Framing,
    /// The request target is not a path.
    Target,
    /// The WebSocket handshake has no valid key.
    Handshake,
}

/// The parameters of a `WWW-Authenticate` challenge.
#[derive(Debug)]
pub struct Challenge {
    /// The realm's name.
    pub realm: String,
    /// The name of the realm's cookie.
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
            Self::Unreachable | Self::BadResponse => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::MappingTooLarge | Self::Unwritable | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the label for logs and metrics.
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
            Self::BadResponse => "upstream-bad-answer",
            Self::Timeout => "upstream-timeout",
            Self::MappingTooLarge => "headers-too-large",
            Self::Internal => "internal",
        }
    }

    /// Returns the title in the response body. It reveals no detail of the store, the upstream or the configuration.
    /// The log has those details under the request's id.
    pub(super) fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "The request is malformed",
            Self::Ambiguous(_) => "The path is ambiguous",
            Self::Misdirected => "The request was sent on the wrong connection",
            Self::Https(..) => "This site requires HTTPS",
            Self::Merged(_) => "This page has moved",
            Self::NotFound => "Nothing was found at this address",
            Self::Method(_) => "The method is not allowed here",
            Self::UriTooLong => "The address is too long",
            Self::TooManyHeaders => "The request has too many headers",
            Self::Expectation => "The expectation cannot be met",
            Self::Unauthenticated(_) | Self::Login(_) => "You are not logged in",
            Self::Forbidden => "You do not have access to this page",
            Self::CrossSite => "The request may come from another site",
            Self::Conflict => "Your session was changed by another request",
            Self::StoreUnavailable | Self::NoServer => "The service is temporarily unavailable",
            Self::Busy => "The service is busy",
            Self::BodyTooLarge => "The request is too large",
            Self::TooMany(_) => "Too many requests from your address",
            Self::BodyTimeout => "The request took too long to arrive",
            Self::Unreachable => "The application cannot be reached",
            Self::BadResponse => "The application sent an invalid response",
            Self::Timeout => "The application took too long to respond",
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
