//! A request's body on its way to the upstream, and how far it has come.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::headers::{self, Fate, Scrub};
use crate::time::{Alarm, Clock};

/// A request's body on its way to the upstream.
///
/// Its trailers stay behind unless [`RequestBody::carry_trailers`] says otherwise: an upstream that folds them into its
/// headers would take them for ours. Those that are carried are held to what holds for headers.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    progress: Rc<Progress>,
    wait: Option<Wait>,
    /// What trailers may not say; none where there is no body.
    scrub: Option<Arc<Scrub>>,
    carries_trailers: bool,
}

/// How long a client may take to send a body.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For each next piece; and in all, but for what `rate` adds.
    pub limit: Duration,
    /// So many bytes let the client be waited for a second longer in all; 0: each piece is judged alone.
    pub rate: usize,
}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client did, or its framing is wrong.
    #[error("the request's body broke off, or its framing is wrong")]
    Broken(#[source] hyper::Error),
    /// The client was waited for in vain.
    #[error("the request's body comes too slowly")]
    Slow,
}

/// How far a request's body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    done: Cell<bool>,
    waiting: Cell<bool>,
    broken: Cell<bool>,
    slow: Cell<bool>,
    frames: Cell<u64>,
}

/// The waits for a client's body.
#[derive(Debug)]
struct Wait {
    pace: Pace,
    received: u64,
    /// How long the client has been waited for in all, the wait under way excepted.
    waited: Duration,
    since: Option<Instant>,
    alarm: Alarm,
}

impl RequestBody {
    /// The body `incoming`, which comes at least at `pace`; none: at any.
    pub(crate) fn new(incoming: Incoming, pace: Option<Pace>, scrub: &Arc<Scrub>) -> Self {
        let done = incoming.is_end_stream();
        let progress = Rc::new(Progress { done: Cell::new(done), ..Progress::default() });
        let wait = pace.filter(|_| !done).map(Wait::new);
        let scrub = (!done).then(|| Arc::clone(scrub));
        Self { incoming, progress, wait, scrub, carries_trailers: false }
    }

    pub(crate) fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }

    /// Passes trailers on, where they are told apart from headers.
    pub fn carry_trailers(&mut self) {
        self.carries_trailers = true;
    }

    /// What goes on of a piece; none: nothing.
    fn passed_on(&self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        let scrub = self.scrub.as_ref().filter(|_| self.carries_trailers);
        match (frame.into_data(), scrub) {
            (Ok(data), _) => Some(Frame::data(data)),
            (Err(frame), Some(scrub)) => {
                let said: HeaderMap = frame.into_trailers().ok()?;
                let goes = |name: &_| headers::is_trailer(name) && scrub.fate(name) == Fate::Pass;
                headers::kept(said, goes).map(Frame::trailers)
            }
            (Err(_), None) => None,
        }
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

    /// Whether the client was given up as too slow.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// How many pieces of it have been passed on.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.get()
    }
}

impl Wait {
    fn new(pace: Pace) -> Self {
        Self { pace, received: 0, waited: Duration::ZERO, since: None, alarm: Alarm::default() }
    }

    /// Ready when the client has been waited for long enough. Time that the upstream takes to read does not count.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Pace { limit, rate } = self.pace;
        let since = *self.since.get_or_insert_with(|| Clock.mono());
        let earned = match rate {
            0 => self.waited,
            rate => Duration::from_secs(self.received / rate as u64),
        };
        let left = (limit + earned).saturating_sub(self.waited);
        self.alarm.poll(cx, since + left.min(limit))
    }

    fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if let Some(since) = self.since.take() {
            self.waited += Clock.mono().saturating_duration_since(since);
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
        let this = self.get_mut();
        let polled = loop {
            let polled = Pin::new(&mut this.incoming).poll_frame(cx);
            this.progress.waiting.set(polled.is_pending());
            match polled {
                Poll::Pending => {
                    let Some(wait) = &mut this.wait else { return Poll::Pending };
                    if wait.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    this.progress.slow.set(true);
                    break Some(Err(RequestBodyError::Slow));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Some(wait) = &mut this.wait {
                        wait.received(frame.data_ref().map_or(0, Bytes::len));
                    }
                    if let Some(frame) = this.passed_on(frame) {
                        break Some(Ok(frame));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.progress.broken.set(true);
                    break Some(Err(RequestBodyError::Broken(error)));
                }
                Poll::Ready(None) => break None,
            }
        };
        this.progress.frames.set(this.progress.frames.get() + 1);
        // An error leaves the body undone, which keeps its connection from being used again.
        if polled.is_none() || (this.incoming.is_end_stream() && !matches!(polled, Some(Err(_)))) {
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
