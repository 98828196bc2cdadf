//! The body of a client's request as its connection reads it, and what becomes of the part that nobody wants.
//!
//! A request may be answered before its body has come: by a refusal, or by a server that has seen enough. Over HTTP/2
//! the response is then followed by RST_STREAM (RFC 9113, 8.1), and clients that are still sending when it comes lose
//! the response. So the rest is not dropped with the request: it goes back to the connection ([`UnreadBody`]), which
//! reads and discards it for a while.

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
    /// Always there until it is dropped.
    incoming: Option<Incoming>,
    /// Receives what is left of the body when it is dropped before its end.
    unread: Option<Rc<UnreadBody>>,
    /// Is false once the body has been read to its end.
    sending: Option<Rc<Cell<bool>>>,
}

/// What is left of a request's body that was dropped before its end.
#[derive(Debug, Default)]
pub struct UnreadBody {
    incoming: RefCell<Option<Incoming>>,
    waker: RefCell<Option<Waker>>,
}

impl ClientBody {
    /// The body `incoming`, whose rest goes to `unread` if it is dropped before its end.
    pub fn returning(incoming: Incoming, unread: Option<Rc<UnreadBody>>) -> Self {
        Self { incoming: Some(incoming), unread, sending: None }
    }

    /// The body `incoming`, which sets `sending` to false when it has been read to its end.
    pub fn tracked(incoming: Incoming, sending: Rc<Cell<bool>>) -> Self {
        Self { incoming: Some(incoming), unread: None, sending: Some(sending) }
    }
}

impl From<Incoming> for ClientBody {
    fn from(incoming: Incoming) -> Self {
        Self::returning(incoming, None)
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
    /// Reads and discards what has come. Ready when nothing is left, and then again if something is dropped later.
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

    /// Whether there is anything to discard.
    pub fn is_empty(&self) -> bool {
        self.incoming.borrow().is_none()
    }
}
