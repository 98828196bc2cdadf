//! The body of a request that is being forwarded, and its progress.
//!
//! The connection that sends the body and the code that waits for the response share the progress. So a body can be sent
//! over another connection if no part of it was sent, and dropped when it is no longer needed.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderName, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};

use super::client_body::{ClientBody, ClientBodyError};
use crate::fields::Fields;
use crate::headers::{self, Scrub};
use crate::http1::{has_option, write_status_line};
use crate::time::{Alarm, Clock};

/// Limit on the interim responses that are forwarded for a request.
const MAX_INTERIM: u32 = 8;

/// The body of a request that is being forwarded.
///
/// Over HTTP/1.1, trailers are dropped, because a server that merges them into the headers would take them for the
/// gateway's. Over HTTP/2, trailers that clients may not send as headers are removed.
#[derive(Debug)]
pub struct RequestBody {
    progress: Rc<BodyProgress>,
    attempt: u32,
    is_http2: bool,
}

/// The minimum rate at which a client must send a body.
#[derive(Clone, Copy, Debug)]
pub struct MinBodyRate {
    /// Timeout for each frame, and limit on the time spent waiting for all frames. Received bytes extend the latter.
    pub limit: Duration,
    /// Bytes that add one second to the total; with 0, the total is not limited.
    pub rate: usize,
}

/// Error of a request body.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The client closed the connection, or the body's framing is invalid.
    #[error("the request body is incomplete or has invalid framing")]
    Broken(#[source] ClientBodyError),
    /// The client sent the body too slowly.
    #[error("the request body was sent too slowly")]
    Slow,
    /// The body exceeds the size limit.
    #[error("the request body is too large")]
    TooLarge,
    /// The request ended before the body was sent completely.
    #[error("the request has ended")]
    Abandoned,
}

/// A handle that ends one attempt to send a body.
#[derive(Debug)]
pub(super) struct Attempt {
    progress: Rc<BodyProgress>,
    number: u32,
}

/// A request's body and its progress.
#[derive(Debug)]
pub(crate) struct BodyProgress {
    /// The number of the attempt that may read the body. The [`RequestBody`] of an earlier attempt may still exist in the
    /// task of an HTTP/2 connection.
    attempt: Cell<u32>,
    /// The client's body; `None` when it has been dropped.
    source: RefCell<Option<BodySource>>,
    /// Whether the [`RequestBody`] of the current attempt was dropped.
    stopped: Cell<bool>,
    /// Whether the response has begun, which excludes a retry.
    responding: Cell<bool>,
    done: Cell<bool>,
    waiting: Cell<bool>,
    broken: Cell<bool>,
    slow: Cell<bool>,
    too_large: Cell<bool>,
    frames: Cell<u64>,
    /// The number of interim responses that were forwarded.
    interim: Cell<u32>,
}

/// The client's body and its limits.
#[derive(Debug)]
struct BodySource {
    incoming: ClientBody,
    /// Data that was read but not sent, to be read again.
    put_back: Option<Bytes>,
    /// Bytes that the size limit still allows.
    allowed: u64,
    wait: Option<ClientWait>,
    /// Removes trailers that clients may not send; `None` without a body.
    scrub: Option<Arc<Scrub>>,
    /// Wakes the task of the HTTP/2 connection that sends the body.
    sender: Option<Waker>,
}

/// Limits the time spent waiting for a client's body.
#[derive(Debug)]
struct ClientWait {
    min_rate: MinBodyRate,
    received: u64,
    /// The time waited so far, without the current wait.
    waited: Duration,
    /// When the current wait began.
    since: Option<Instant>,
    alarm: Alarm,
}

impl RequestBody {
    /// Wraps the client's body `incoming`, which fails if it exceeds `max_size` or is sent slower than `min_rate`.
    pub(crate) fn new(
        incoming: ClientBody,
        max_size: Option<u64>,
        min_rate: Option<MinBodyRate>,
        scrub: &Arc<Scrub>,
    ) -> Self {
        let done = incoming.is_end_stream();
        let wait = min_rate.filter(|_| !done).map(ClientWait::new);
        let scrub = (!done).then(|| Arc::clone(scrub));
        let progress = BodyProgress {
            attempt: Cell::new(0),
            source: RefCell::new(Some(BodySource {
                incoming,
                put_back: None,
                allowed: max_size.unwrap_or(u64::MAX),
                wait,
                scrub,
                sender: None,
            })),
            stopped: Cell::new(false),
            responding: Cell::new(false),
            done: Cell::new(done),
            waiting: Cell::new(false),
            broken: Cell::new(false),
            slow: Cell::new(false),
            too_large: Cell::new(false),
            frames: Cell::new(0),
            interim: Cell::new(0),
        };
        Self { progress: Rc::new(progress), attempt: 0, is_http2: false }
    }

    pub(crate) fn progress(&self) -> Rc<BodyProgress> {
        Rc::clone(&self.progress)
    }

    /// Sets `Expect: 100-continue` in `fields` if `allowed` and the client waits for a 100 response before it sends the
    /// body. Otherwise removes it, since an earlier attempt may have set it.
    pub(super) fn set_expect(&self, fields: &mut Fields, allowed: bool) {
        if self.attempt > 0 {
            fields.remove(&EXPECT);
        }
        let source = self.progress.source.borrow();
        if allowed && source.as_ref().is_some_and(|source| source.incoming.expects_continue()) {
            fields.append(EXPECT, HeaderValue::from_static("100-continue"));
        }
    }

    /// Prepares the body to be sent over HTTP/2.
    pub(super) fn use_http2(&mut self) -> Attempt {
        self.is_http2 = true;
        Attempt { progress: Rc::clone(&self.progress), number: self.attempt }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.progress.attempt.get() == self.attempt {
            self.progress.stopped.set(true);
            self.progress.drop_unneeded();
        }
    }
}

impl Attempt {
    /// Drops the rest of the body, unless a later attempt has begun, and wakes the connection's task that was sending it.
    pub(super) fn abandon(&self) {
        let progress = &self.progress;
        if progress.attempt.get() == self.number && !progress.done.get() {
            let sender = progress.source.take().and_then(|source| source.sender);
            sender.iter().for_each(Waker::wake_by_ref);
        }
    }
}

impl BodySource {
    fn is_end_stream(&self) -> bool {
        self.put_back.is_none() && self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.incoming.size_hint();
        match (&self.put_back, hint.exact()) {
            (Some(piece), Some(rest)) => SizeHint::with_exact(rest + piece.len() as u64),
            (Some(_) | None, _) => hint,
        }
    }

    /// Returns the part of a frame that the upstream may receive, or `None` if it may receive no part.
    fn filter(&self, frame: Frame<Bytes>, trailers: bool) -> Option<Frame<Bytes>> {
        let scrub = self.scrub.as_ref().filter(|_| trailers);
        match (frame.into_data(), scrub) {
            (Ok(data), _) => Some(Frame::data(data)),
            (Err(frame), Some(scrub)) => {
                let received: HeaderMap = frame.into_trailers().ok()?;
                let is_kept = |name: &_| headers::is_trailer(name) && !scrub.removes(name);
                headers::retain(received, is_kept).map(Frame::trailers)
            }
            (Err(_), None) => None,
        }
    }
}

impl BodyProgress {
    /// Forwards an interim response (RFC 9110, 15.2) to the client, up to [`MAX_INTERIM`] for each request. A 100
    /// response is not forwarded, but lets the body be read, and the client's connection then sends one.
    pub(super) fn send_interim(&self, status: StatusCode, fields: &Fields) {
        let count = self.interim.get();
        let source = self.source.borrow();
        let Some(source) = source.as_ref().filter(|_| status != StatusCode::CONTINUE && count < MAX_INTERIM)
        else {
            return;
        };
        self.interim.set(count + 1);
        // Fields that Connection names are hop-by-hop, too (RFC 9110, 7.6.1).
        let is_nominated = |name: &HeaderName| {
            fields.get_all(&CONNECTION).any(|line| has_option(line, name.as_str().as_bytes()))
        };
        let mut head = Vec::new();
        write_status_line(Version::HTTP_11, status, None, &mut head);
        fields.write_where(&mut head, |name, _| {
            !(is_nominated(name)
                || headers::is_hop_by_hop(name)
                || headers::is_control(name)
                || matches!(*name, SET_COOKIE | CONTENT_LENGTH))
        });
        head.extend_from_slice(b"\r\n");
        source.incoming.send_interim(head.into());
    }

    /// Returns whether the whole body was read.
    pub(crate) fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Records that the response has begun. When the server stops reading the body, the unread rest returns to the
    /// client's connection.
    pub(crate) fn response_started(&self) {
        self.responding.set(true);
        self.drop_unneeded();
    }

    /// Drops the rest of the body if neither the current attempt nor a retry needs it.
    fn drop_unneeded(&self) {
        if self.stopped.get() && self.responding.get() {
            self.source.take();
        }
    }

    /// Returns whether the upstream is waiting for the client to send more.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.get()
    }

    /// Returns whether the body failed with [`RequestBodyError::Broken`].
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// Returns whether the body failed with [`RequestBodyError::Slow`].
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.get()
    }

    /// Returns whether the body failed with [`RequestBodyError::TooLarge`].
    pub(crate) fn is_too_large(&self) -> bool {
        self.too_large.get()
    }

    /// Returns the number of frames that were read from the body; the end of the body counts as one.
    pub(crate) fn frames(&self) -> u64 {
        self.frames.get()
    }

    /// Puts back data that was read but not sent: the first frame, or the end of an empty body.
    pub(super) fn put_back(&self, first: Option<Bytes>) {
        if let Some(source) = self.source.borrow_mut().as_mut() {
            source.put_back = first;
            self.frames.set(0);
            self.done.set(source.is_end_stream());
        }
    }

    /// Returns the body for another attempt, or `None` if part of it was read.
    pub(crate) fn retry(self: &Rc<Self>) -> Option<RequestBody> {
        if !self.is_whole() {
            return None;
        }
        let attempt = self.attempt.get() + 1;
        self.attempt.set(attempt);
        self.stopped.set(false);
        let previous = self.source.borrow_mut().as_mut().and_then(|source| source.sender.take());
        previous.iter().for_each(Waker::wake_by_ref);
        Some(RequestBody { progress: Rc::clone(self), attempt, is_http2: false })
    }

    /// Returns whether nothing was read from the body.
    pub(crate) fn is_whole(&self) -> bool {
        self.frames.get() == 0 && self.source.borrow().is_some()
    }
}

impl ClientWait {
    fn new(min_rate: MinBodyRate) -> Self {
        Self { min_rate, received: 0, waited: Duration::ZERO, since: None, alarm: Alarm::default() }
    }

    /// Ready on timeout. Time that the upstream takes to read does not count.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let MinBodyRate { limit, rate } = self.min_rate;
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
            if let Some(piece) = source.put_back.take() {
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
                    let Some(allowed) = source.allowed.checked_sub(size as u64) else {
                        progress.too_large.set(true);
                        break Some(Err(RequestBodyError::TooLarge));
                    };
                    source.allowed = allowed;
                    if let Some(frame) = source.filter(frame, is_http2) {
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
        // After an error the body is not done, so its connection is not reused.
        if polled.is_none() || (source.is_end_stream() && !matches!(polled, Some(Err(_)))) {
            progress.done.set(true);
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.progress.source.borrow().as_ref().is_some_and(BodySource::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.progress.source.borrow();
        source.as_ref().map_or_else(SizeHint::default, BodySource::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use bytes::BytesMut;

    use super::super::client_body::BodyReader;
    use super::*;
    use crate::http1::{Decoder, Step};

    /// A client that has sent a whole body.
    #[derive(Debug)]
    struct Received(RefCell<(Decoder, BytesMut)>);

    impl BodyReader for Received {
        fn poll_body(&self, _: u64, _: &mut Context<'_>) -> Poll<Result<Step, ClientBodyError>> {
            let (decoder, bytes) = &mut *self.0.borrow_mut();
            Poll::Ready(decoder.next(bytes, true).map_err(Into::into))
        }

        fn expects_continue(&self, _: u64) -> bool {
            false
        }

        fn send_interim(&self, _: u64, _: Bytes) {}

        fn body_dropped(&self, _: u64) {}
    }

    async fn next(body: &mut RequestBody) -> Option<Bytes> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[tokio::test]
    async fn unsent_body_can_be_sent_again() {
        for (decoder, sent, first) in [
            (Decoder::chunked(), "0\r\n\r\n", None),
            (Decoder::chunked(), "5\r\nhello\r\n0\r\n\r\n", Some("hello")),
            (Decoder::length(5), "hello", Some("hello")),
            (Decoder::length(0), "", None),
        ] {
            let remaining = decoder.remaining();
            let client: Rc<dyn BodyReader> = Rc::new(Received(RefCell::new((decoder, sent.into()))));
            let body = ClientBody::http1(Rc::downgrade(&client), 1, remaining);
            let mut body = RequestBody::new(body, None, None, &Arc::new(Scrub::new([], false)));
            let progress = body.progress();
            let size = body.size_hint().exact();
            let taken = if body.is_end_stream() { None } else { next(&mut body).await };
            assert_eq!(taken.as_deref(), first.map(str::as_bytes));
            progress.put_back(taken);
            let mut again = progress.retry().expect("nothing was sent");
            assert_eq!(again.size_hint().exact(), size, "it has the same framing");
            let taken = if again.is_end_stream() { None } else { next(&mut again).await };
            assert_eq!(taken.as_deref(), first.map(str::as_bytes));
            if taken.is_some() && !again.is_end_stream() {
                assert_eq!(next(&mut again).await, None);
            }
            assert!(progress.is_done());
        }
    }
}
