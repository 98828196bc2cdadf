//! A request's body on its way to the upstream, and how far it has come.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// A request's body on its way to the upstream. Trailers stay behind: an upstream that folds them into its headers
/// would take them for ours.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    progress: Rc<Progress>,
}

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: Cell<bool>,
    waiting: Cell<bool>,
    broken: Cell<bool>,
    frames: Cell<u64>,
}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming) -> Self {
        let progress = Progress { done: Cell::new(incoming.is_end_stream()), ..Progress::default() };
        Self { incoming, progress: Rc::new(progress) }
    }

    pub(crate) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
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
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let polled = loop {
            let polled = Pin::new(&mut this.incoming).poll_frame(cx);
            this.progress.waiting.set(polled.is_pending());
            match ready!(polled) {
                Some(Ok(frame)) if !frame.is_data() => {}
                other => break other,
            }
        };
        this.progress.frames.set(this.progress.frames.get() + 1);
        this.progress.broken.set(matches!(polled, Some(Err(_))));
        // An error leaves the body undone, which keeps its connection from being used again.
        if polled.is_none() || this.incoming.is_end_stream() {
            this.progress.done.set(true);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
