//! A request's body on its way to the upstream, and how far it has come.
//!
//! The body is shared by who sends it and who waits for the answer. So a body of which nothing has been sent can be
//! sent again over another connection, and one that nobody wants any more can be let go of.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::client_body::ClientBody;
use crate::headers::{self, Scrub};
use crate::time::{Alarm, Clock};

/// A request's body on its way to the upstream.
///
/// Its trailers stay behind over HTTP/1.1: an upstream that folds them into its headers would take them for ours. Those
/// that go on over HTTP/2 are held to what holds for headers.
#[derive(Debug)]
pub struct RequestBody {
    progress: Rc<BodyProgress>,
    attempt: u32,
    is_http2: bool,
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
    /// It is larger than it may be.
    #[error("the request's body is too large")]
    TooLarge,
    /// The request is over, and nobody wants the rest.
    #[error("the request is over")]
    Abandoned,
}

/// One attempt at sending a body, for whoever ends it.
#[derive(Debug)]
pub(super) struct Attempt {
    progress: Rc<BodyProgress>,
    number: u32,
}

/// A request's body, and how far it has come.
#[derive(Debug)]
pub(crate) struct BodyProgress {
    /// Which attempt may take from it. What is left of those before, in the task of an HTTP/2 connection, may not.
    attempt: Cell<u32>,
    /// None when it was abandoned.
    source: RefCell<Option<Source>>,
    /// Whether nobody sends it any more, for the attempt under way.
    stopped: Cell<bool>,
    /// Whether the response has begun, so that it is not sent again.
    answered: Cell<bool>,
    done: Cell<bool>,
    waiting: Cell<bool>,
    broken: Cell<bool>,
    slow: Cell<bool>,
    too_large: Cell<bool>,
    frames: Cell<u64>,
}

/// Where a body comes from.
#[derive(Debug)]
struct Source {
    incoming: ClientBody,
    /// A piece that was taken and not sent.
    returned: Option<Bytes>,
    /// How many more bytes there may be.
    left: u64,
    wait: Option<Wait>,
    /// What trailers may not say; none where there is no body.
    scrub: Option<Arc<Scrub>>,
    /// Who sends it over HTTP/2, and does not end with the request.
    sender: Option<Waker>,
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
    /// The body `incoming`, of at most `most` bytes, which comes at least at `pace`; none: of any size, at any pace.
    pub(crate) fn new(
        incoming: ClientBody,
        most: Option<u64>,
        pace: Option<Pace>,
        scrub: &Arc<Scrub>,
    ) -> Self {
        let done = incoming.is_end_stream();
        let wait = pace.filter(|_| !done).map(Wait::new);
        let scrub = (!done).then(|| Arc::clone(scrub));
        let progress = BodyProgress {
            attempt: Cell::new(0),
            source: RefCell::new(Some(Source {
                incoming,
                returned: None,
                left: most.unwrap_or(u64::MAX),
                wait,
                scrub,
                sender: None,
            })),
            stopped: Cell::new(false),
            answered: Cell::new(false),
            done: Cell::new(done),
            waiting: Cell::new(false),
            broken: Cell::new(false),
            slow: Cell::new(false),
            too_large: Cell::new(false),
            frames: Cell::new(0),
        };
        Self { progress: Rc::new(progress), attempt: 0, is_http2: false }
    }

    pub(crate) fn progress(&self) -> Rc<BodyProgress> {
        Rc::clone(&self.progress)
    }

    /// It goes over HTTP/1.1.
    pub(super) fn of_http1(&mut self) {
        self.is_http2 = false;
    }

    /// It goes over HTTP/2.
    pub(super) fn of_http2(&mut self) -> Attempt {
        self.is_http2 = true;
        Attempt { progress: Rc::clone(&self.progress), number: self.attempt }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.progress.attempt.get() == self.attempt {
            self.progress.stopped.set(true);
            self.progress.give_back();
        }
    }
}

impl Attempt {
    /// Lets go of what has not been sent, unless it is being sent again: who sends it is told, since its connection
    /// lives on.
    pub(super) fn abandon(&self) {
        let progress = &self.progress;
        if progress.attempt.get() == self.number && !progress.done.get() {
            let sender = progress.source.take().and_then(|source| source.sender);
            sender.iter().for_each(Waker::wake_by_ref);
        }
    }
}

impl Source {
    fn is_end_stream(&self) -> bool {
        self.returned.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.incoming.size_hint();
        match (&self.returned, hint.exact()) {
            (Some(piece), Some(rest)) => SizeHint::with_exact(rest + piece.len() as u64),
            (Some(_) | None, _) => hint,
        }
    }

    /// What goes on of a piece; none: nothing.
    fn passed_on(&self, frame: Frame<Bytes>, trailers: bool) -> Option<Frame<Bytes>> {
        let scrub = self.scrub.as_ref().filter(|_| trailers);
        match (frame.into_data(), scrub) {
            (Ok(data), _) => Some(Frame::data(data)),
            (Err(frame), Some(scrub)) => {
                let said: HeaderMap = frame.into_trailers().ok()?;
                let is_kept = |name: &_| headers::is_trailer(name) && !scrub.removes(name);
                headers::retain(said, is_kept).map(Frame::trailers)
            }
            (Err(_), None) => None,
        }
    }
}

impl BodyProgress {
    /// Whether all of it has been passed on.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }

    /// The response has begun. What its server does not take of the body is the client's connection's to deal with.
    pub(crate) fn answered(&self) {
        self.answered.set(true);
        self.give_back();
    }

    /// Lets go of the rest of a body that nobody sends, now or later.
    fn give_back(&self) {
        if self.stopped.get() && self.answered.get() {
            self.source.take();
        }
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

    /// Whether it was broken off as too large.
    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large.get()
    }

    /// How many pieces of it have been passed on.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.get()
    }

    /// Puts back what was taken and not sent after all: its first piece, or the end of a body that has none.
    pub(super) fn unread(&self, first: Option<Bytes>) {
        if let Some(source) = self.source.borrow_mut().as_mut() {
            source.returned = first;
            self.frames.set(0);
            self.done.set(source.is_end_stream());
        }
    }

    /// The same body again, if there is none, or nothing of it has been taken yet.
    pub(crate) fn again(self: &Rc<Self>) -> Option<RequestBody> {
        if !self.is_whole() {
            return None;
        }
        let attempt = self.attempt.get() + 1;
        self.attempt.set(attempt);
        self.stopped.set(false);
        let before = self.source.borrow_mut().as_mut().and_then(|source| source.sender.take());
        before.iter().for_each(Waker::wake_by_ref);
        Some(RequestBody { progress: Rc::clone(self), attempt, is_http2: false })
    }

    /// Whether nothing of it has been taken.
    pub(crate) fn is_whole(&self) -> bool {
        self.frames.get() == 0 && self.source.borrow().is_some()
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
        let (progress, is_http2) = (&*self.progress, self.is_http2);
        let mut source = progress.source.borrow_mut();
        let Some(source) = source.as_mut().filter(|_| progress.attempt.get() == self.attempt) else {
            return Poll::Ready(Some(Err(RequestBodyError::Abandoned)));
        };
        let polled = loop {
            if let Some(piece) = source.returned.take() {
                break Some(Ok(Frame::data(piece)));
            }
            let polled = Pin::new(&mut source.incoming).poll_frame(cx);
            progress.waiting.set(polled.is_pending());
            match polled {
                Poll::Pending => {
                    if source.wait.as_mut().is_none_or(|wait| wait.poll(cx).is_pending()) {
                        if is_http2 {
                            source.sender = Some(cx.waker().clone());
                        }
                        return Poll::Pending;
                    }
                    progress.slow.set(true);
                    break Some(Err(RequestBodyError::Slow));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let size = frame.data_ref().map_or(0, Bytes::len);
                    if let Some(wait) = &mut source.wait {
                        wait.received(size);
                    }
                    let Some(left) = source.left.checked_sub(size as u64) else {
                        progress.too_large.set(true);
                        break Some(Err(RequestBodyError::TooLarge));
                    };
                    source.left = left;
                    if let Some(frame) = source.passed_on(frame, is_http2) {
                        break Some(Ok(frame));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    progress.broken.set(true);
                    break Some(Err(RequestBodyError::Broken(error)));
                }
                Poll::Ready(None) => break None,
            }
        };
        progress.frames.set(progress.frames.get() + 1);
        // An error leaves the body undone, which keeps its connection from being used again.
        if polled.is_none() || (source.is_end_stream() && !matches!(polled, Some(Err(_)))) {
            progress.done.set(true);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.progress.source.borrow().as_ref().is_some_and(Source::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.progress.source.borrow();
        source.as_ref().map_or_else(SizeHint::default, Source::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use http::{Request, Response};
    use hyper::body::Incoming;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Puts the body of a request through `check`.
    async fn with_body(request: &str, check: impl AsyncFn(RequestBody)) {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(request.as_bytes()).await.unwrap();
        let checked = Cell::new(false);
        let service = service_fn(async |request: Request<Incoming>| {
            let scrub = Arc::new(Scrub::new([], false));
            check(RequestBody::new(request.into_body().into(), None, None, &scrub)).await;
            checked.set(true);
            Ok::<_, Infallible>(Response::new(http_body_util::Empty::<Bytes>::new()))
        });
        let _served =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(near), service).await;
        assert!(checked.get(), "{request}");
    }

    async fn next(body: &mut RequestBody) -> Option<Bytes> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn what_was_taken_and_not_sent_is_had_again() {
        for (framing, first) in [
            ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", None),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Some("hello")),
            ("Content-Length: 5\r\n\r\nhello", Some("hello")),
            ("Content-Length: 0\r\n\r\n", None),
        ] {
            with_body(&format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}"), async |mut body| {
                let progress = body.progress();
                let size = body.size_hint().exact();
                let taken = if body.is_end_stream() { None } else { next(&mut body).await };
                assert_eq!(taken.as_deref(), first.map(str::as_bytes));
                progress.unread(taken);
                let mut again = progress.again().expect("it is whole");
                assert_eq!(again.size_hint().exact(), size, "it is framed as before");
                let taken = if again.is_end_stream() { None } else { next(&mut again).await };
                assert_eq!(taken.as_deref(), first.map(str::as_bytes));
                if taken.is_some() && !again.is_end_stream() {
                    assert_eq!(next(&mut again).await, None);
                }
                assert!(progress.is_done());
            })
            .await;
        }
    }
}
