//! The body of a client's request, and its unread rest.
//!
//! The gateway or the upstream may respond before the request body is complete. Dropping the rest of the body would then
//! reset the HTTP/2 stream (RFC 9113, 8.1), and a client that is still sending would lose the response. So the unread rest
//! goes back to the connection ([`UnreadBody`]), which reads and discards it for a while.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a client's request.
#[derive(Debug)]
pub struct ClientBody {
    /// `None` only while this is being dropped.
    incoming: Option<Incoming>,
    /// Receives the rest of a body that is dropped before its end.
    unread: Option<Rc<UnreadBody>>,
    /// Set to `false` when the body has been read to its end.
    sending: Option<Rc<Cell<bool>>>,
}

/// The unread rest of a request's body.
#[derive(Debug, Default)]
pub struct UnreadBody {
    incoming: RefCell<Option<Incoming>>,
    waker: RefCell<Option<Waker>>,
}

impl ClientBody {
    /// Wraps `incoming`. If the body is dropped before its end, the rest goes to `unread`.
    pub fn new(incoming: Incoming, unread: Option<Rc<UnreadBody>>) -> Self {
        Self { incoming: Some(incoming), unread, sending: None }
    }

    /// Wraps `incoming`, and sets `sending` to `false` when the body has been read to its end.
    pub fn tracked(incoming: Incoming, sending: Rc<Cell<bool>>) -> Self {
        Self { incoming: Some(incoming), unread: None, sending: Some(sending) }
    }
}

impl From<Incoming> for ClientBody {
    fn from(incoming: Incoming) -> Self {
        Self::new(incoming, None)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let Some(unread) = self.unread.take() else { return };
        if let Some(rest) = self.incoming.take().filter(|rest| !rest.is_end_stream()) {
            unread.incoming.replace(Some(rest));
            unread.waker.take().into_iter().for_each(Waker::wake);
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        if let Some(sending) = &this.sending
            && (matches!(polled, Poll::Ready(None)) || incoming.is_end_stream())
        {
            sending.set(false);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl UnreadBody {
    /// Reads and discards what has arrived. Ready when nothing is left; wakes the task if a body is dropped later.
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
