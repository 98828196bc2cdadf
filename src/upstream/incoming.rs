//! The body of an upstream's response, over HTTP/1.1 or HTTP/2, and the errors of requests and responses.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::{RequestBody, RequestBodyError};
use super::http1::{self, Http1Error};
use super::stream::ServerStream;
use crate::message::RequestHead;

/// The body of an upstream's response.
#[derive(Debug)]
pub(crate) struct Incoming(VersionedBody);

#[derive(Debug)]
enum VersionedBody {
    Http1(http1::Http1Body<ServerStream, RequestBody>),
    Http2(hyper::body::Incoming),
}

/// Sends the rest of a request while its client does not read the response.
#[derive(Debug)]
pub struct RequestSender(http1::Http1Sender<ServerStream, RequestBody>);

/// Error of a request or of its response body.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IncomingError(Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Http1(Http1Error<RequestBodyError>),
    #[error(transparent)]
    Http2(hyper::Error),
    /// An HTTP/2 stream was reset with NO_ERROR before its end.
    #[error("the response is incomplete")]
    Incomplete,
}

/// Error of a request that failed before the response head.
#[derive(Debug)]
pub(crate) struct SendError {
    /// The request head for a retry. Over HTTP/1.1, `None` if the server has begun to respond or the request body has
    /// failed.
    pub(crate) head: Option<Box<RequestHead>>,
    /// Whether no byte of the request was sent. Its body is then still complete.
    pub(crate) unsent: bool,
    pub(crate) cause: IncomingError,
}

impl IncomingError {
    /// Returns whether the server states that it has not processed the request (RFC 9113, 8.7).
    pub(crate) fn is_refused(&self) -> bool {
        let Cause::Http2(error) = &self.0 else { return false };
        let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
        cause.is_some_and(|cause| match cause.reason() {
            Some(h2::Reason::REFUSED_STREAM) => cause.is_remote(),
            Some(h2::Reason::NO_ERROR) => cause.is_remote() && cause.is_go_away(),
            Some(_) | None => false,
        })
    }
}

impl Incoming {
    pub(super) fn from_http1(body: http1::Http1Body<ServerStream, RequestBody>) -> Self {
        Self(VersionedBody::Http1(body))
    }

    /// Returns a handle that sends the rest of the request. Returns `None` over HTTP/2, where the connection's task sends
    /// it.
    pub(crate) fn sender(&self) -> Option<RequestSender> {
        match &self.0 {
            VersionedBody::Http1(body) => Some(RequestSender(body.sender())),
            VersionedBody::Http2(_) => None,
        }
    }

    pub(super) fn from_http2(body: hyper::body::Incoming) -> Self {
        Self(VersionedBody::Http2(body))
    }
}

impl RequestSender {
    /// Sends as much as possible without waiting.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) {
        self.0.poll_send(cx);
    }
}

impl From<Http1Error<RequestBodyError>> for IncomingError {
    fn from(error: Http1Error<RequestBodyError>) -> Self {
        Self(Cause::Http1(error))
    }
}

impl From<hyper::Error> for IncomingError {
    fn from(error: hyper::Error) -> Self {
        Self(Cause::Http2(error))
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        Poll::Ready(match &mut self.get_mut().0 {
            VersionedBody::Http1(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            VersionedBody::Http2(body) => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                // hyper also returns `None` if the stream was reset with NO_ERROR.
                None if !body.is_end_stream() => Some(Err(IncomingError(Cause::Incomplete))),
                frame => frame.map(|frame| frame.map_err(Into::into)),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            VersionedBody::Http1(body) => body.is_end_stream(),
            VersionedBody::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            VersionedBody::Http1(body) => body.size_hint(),
            VersionedBody::Http2(body) => body.size_hint(),
        }
    }
}
