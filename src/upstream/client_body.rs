//! The body of a client's request, and the part of it that was not read.
//!
//! The gateway or the upstream may respond before the request body is complete. Dropping the rest of the body would then
//! reset the HTTP/2 stream (RFC 9113, 8.1), and a client that is still sending would lose the response. So the unread rest
//! returns to the connection ([`UnreadBody`]), which reads and discards it for a limited time. An HTTP/1.1 body is read
//! from its connection, which knows what is left of it.

use std::cell::RefCell;
use std::fmt::Debug;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::http1::{BadBody, Step};

/// The body of a client's request.
#[derive(Debug)]
pub struct ClientBody(VersionedBody);

#[derive(Debug)]
enum VersionedBody {
    Empty,
    /// The framing is invalid, so that the request is refused and nothing is read.
    InvalidFraming,
    /// The body of a request in a dry run, with its length if it is known. Reading it fails.
    Announced(Option<u64>),
    Http1(Http1ClientBody),
    Http2 {
        /// `None` only while it is dropped.
        incoming: Option<Incoming>,
        /// Receives the rest of a body that is dropped before its end.
        unread: Rc<UnreadBody>,
    },
}

/// A body that is read from an HTTP/1.1 connection.
#[derive(Debug)]
struct Http1ClientBody {
    connection: Weak<dyn BodyReader>,
    /// The number of its request on the connection.
    request: u64,
    /// The number of missing bytes, if it is known.
    remaining: Option<u64>,
    ended: bool,
}

/// A client's HTTP/1.1 connection, from which the body of the current request is read.
pub(crate) trait BodyReader: Debug {
    /// Reads the next piece of the body of request number `request`. Wakes the task of `cx` when more has arrived.
    fn poll_body(&self, request: u64, cx: &mut Context<'_>) -> Poll<Result<Step, ClientBodyError>>;

    /// Returns whether the client of request number `request` waits for a 100 response before it sends the body.
    fn expects_continue(&self, request: u64) -> bool;

    /// Sends the head of an interim response to request number `request`, unless its final response has begun.
    fn send_interim(&self, request: u64, head: Bytes);

    /// Records that nobody reads the rest of the body of request number `request`.
    fn body_dropped(&self, request: u64);
}

/// Error of a client's body.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    /// The connection broke.
    #[error("the client's connection failed")]
    Io(#[from] std::io::Error),
    /// The framing is invalid, or the client closed the connection.
    #[error("the request's body {0}")]
    Framing(String),
    /// The connection no longer serves this request, or the request is a dry run.
    #[error("the request has ended")]
    Ended,
    /// An HTTP/2 stream failed.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
    /// An HTTP/2 stream was reset with NO_ERROR before its end.
    #[error("the request's body is incomplete")]
    Incomplete,
}

/// The unread rest of a request's body over HTTP/2.
#[derive(Debug, Default)]
pub struct UnreadBody {
    incoming: RefCell<Option<Incoming>>,
    waker: RefCell<Option<Waker>>,
}

impl ClientBody {
    /// Returns an empty body.
    #[must_use]
    pub fn empty() -> Self {
        Self(VersionedBody::Empty)
    }

    /// Returns the body of a request whose framing is invalid.
    pub(crate) fn with_invalid_framing() -> Self {
        Self(VersionedBody::InvalidFraming)
    }

    /// Returns whether it is known where the body ends.
    pub(crate) fn has_valid_framing(&self) -> bool {
        !matches!(self.0, VersionedBody::InvalidFraming)
    }

    /// Returns the body of a request in a dry run. It announces `length`, if that is known, and reading it fails.
    pub(crate) fn announced(length: Option<u64>) -> Self {
        Self(if length == Some(0) { VersionedBody::Empty } else { VersionedBody::Announced(length) })
    }

    /// Returns the body of request number `request` on `connection`. `remaining` is its length, if that is known.
    pub(crate) fn http1(connection: Weak<dyn BodyReader>, request: u64, remaining: Option<u64>) -> Self {
        let ended = remaining == Some(0);
        Self(VersionedBody::Http1(Http1ClientBody { connection, request, remaining, ended }))
    }

    /// Returns whether the client waits for a 100 response before it sends the body (RFC 9110, 10.1.1). Reading the body
    /// sends one. Always `false` over HTTP/2, since hyper cannot send it.
    pub(super) fn expects_continue(&self) -> bool {
        let VersionedBody::Http1(body) = &self.0 else { return false };
        !body.ended
            && body.connection.upgrade().is_some_and(|connection| connection.expects_continue(body.request))
    }

    /// Sends the head of an interim response to an HTTP/1.1 client. hyper cannot send interim responses over HTTP/2.
    pub(super) fn send_interim(&self, head: Bytes) {
        if let VersionedBody::Http1(body) = &self.0
            && let Some(connection) = body.connection.upgrade()
        {
            connection.send_interim(body.request, head);
        }
    }

    /// Returns the body `incoming` of an HTTP/2 stream. If it is dropped before its end, `unread` receives the rest.
    /// `unread` is `None` if the request has no body; then the returned body is empty.
    pub(crate) fn http2(incoming: Incoming, unread: Option<Rc<UnreadBody>>) -> Self {
        match unread {
            Some(unread) => Self(VersionedBody::Http2 { incoming: Some(incoming), unread }),
            None => Self::empty(),
        }
    }
}

impl From<BadBody> for ClientBodyError {
    fn from(bad: BadBody) -> Self {
        Self::Framing(bad.to_string())
    }
}

impl Drop for VersionedBody {
    fn drop(&mut self) {
        let Self::Http2 { incoming, unread } = self else { return };
        if let Some(rest) = incoming.take().filter(|rest| !rest.is_end_stream()) {
            unread.incoming.replace(Some(rest));
            unread.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Drop for Http1ClientBody {
    fn drop(&mut self) {
        if !self.ended
            && let Some(connection) = self.connection.upgrade()
        {
            connection.body_dropped(self.request);
        }
    }
}

impl Http1ClientBody {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Some(connection) = self.connection.upgrade() else {
            return Poll::Ready(Some(Err(ClientBodyError::Ended)));
        };
        Poll::Ready(match ready!(connection.poll_body(self.request, cx)) {
            Ok(Step::Data(data)) => {
                if let Some(remaining) = &mut self.remaining {
                    *remaining = remaining.saturating_sub(data.len() as u64);
                    self.ended = *remaining == 0;
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Step::Trailers(trailers)) => {
                self.ended = true;
                Some(Ok(Frame::trailers(trailers)))
            }
            Ok(Step::End | Step::NeedsRead) => {
                self.ended = true;
                None
            }
            Err(error) => Some(Err(error)),
        })
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientBodyError>>> {
        match &mut self.get_mut().0 {
            VersionedBody::Http1(body) => body.poll_frame(cx),
            VersionedBody::Http2 { incoming: Some(incoming), .. } => {
                match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
                    // hyper also returns `None` if the stream was reset with NO_ERROR.
                    None if !incoming.is_end_stream() => Poll::Ready(Some(Err(ClientBodyError::Incomplete))),
                    frame => Poll::Ready(frame.map(|frame| frame.map_err(ClientBodyError::Http2))),
                }
            }
            VersionedBody::Announced(_) => Poll::Ready(Some(Err(ClientBodyError::Ended))),
            VersionedBody::Empty
            | VersionedBody::InvalidFraming
            | VersionedBody::Http2 { incoming: None, .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            VersionedBody::Empty | VersionedBody::InvalidFraming => true,
            VersionedBody::Announced(_) => false,
            VersionedBody::Http1(body) => body.ended,
            VersionedBody::Http2 { incoming, .. } => incoming.as_ref().is_none_or(Body::is_end_stream),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            VersionedBody::Empty | VersionedBody::InvalidFraming => SizeHint::with_exact(0),
            VersionedBody::Announced(length)
            | VersionedBody::Http1(Http1ClientBody { remaining: length, .. }) => {
                length.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            VersionedBody::Http2 { incoming, .. } => {
                incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
            }
        }
    }
}

impl UnreadBody {
    /// Reads and discards the bytes that have arrived. Ready when no body is left to read. Wakes the task if a body is
    /// dropped later.
    pub fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.incoming.borrow_mut();
        while let Some(incoming) = &mut *slot {
            match Pin::new(incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => *slot = None,
                Poll::Pending => return Poll::Pending,
            }
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Ready(())
    }

    /// Returns whether there is nothing to discard.
    pub fn is_empty(&self) -> bool {
        self.incoming.borrow().is_none()
    }
}
