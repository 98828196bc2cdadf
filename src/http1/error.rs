//! The reasons for rejecting a message.

/// The reason why a response head is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("is not HTTP/1")]
    NotHttp,
    #[error("has a status code below 100 or above 999")]
    Status,
    #[error("has a head that is too large")]
    TooLarge,
    #[error("has both Content-Length and Transfer-Encoding")]
    TwoFramings,
    #[error("has a Transfer-Encoding other than chunked, or one in HTTP/1.0")]
    Coding,
    #[error("has an invalid Content-Length, or several that differ")]
    Length,
    #[error("has a bare CR in its status line")]
    BareCr,
    #[error("has a header `{name}` {fault}")]
    Field { name: Box<str>, fault: BadField },
}

/// The reason why a header line is ambiguous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadField {
    #[error("with a bare CR")]
    BareCr,
    #[error("with a control character")]
    Control,
    #[error("whose name is invalid")]
    Name,
    #[error("with whitespace before it")]
    Space,
}

/// The reason why a body is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadBody {
    #[error("is incomplete")]
    Short,
    #[error("has invalid chunked encoding")]
    Chunks,
    #[error("has invalid trailers")]
    Trailers,
    #[error("has too many trailers")]
    ManyTrailers,
}

/// The reason why a request head is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRequest {
    #[error("the request's head has invalid syntax")]
    Syntax,
    #[error("the request's target is too long")]
    TargetTooLong,
    #[error("the request's head is too large")]
    HeadTooLarge,
}
