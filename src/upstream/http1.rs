//! An HTTP/1.1 client connection that needs no separate task. Polling for the response also sends the request, and
//! reading the response body sends the rest of the request.
//!
//! 1. The head and the first piece of the body are sent in one write.
//! 2. The response is read while the request is being sent, and also after a write has failed: a server may respond
//!    early and close the connection.
//! 3. The connection can be reused if both messages are complete, the server keeps it open, and nothing was read
//!    beyond the response.

mod head;
#[cfg(test)]
mod tests;
mod tunnel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::head::Framing;
use super::gateway_headers::GatewayHeaders;
use crate::fields::Fields;
use crate::http1::{
    BadBody, BadHead, Decoder, MAX_RESPONSE_HEAD, ReadBuffer, Repairs, ResponseHead, Step, WriteQueue,
    write_chunk_size,
};
use crate::message::{Request, RequestHead, Response};

/// The largest plaintext of one TLS record (RFC 8446, 5.1). The peer cannot decrypt an incomplete record.
const MAX_TLS_RECORD: usize = 16 * 1024;

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Http1Connection<S, B> {
    inner: Rc<RefCell<Inner<S, B>>>,
}

/// The body of a response on a [`Http1Connection`].
#[derive(Debug)]
pub(crate) struct Http1Body<S, B> {
    inner: Rc<RefCell<Inner<S, B>>>,
    ended: bool,
}

/// Sends the rest of a request while nothing reads the body of its response.
#[derive(Debug)]
pub(crate) struct Http1Sender<S, B> {
    inner: Weak<RefCell<Inner<S, B>>>,
    /// The number of the request. Once the response has ended, the connection may serve another request.
    request: u64,
}

/// The result of a request: the response, and the repairs that were made to its head.
type ResponseResult<S, B> = Result<(Response<Http1Body<S, B>>, Repairs), Http1Error<<B as Body>::Error>>;

#[derive(Debug)]
struct Inner<S, B> {
    stream: S,
    read: ReadBuffer,
    /// Whether the server has closed its side.
    closed: bool,
    sending: Sending<B>,
    method: Method,
    decoder: Decoder,
    keep_alive: bool,
    /// The number of the current request.
    request: u64,
}

/// A request that is being sent.
#[derive(Debug)]
struct Sending<B> {
    /// The bytes of the head and the body that are not written yet.
    queue: WriteQueue,
    /// The body, until all of it is in the queue.
    body: Option<B>,
    /// Number of bytes of the Content-Length that are not queued yet; `None` if the body is chunked.
    remaining: Option<u64>,
    /// The request head, for a retry; `None` once response bytes have arrived or the body has failed.
    head: Option<Box<RequestHead>>,
    /// Whether any byte of the request was sent, or may have been.
    started: bool,
    /// The first piece of the body, until any byte is written.
    first: Option<Bytes>,
    /// Whether the body is not sent before the server has sent a 100 response.
    awaits_continue: bool,
    unflushed: bool,
    /// The error that ended writing.
    failed: Option<io::Error>,
    /// Whether the body failed in [`Http1Sender::poll_send`].
    body_failed: bool,
}

/// The parts of a failed request that a retry needs.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) head: Box<RequestHead>,
    /// Whether no byte of the request was sent.
    pub(super) unsent: bool,
    /// The first piece of the body, if it was taken and no byte was sent.
    pub(super) first: Option<Bytes>,
}

/// Error of a request or of its response body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Http1Error<E> {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection without a response")]
    Closed,
    #[error("the response {0}")]
    Head(#[from] BadHead),
    #[error("the response's body {0}")]
    Body(#[from] BadBody),
    #[error("the request's body failed")]
    Request(E),
    #[error("the request's body failed while the response was not read")]
    RequestUnread,
    #[error("the length of the request's body differs from its Content-Length")]
    Length,
}

impl<S, B> Clone for Http1Connection<S, B> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<S, B> Http1Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Returns an idle connection over `stream`.
    pub(crate) fn new(stream: S) -> Self {
        let inner = Inner {
            stream,
            read: ReadBuffer::new(),
            closed: false,
            sending: Sending::nothing(),
            method: Method::GET,
            decoder: Decoder::empty(),
            keep_alive: true,
            request: 0,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Returns whether an idle connection can still be used: the server has neither closed it nor sent anything.
    pub(crate) fn is_open(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let (mut byte, closed) = ([0; 1], inner.closed);
        let mut byte = ReadBuf::new(&mut byte);
        // Tokio's cooperative budget can force `Pending`, so this polls outside it.
        let stream = &mut inner.stream;
        let mut read =
            tokio::task::coop::unconstrained(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut byte)));
        let is_silent = Pin::new(&mut read).poll(&mut context).is_pending();
        !closed && inner.read.bytes.is_empty() && is_silent
    }

    /// Returns whether the connection can be used for another request.
    pub(crate) fn is_reusable(&self) -> bool {
        let inner = self.inner.borrow();
        inner.keep_alive
            && !inner.closed
            && inner.decoder.is_ended()
            && inner.sending.is_done()
            && inner.read.bytes.is_empty()
    }

    /// Returns the number of bytes that were read and not parsed yet.
    pub(crate) fn buffered(&self) -> usize {
        self.inner.borrow().read.bytes.len()
    }

    /// Starts a request. The previous request must be complete.
    pub(crate) fn start(&self, request: Request<B>, gateway_headers: &GatewayHeaders) {
        let mut inner = self.inner.borrow_mut();
        // Without a framing, the server would interpret the body as the next request.
        let framing = Framing::for_request(&request);
        let Request { head, body } = request;
        inner.method = head.method.clone();
        // An empty body with another Content-Length is kept, so that polling it finds the mismatch.
        let body = Some(body).filter(|body| !body.is_end_stream() || framing.length() != Some(0));
        let awaits_continue = body.is_some() && head.fields.contains(&EXPECT);
        let mut queue = WriteQueue::default();
        queue.push(head::write(&head, gateway_headers, framing));
        let (remaining, head) = (framing.length(), Some(head));
        inner.sending = Sending { queue, body, remaining, head, awaits_continue, ..Sending::nothing() };
        inner.keep_alive = false;
        inner.request += 1;
    }

    /// Returns whether the body is not sent before the server has sent a 100 response, because the request has
    /// `Expect: 100-continue` (RFC 9110, 10.1.1).
    pub(crate) fn awaits_continue(&self) -> bool {
        self.inner.borrow().sending.awaits_continue
    }

    /// Sends the body without a 100 response.
    pub(crate) fn stop_awaiting_continue(&self) {
        self.inner.borrow_mut().sending.awaits_continue = false;
    }

    /// Returns the parts of a failed request that a retry needs, or `None` if it must not be retried.
    pub(super) fn recover(&self) -> Option<Recovered> {
        let sending = &mut self.inner.borrow_mut().sending;
        Some(Recovered { head: sending.head.take()?, unsent: !sending.started, first: sending.first.take() })
    }

    /// Sends the request and reads the response's head. Calls `on_interim` for each interim response (1xx).
    pub(crate) fn poll_response(
        &self,
        cx: &mut Context<'_>,
        on_interim: &mut dyn FnMut(StatusCode, &Fields),
    ) -> Poll<ResponseResult<S, B>> {
        let mut inner = self.inner.borrow_mut();
        inner.poll_send(cx)?;
        if !inner.sending.started {
            // Bytes that arrived before the request was sent are not its response.
            return inner.sending.failed.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error.into())));
        }
        let head = ready!(inner.poll_head(cx, on_interim))?;
        inner.keep_alive = head.keep_alive && head.status != StatusCode::SWITCHING_PROTOCOLS;
        if inner.sending.awaits_continue {
            // The server has responded without the body, which is not sent. It may wait for the body nevertheless.
            inner.sending.body = None;
            inner.keep_alive = false;
        }
        inner.decoder = head.body;
        let ended = inner.decoder.is_ended();
        if ended {
            inner.read.free_if_large();
        }
        drop(inner);
        let ResponseHead { status, reason, fields, repairs, .. } = head;
        let body = Http1Body { inner: Rc::clone(&self.inner), ended };
        Poll::Ready(Ok((Response { status, reason, fields, body }, repairs)))
    }
}

impl<B> Sending<B> {
    /// Returns the state in which there is nothing to send.
    fn nothing() -> Self {
        Self {
            queue: WriteQueue::default(),
            body: None,
            remaining: Some(0),
            head: None,
            started: false,
            first: None,
            awaits_continue: false,
            unflushed: false,
            failed: None,
            body_failed: false,
        }
    }

    /// Stops sending. The body is dropped, so that nothing waits for it.
    fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.body = None;
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.body.is_none() && !self.unflushed && self.failed.is_none()
    }
}

impl<S, B> Inner<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Sends as much as possible without waiting. A failed write is not an error here, since the server may already have
    /// responded.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error<B::Error>> {
        if self.sending.body_failed {
            return Err(Http1Error::RequestUnread);
        }
        if self.sending.failed.is_some() {
            return Ok(());
        }
        loop {
            let filled = self.fill(cx);
            if filled.is_err() {
                // Without its body, the request cannot be retried.
                self.sending.head = None;
            }
            let blocked = !filled?;
            if self.sending.queue.is_empty() {
                if self.sending.unflushed {
                    match Pin::new(&mut self.stream).poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.sending.unflushed = false,
                        Poll::Ready(Err(error)) => self.sending.fail(error),
                        Poll::Pending => {}
                    }
                }
                if blocked || self.sending.body.is_none() {
                    return Ok(());
                }
                continue;
            }
            match self.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    // Over TLS, the first of several records may have been sent before the write failed.
                    self.sending.started |= self.sending.queue.bytes() > MAX_TLS_RECORD;
                    self.sending.fail(error);
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Moves a piece of the body to the queue, unless more than one piece is queued already. Returns `false` if no
    /// piece has arrived yet.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, Http1Error<B::Error>> {
        let sending = &mut self.sending;
        if sending.queue.pieces() > 1 {
            return Ok(true);
        }
        if sending.awaits_continue {
            return Ok(false);
        }
        let Some(body) = &mut sending.body else { return Ok(true) };
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Err(error))) => return Err(Http1Error::Request(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers are not sent: a server that merges them into the headers would take them for the
                    // gateway's.
                    let Ok(data) = frame.into_data() else { continue };
                    let length = data.len();
                    if length == 0 {
                        continue;
                    }
                    let is_last = body.is_end_stream();
                    if !sending.started {
                        sending.first = Some(data.clone());
                    }
                    if let Some(remaining) = &mut sending.remaining {
                        // The server would interpret bytes beyond Content-Length as the next request.
                        *remaining = remaining.checked_sub(length as u64).ok_or(Http1Error::Length)?;
                        if is_last && *remaining > 0 {
                            return Err(Http1Error::Length);
                        }
                        sending.queue.push(data);
                    } else {
                        let mut size = BytesMut::with_capacity(20);
                        write_chunk_size(length, &mut size);
                        sending.queue.push(size.freeze());
                        sending.queue.push(data);
                        let end: &[u8] = if is_last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                        sending.queue.push(Bytes::from_static(end));
                    }
                    if is_last {
                        sending.body = None;
                    }
                    return Ok(true);
                }
                Poll::Ready(None) => {
                    match sending.remaining {
                        Some(0) => {}
                        Some(_) => return Err(Http1Error::Length),
                        None => sending.queue.push(Bytes::from_static(b"0\r\n\r\n")),
                    }
                    sending.body = None;
                    return Ok(true);
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sending = &mut self.sending;
        ready!(sending.queue.poll_write(&mut self.stream, cx))?;
        sending.started = true;
        sending.first = None;
        sending.unflushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        on_interim: &mut dyn FnMut(StatusCode, &Fields),
    ) -> Poll<Result<ResponseHead, Http1Error<B::Error>>> {
        loop {
            if self.read.may_hold_head(MAX_RESPONSE_HEAD)
                && let Some(head) = ResponseHead::read(&mut self.read.bytes, &self.method)?
            {
                self.read.reset_search();
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    on_interim(head.status, &head.fields);
                    if head.status == StatusCode::CONTINUE && self.sending.awaits_continue {
                        self.sending.awaits_continue = false;
                        self.poll_send(cx)?;
                    }
                    continue;
                }
                return Poll::Ready(Ok(head));
            }
            self.read.set_searched();
            match ready!(self.poll_read(cx)) {
                Ok(0) => {
                    let failed = self.sending.failed.take();
                    return Poll::Ready(Err(failed.map_or(Http1Error::Closed, Http1Error::Io)));
                }
                // A server that has begun to respond may have processed the request: it must not be retried.
                Ok(_) => self.sending.head = None,
                Err(error) => {
                    // The earlier error is more specific.
                    return Poll::Ready(Err(self.sending.failed.take().unwrap_or(error).into()));
                }
            }
        }
    }

    /// Reads more bytes. Returns how many; 0 is the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let read = self.read.poll_fill(&mut self.stream, cx);
        match &read {
            // The next head is likely to arrive soon. The next piece of a body may take a long time.
            Poll::Pending if self.decoder.is_ended() => self.read.free_if_large(),
            Poll::Pending => self.read.free_if_empty(),
            Poll::Ready(read) => self.closed |= !matches!(read, Ok(1..)),
        }
        read
    }

    /// Reads the next piece of the response's body, and sends more of the request meanwhile.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Http1Error<B::Error>>> {
        if !self.sending.is_done() {
            self.poll_send(cx)?;
        }
        loop {
            match self.decoder.next(&mut self.read.bytes, self.closed)? {
                Step::NeedsRead => {}
                step @ (Step::Data(_) | Step::Trailers(_) | Step::End) => return Poll::Ready(Ok(step)),
            }
            ready!(self.poll_read(cx))?;
        }
    }
}

impl<S, B> Http1Body<S, B> {
    /// Returns a handle that sends the rest of the request.
    pub(super) fn sender(&self) -> Http1Sender<S, B> {
        Http1Sender { inner: Rc::downgrade(&self.inner), request: self.inner.borrow().request }
    }
}

impl<S, B> Http1Sender<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Sends as much as possible without waiting.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) {
        let Some(inner) = self.inner.upgrade() else { return };
        let mut inner = inner.borrow_mut();
        if inner.request == self.request && !inner.sending.is_done() && inner.poll_send(cx).is_err() {
            // The next read of the response body reports the error.
            inner.sending.body_failed = true;
        }
    }
}

impl<S, B> Body for Http1Body<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Http1Error<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut inner = this.inner.borrow_mut();
        let step = ready!(inner.poll_step(cx));
        this.ended = inner.decoder.is_ended();
        if this.ended {
            inner.read.free_if_large();
        }
        Poll::Ready(match step {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Step::End | Step::NeedsRead) => None,
            Err(error) => {
                inner.keep_alive = false;
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        // After the end, `inner` may belong to another response.
        let exact = if self.ended { Some(0) } else { self.inner.borrow().decoder.remaining() };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
