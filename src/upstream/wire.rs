//! An HTTP/1.1 connection to a server, with no task of its own: whoever waits for the response sends the request, and
//! whoever reads the body goes on sending what is left of it.
//!
//! 1. Head and first piece of the body leave in one write.
//! 2. The response is read while the request is still being sent, and after it cannot be sent any more: a server may
//!    answer early and hang up.
//! 3. The connection can be used again if both messages came to their end, both sides want that, and nothing was read
//!    beyond.

mod body;
mod error;
mod head;
mod mend;
#[cfg(test)]
mod tests;
mod tunnel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::body::{Decoder, Step};
use self::error::{BadBody, BadHead};
use self::head::{Framing, MAX_HEAD};
pub(super) use self::mend::Mends;
use super::gateway_headers::GatewayHeaders;

/// What is read at first, and at most, in one go: more as long as reads are full, since large bodies then cost less.
const FIRST_READ: usize = 8 * 1024;
const LAST_READ: usize = 256 * 1024;
/// The most that goes into one record of TLS, of which nothing can be read until all of it is there.
const TLS_RECORD: usize = 16 * 1024;

/// A connection.
#[derive(Debug)]
pub(crate) struct Http1Connection<S, B> {
    inner: Rc<RefCell<Inner<S, B>>>,
}

/// The body of a response that comes over a [`Http1Connection`].
#[derive(Debug)]
pub(crate) struct Http1Body<S, B> {
    inner: Rc<RefCell<Inner<S, B>>>,
    ended: bool,
}

/// Goes on sending a request whose response has begun, while nobody reads that.
#[derive(Debug)]
pub(crate) struct Http1Sender<S, B> {
    inner: Weak<RefCell<Inner<S, B>>>,
}

/// What a request comes to.
type Answered<S, B> = Result<Response<Http1Body<S, B>>, WireError<<B as Body>::Error>>;

#[derive(Debug)]
struct Inner<S, B> {
    stream: S,
    /// What has been read and not yet looked at.
    read: BytesMut,
    /// The most that it has had room for. What it has now is what is left of that.
    room: usize,
    /// How much is read in one go.
    read_size: usize,
    /// How much of that was looked through for a head that has not come to its end.
    looked_at: usize,
    /// Whether the server has ended its side.
    closed: bool,
    sending: Sending<B>,
    method: Method,
    decoder: Decoder,
    persists: bool,
}

/// A request on its way out.
#[derive(Debug)]
struct Sending<B> {
    /// What is to be written before more of the body is asked for.
    queue: SmallVec<[Bytes; 4]>,
    /// The body, until all of it is in the queue.
    body: Option<B>,
    /// How much of the body is yet to come, by what the head says; none: it comes in chunks.
    left: Option<u64>,
    /// The request's head, until anything comes back or the body fails.
    parts: Option<Parts>,
    /// Whether anything has been written, or may have been.
    begun: bool,
    /// The first piece of the body, until something has been written.
    first: Option<Bytes>,
    unflushed: bool,
    /// Why nothing more can be written.
    failed: Option<io::Error>,
    /// Whether the body failed while nobody read the response.
    broken: bool,
}

/// What can be had back of a request that was not answered.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) parts: Parts,
    /// Whether nothing of it was written.
    pub(super) unsent: bool,
    /// What was taken off the front of its body, if nothing was written.
    pub(super) first: Option<Bytes>,
}

/// Why there is no response, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError<E> {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server closed the connection without an answer")]
    Closed,
    #[error("the response {0}")]
    Head(#[from] BadHead),
    #[error("the response's body {0}")]
    Body(#[from] BadBody),
    #[error("the request's body failed")]
    Request(E),
    #[error("the request's body failed while the response was not read")]
    Broken,
    #[error("the request's body is not as long as its head says")]
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
    /// Speaks HTTP/1.1 over `stream`.
    pub(crate) fn new(stream: S) -> Self {
        let inner = Inner {
            stream,
            read: BytesMut::new(),
            room: 0,
            read_size: FIRST_READ,
            looked_at: 0,
            closed: false,
            sending: Sending::none(),
            method: Method::GET,
            decoder: Decoder::none(),
            persists: true,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Whether the server has not hung up while the connection was idle, nor said anything unasked.
    pub(crate) fn is_open(&self) -> bool {
        let mut inner = self.inner.borrow_mut();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let (mut byte, closed) = ([0; 1], inner.closed);
        let mut byte = ReadBuf::new(&mut byte);
        // To a task that has had its turn nothing is ready, which is not to be taken for silence.
        let stream = &mut inner.stream;
        let mut read =
            tokio::task::coop::unconstrained(poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut byte)));
        let silent = Pin::new(&mut read).poll(&mut context).is_pending();
        !closed && inner.read.is_empty() && silent
    }

    /// Whether it may carry another request.
    pub(crate) fn is_reusable(&self) -> bool {
        let inner = self.inner.borrow();
        inner.persists
            && !inner.closed
            && inner.decoder.is_ended()
            && inner.sending.is_done()
            && inner.read.is_empty()
    }

    /// How much is held of what was read.
    pub(crate) fn held(&self) -> usize {
        self.inner.borrow().read.len()
    }

    /// Begins a request. What was under way must be over.
    pub(crate) fn begin(&self, request: Request<B>, added: &GatewayHeaders) {
        let mut inner = self.inner.borrow_mut();
        // A body always has a framing: without one, the server would take it for the next request.
        let framing = Framing::of(&request);
        let head = head::write(&request, added, framing);
        inner.method = request.method().clone();
        let (parts, body) = request.into_parts();
        // An ended body that the head says more of is kept: whoever asks it for the rest finds that there is none.
        let body = Some(body).filter(|body| !body.is_end_stream() || framing.length() != Some(0));
        let mut queue = SmallVec::new();
        queue.push(head);
        inner.sending =
            Sending { queue, body, left: framing.length(), parts: Some(parts), ..Sending::none() };
        inner.persists = false;
    }

    /// What there is to send again of a request that failed.
    pub(super) fn recover(&self) -> Option<Recovered> {
        let sending = &mut self.inner.borrow_mut().sending;
        Some(Recovered { parts: sending.parts.take()?, unsent: !sending.begun, first: sending.first.take() })
    }

    /// Sends the request, and reads the response's head.
    pub(crate) fn poll_response(&self, cx: &mut Context<'_>) -> Poll<Answered<S, B>> {
        let mut inner = self.inner.borrow_mut();
        inner.poll_send(cx)?;
        if !inner.sending.begun {
            // What the server has said by now is no answer to this.
            return inner.sending.failed.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error.into())));
        }
        let head = ready!(inner.poll_head(cx))?;
        inner.persists = head.persists && head.status != StatusCode::SWITCHING_PROTOCOLS;
        inner.decoder = head.body;
        let ended = inner.decoder.is_ended();
        if ended {
            inner.tidy();
        }
        drop(inner);
        let mut response = Response::new(Http1Body { inner: Rc::clone(&self.inner), ended });
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.reason {
            response.extensions_mut().insert(reason);
        }
        if !head.mends.is_empty() {
            response.extensions_mut().insert(head.mends);
        }
        Poll::Ready(Ok(response))
    }
}

impl<B> Sending<B> {
    fn none() -> Self {
        Self {
            queue: SmallVec::new(),
            body: None,
            left: Some(0),
            parts: None,
            begun: false,
            first: None,
            unflushed: false,
            failed: None,
            broken: false,
        }
    }

    /// Nothing more can be written: whoever else has the body is not to wait for this.
    fn fail(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.body = None;
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.body.is_none() && !self.unflushed && self.failed.is_none()
    }
}

impl<S, B> Inner<S, B> {
    /// Lets go of a buffer that holds nothing: it may be long until something comes for it.
    fn let_go(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
            self.room = 0;
        }
    }

    /// The same at the end of a response, but for a buffer of the usual size, which the next one needs.
    fn tidy(&mut self) {
        if self.room > 2 * FIRST_READ {
            self.let_go();
        }
    }
}

impl<S, B> Inner<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Sends what can be sent now. What the server does not take any more is not the end: it may have answered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), WireError<B::Error>> {
        if self.sending.broken {
            return Err(WireError::Broken);
        }
        if self.sending.failed.is_some() {
            return Ok(());
        }
        loop {
            let filled = self.fill(cx);
            if filled.is_err() {
                // There is no whole body to send again.
                self.sending.parts = None;
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
                    // Over TLS, the first of several records may have gone before the write failed.
                    self.sending.begun |=
                        self.sending.queue.iter().map(Bytes::len).sum::<usize>() > TLS_RECORD;
                    self.sending.fail(error);
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Asks the body for more, while there is little to write. False: it has none for the moment.
    fn fill(&mut self, cx: &mut Context<'_>) -> Result<bool, WireError<B::Error>> {
        let sending = &mut self.sending;
        if sending.queue.len() > 1 {
            return Ok(true);
        }
        let Some(body) = &mut sending.body else { return Ok(true) };
        loop {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Err(error))) => return Err(WireError::Request(error)),
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers stay behind: a server that folds them into its headers would take them for ours.
                    let Ok(data) = frame.into_data() else { continue };
                    let length = data.len();
                    if length == 0 {
                        continue;
                    }
                    let over = body.is_end_stream();
                    if !sending.begun {
                        sending.first = Some(data.clone());
                    }
                    if let Some(left) = &mut sending.left {
                        // More than was announced would be the next request to the server.
                        *left = left.checked_sub(length as u64).ok_or(WireError::Length)?;
                        if over && *left > 0 {
                            return Err(WireError::Length);
                        }
                        sending.queue.push(data);
                    } else {
                        let mut size = BytesMut::with_capacity(20);
                        head::write_chunk_size(length, &mut size);
                        sending.queue.push(size.freeze());
                        sending.queue.push(data);
                        let end: &[u8] = if over { b"\r\n0\r\n\r\n" } else { b"\r\n" };
                        sending.queue.push(Bytes::from_static(end));
                    }
                    if over {
                        sending.body = None;
                    }
                    return Ok(true);
                }
                Poll::Ready(None) => {
                    match sending.left {
                        Some(0) => {}
                        Some(_) => return Err(WireError::Length),
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
        let stream = Pin::new(&mut self.stream);
        let mut written = if let [piece] = &*sending.queue {
            // To write one piece as a list of one costs the system more.
            ready!(stream.poll_write(cx, piece))?
        } else {
            let slices: SmallVec<[IoSlice<'_>; 4]> =
                sending.queue.iter().map(|piece| IoSlice::new(piece)).collect();
            ready!(stream.poll_write_vectored(cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        sending.begun = true;
        sending.first = None;
        sending.unflushed = true;
        sending.queue.retain(|piece| {
            let here = written.min(piece.len());
            piece.advance(here);
            written -= here;
            !piece.is_empty()
        });
        Poll::Ready(Ok(()))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<head::ResponseHead, WireError<B::Error>>> {
        loop {
            if self.may_hold_head()
                && let Some(head) = head::read(&mut self.read, &self.method)?
            {
                self.looked_at = 0;
                // Interim responses are for this hop; the one that is not interim is yet to come.
                if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
                    continue;
                }
                return Poll::Ready(Ok(head));
            }
            self.looked_at = self.read.len();
            match ready!(self.poll_read(cx)) {
                Ok(0) => {
                    let failed = self.sending.failed.take();
                    return Poll::Ready(Err(failed.map_or(WireError::Closed, WireError::Io)));
                }
                // Who has begun to answer may have acted on the request: it is not sent again.
                Ok(_) => self.sending.parts = None,
                Err(error) => {
                    // What was wrong first says more.
                    return Poll::Ready(Err(self.sending.failed.take().unwrap_or(error).into()));
                }
            }
        }
    }

    /// Whether reading a head may get further than the last time. A server that sends it byte by byte would have all of
    /// it read anew with each.
    fn may_hold_head(&self) -> bool {
        let length = self.read.len();
        if self.looked_at == 0 || length >= MAX_HEAD {
            return length > 0;
        }
        let new = self.read.get(self.looked_at.saturating_sub(2)..).unwrap_or_default();
        new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
    }

    /// Reads more, and says how much; 0 is the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.read_size);
        let before = self.read.len();
        let room = self.read.capacity() - before;
        self.room = self.room.max(self.read.capacity());
        let read = tokio_util::io::poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read);
        match read {
            Poll::Pending => {
                // A head is expected any moment; what nothing else comes for is not held on to.
                if self.decoder.is_ended() {
                    self.tidy();
                } else {
                    self.let_go();
                }
                Poll::Pending
            }
            Poll::Ready(Ok(count)) => {
                self.closed |= count == 0;
                if count == room {
                    self.read_size = (self.read_size * 2).min(LAST_READ);
                } else if count < self.read_size / 4 {
                    self.read_size = (self.read_size / 2).max(FIRST_READ);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => {
                self.closed = true;
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, WireError<B::Error>>> {
        // The rest of the request goes on meanwhile.
        if !self.sending.is_done() {
            self.poll_send(cx)?;
        }
        loop {
            match self.decoder.next(&mut self.read, self.closed)? {
                Step::More => {}
                step @ (Step::Data(_) | Step::Trailers(_) | Step::End) => return Poll::Ready(Ok(step)),
            }
            ready!(self.poll_read(cx))?;
        }
    }
}

impl<S, B> Http1Body<S, B> {
    /// What sends the rest of the request.
    pub(super) fn sender(&self) -> Http1Sender<S, B> {
        Http1Sender { inner: Rc::downgrade(&self.inner) }
    }
}

impl<S, B> Http1Sender<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Sends what can be sent now.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) {
        let Some(inner) = self.inner.upgrade() else { return };
        let mut inner = inner.borrow_mut();
        if !inner.sending.is_done() && inner.poll_send(cx).is_err() {
            // Whoever reads the response is told.
            inner.sending.broken = true;
        }
    }
}

impl<S, B> Body for Http1Body<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = WireError<B::Error>;

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
            inner.tidy();
        }
        Poll::Ready(match step {
            Ok(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Step::End | Step::More) => None,
            Err(error) => {
                inner.persists = false;
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        // By the end of it, the connection may carry somebody else's.
        let exact = if self.ended { Some(0) } else { self.inner.borrow().decoder.remaining() };
        exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
