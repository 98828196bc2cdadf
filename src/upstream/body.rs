//! A request's body on its way to the upstream, and how far it has come.
//!
//! The body is shared by who sends it and who waits for the answer. So a body of which nothing has been sent can be
//! sent again over another connection, and one that nobody wants any more can be let go of.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's body on its way to the upstream. Trailers stay behind: an upstream that folds them into its headers
/// would take them for ours.
#[derive(Debug)]
pub struct RequestBody {
    progress: Rc<Progress>,
}

/// How far a request's body has come.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The body, until it is abandoned.
    incoming: RefCell<Option<Incoming>>,
    done: Cell<bool>,
    waiting: Cell<bool>,
    broken: Cell<bool>,
    frames: Cell<u64>,
    /// Of the task that sends it, where that does not end with its connection.
    sender: RefCell<Option<Waker>>,
    shared_connection: Cell<bool>,
}

/// Why a body is not sent to its end.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client broke off, or its framing is wrong.
    #[error("the client broke off")]
    Broken(#[source] hyper::Error),
    /// The request is over.
    #[error("nobody wants the rest")]
    Abandoned,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        let progress = Progress {
            done: Cell::new(incoming.is_end_stream()),
            incoming: RefCell::new(Some(incoming)),
            waiting: Cell::new(false),
            broken: Cell::new(false),
            frames: Cell::new(0),
            sender: RefCell::new(None),
            shared_connection: Cell::new(false),
        };
        Self { progress: Rc::new(progress) }
    }

    pub(crate) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }

    /// It goes over a connection that others use too, and that does not end when the request does.
    pub(super) fn share_connection(&self, shared: bool) {
        self.progress.shared_connection.set(shared);
    }
}

impl Progress {
    /// Whether all of it has been passed on.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Whether it is the client that the next piece is waited for from.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.get()
    }

    /// Whether the client broke off, or its framing is wrong.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// How many pieces of it have been passed on.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.get()
    }

    /// The same body again, if there is none, or nothing of it has been taken yet.
    pub(crate) fn again(self: &Rc<Self>) -> Option<RequestBody> {
        let whole = self.frames.get() == 0 && !self.broken.get() && self.incoming.borrow().is_some();
        whole.then(|| RequestBody { progress: Rc::clone(self) })
    }

    /// Lets go of what has not been sent. Whoever sends it is told, since its connection may live on.
    pub(super) fn abandon(&self) {
        if !self.done.get() {
            self.incoming.take();
            if let Some(sender) = self.sender.take() {
                sender.wake();
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let progress = &*self.progress;
        let mut incoming = progress.incoming.borrow_mut();
        let Some(incoming) = incoming.as_mut() else {
            return Poll::Ready(Some(Err(RequestBodyError::Abandoned)));
        };
        let polled = loop {
            let polled = Pin::new(&mut *incoming).poll_frame(cx);
            progress.waiting.set(polled.is_pending());
            if polled.is_pending() && progress.shared_connection.get() {
                progress.sender.replace(Some(cx.waker().clone()));
            }
            match ready!(polled) {
                Some(Ok(frame)) if !frame.is_data() => {}
                other => break other,
            }
        };
        progress.frames.set(progress.frames.get() + 1);
        progress.broken.set(matches!(polled, Some(Err(_))));
        // An error leaves the body undone, which keeps its connection from being used again.
        if polled.is_none() || incoming.is_end_stream() {
            progress.done.set(true);
        }
        Poll::Ready(polled.map(|polled| polled.map_err(RequestBodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.progress.incoming.borrow().as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.progress.incoming.borrow().as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}
