//! What comes back: a response's body, over either protocol, and what goes wrong on the way to it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};

use super::body::{RequestBody, RequestBodyError};
use super::stream::ServerStream;
use super::wire::{self, WireError};

/// A response's body on its way from the upstream.
#[derive(Debug)]
pub(crate) struct Incoming(Source);

#[derive(Debug)]
enum Source {
    Http1(wire::Http1Body<ServerStream, RequestBody>),
    Http2(hyper::body::Incoming),
}

/// Goes on sending a request while its client does not take the response.
#[derive(Debug)]
pub struct RequestSender(wire::Http1Sender<ServerStream, RequestBody>);

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IncomingError(Cause);

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Http1(WireError<RequestBodyError>),
    #[error(transparent)]
    Http2(hyper::Error),
}

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct SendError {
    /// Its head, where that has been kept.
    pub(crate) parts: Option<Parts>,
    /// Whether nothing of it was written. Then its body is whole.
    pub(crate) unsent: bool,
    pub(crate) cause: IncomingError,
}

impl IncomingError {
    /// Whether the server says that it has not looked at the request (RFC 9113, 8.7).
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
    pub(super) fn of_http1(body: wire::Http1Body<ServerStream, RequestBody>) -> Self {
        Self(Source::Http1(body))
    }

    /// What sends the rest of the request, where that takes somebody: over HTTP/2 the connection does it.
    pub(crate) fn sender(&self) -> Option<RequestSender> {
        match &self.0 {
            Source::Http1(body) => Some(RequestSender(body.sender())),
            Source::Http2(_) => None,
        }
    }

    pub(super) fn of_http2(body: hyper::body::Incoming) -> Self {
        Self(Source::Http2(body))
    }
}

impl RequestSender {
    /// Sends what can be sent now.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) {
        self.0.poll_send(cx);
    }
}

impl From<WireError<RequestBodyError>> for IncomingError {
    fn from(error: WireError<RequestBodyError>) -> Self {
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
            Source::Http1(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
            Source::Http2(body) => {
                ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
        }
    }
}
