//! The IO of a client's HTTP/1.1 connection: reads request heads and bodies, and writes queued bytes.
//!
//! It is shared by the connection's task, which reads heads and writes responses, and by the body of the current request,
//! which is read from the connection when it is polled.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::scratch;
use crate::http1::{BadRequest, Decoder, HeadLimits, ParsedRequest, ReadBuffer, Step, WriteQueue};
use crate::server::transport::ResetOnClose;
use crate::upstream::{BodyReader, ClientBodyError};

/// Limit on the bytes of later requests that are read while one is handled.
const MAX_AHEAD: usize = 64 * 1024;
/// The interim response to a client that waits for it before it sends the request body (RFC 9110, 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection.
#[derive(Debug)]
pub(super) struct ConnectionIo<S> {
    stream: S,
    read: ReadBuffer,
    write: WriteQueue,
    /// Number of writes that have succeeded.
    writes: u64,
    unflushed: bool,
    /// Whether the client has closed its side, or the connection is broken.
    closed: bool,
    /// The number of the current request.
    request: u64,
    /// Decodes the body of the current request.
    body: Decoder,
    /// Whether the body has invalid framing, or reading it failed.
    is_body_broken: bool,
    /// Whether the client waits for a 100 response before it sends the body.
    is_continue_due: bool,
    /// Whether interim responses can be sent: to a client of HTTP/1.1, until its final response begins.
    accepts_interim: bool,
    /// The connection's task, which watches for the client's disconnection once the body has been read.
    task: Option<Waker>,
}

/// The reason why no request head was read.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client has closed the connection, or it broke.
    Closed,
    /// The head is rejected.
    Rejected(BadRequest),
}

impl<S> ConnectionIo<S> {
    /// Returns a connection over `stream`, from which `first` has already been read.
    pub(super) fn new(stream: S, first: Bytes) -> Self {
        let mut read = ReadBuffer::new();
        read.bytes = BytesMut::from(first);
        Self {
            stream,
            read,
            write: WriteQueue::default(),
            writes: 0,
            unflushed: false,
            closed: false,
            request: 0,
            body: Decoder::empty(),
            is_body_broken: false,
            is_continue_due: false,
            accepts_interim: false,
            task: None,
        }
    }

    /// Returns the stream, and the bytes that were read from it but not parsed.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.read.bytes.freeze())
    }

    /// Returns whether any unparsed bytes have arrived.
    pub(super) fn has_bytes(&self) -> bool {
        !self.read.bytes.is_empty()
    }

    /// Begins a request with this body. Returns its number.
    pub(super) fn begin(&mut self, body: Decoder, expects_continue: bool, accepts_interim: bool) -> u64 {
        self.request += 1;
        self.accepts_interim = accepts_interim;
        self.body = body;
        self.is_continue_due = expects_continue;
        self.request
    }

    /// Queues `piece` to be written.
    pub(super) fn queue(&mut self, piece: Bytes) {
        self.write.push(piece);
    }

    /// Returns the number of queued bytes.
    pub(super) fn queued(&self) -> usize {
        self.write.bytes()
    }

    /// Begins the final response. No interim response is sent after that.
    pub(super) fn begin_response(&mut self) {
        self.accepts_interim = false;
        self.is_continue_due = false;
    }

    /// Discards the part of the request body that has arrived. Returns whether the body is complete.
    pub(super) fn discard_body(&mut self) -> bool {
        while !self.is_body_broken {
            match self.body.next(&mut self.read.bytes, self.closed) {
                Ok(Step::Data(_) | Step::Trailers(_)) => {}
                Ok(Step::End) => return true,
                Ok(Step::NeedsRead) => return false,
                Err(_) => self.is_body_broken = true,
            }
        }
        false
    }

    /// Returns whether the client may still be sending, so that it could lose the response if the connection were closed.
    pub(super) fn may_be_sending(&self) -> bool {
        !self.closed && (!self.body.is_ended() || self.has_bytes())
    }
}

impl<S: ResetOnClose> ConnectionIo<S> {
    /// Makes the end of the connection different from a regular end.
    pub(super) fn reset_on_close(&mut self) {
        self.stream.reset_on_close();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ConnectionIo<S> {
    /// Reads the head of the next request.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: HeadLimits,
    ) -> Poll<Result<ParsedRequest, NoRequest>> {
        loop {
            if self.read.may_hold_head(limits.bytes)
                && let Some((head, length)) =
                    ParsedRequest::parse(&self.read.bytes, limits).map_err(NoRequest::Rejected)?
            {
                self.read.bytes.advance(length);
                self.read.reset_search();
                self.read.free_if_empty();
                return Poll::Ready(Ok(head));
            }
            self.read.set_searched();
            if self.closed {
                return Poll::Ready(Err(NoRequest::Closed));
            }
            if self.has_bytes() {
                self.closed = !matches!(ready!(self.read.poll_fill(&mut self.stream, cx)), Ok(1..));
                continue;
            }
            let Self { stream, read, closed, .. } = self;
            let parsed = scratch::poll_read(stream, cx, |bytes| {
                *closed = bytes.is_empty();
                let parsed = ParsedRequest::parse(bytes, limits)?;
                let rest = bytes.get(parsed.as_ref().map_or(0, |(_, length)| *length)..);
                read.bytes.extend_from_slice(rest.unwrap_or_default());
                if parsed.is_none() {
                    read.set_searched();
                }
                Ok(parsed.map(|(head, _)| head))
            });
            match ready!(parsed) {
                Ok(Ok(Some(head))) => return Poll::Ready(Ok(head)),
                Ok(Ok(None)) => {}
                Ok(Err(bad)) => return Poll::Ready(Err(NoRequest::Rejected(bad))),
                Err(_) => self.closed = true,
            }
        }
    }

    /// Returns the number of writes that have succeeded.
    pub(super) fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes the queued bytes. Ready when all are written.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.write.is_empty() {
            ready!(self.write.poll_write(&mut self.stream, cx))?;
            self.unflushed = true;
            self.writes += 1;
        }
        Poll::Ready(Ok(()))
    }

    /// Flushes bytes that a lower layer, such as TLS, may buffer.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready when the client has disconnected. Later requests are read ahead, up to a limit. While the body of the
    /// current request is incomplete and `has_reader`, reading the body detects the disconnection instead.
    pub(super) fn poll_disconnected(&mut self, cx: &mut Context<'_>, has_reader: bool) -> Poll<()> {
        if !self.body.is_ended() && !has_reader {
            // Nobody reads the body any more. If its end does not arrive before the response begins, the connection is
            // closed after the response.
            while !self.discard_body() && !self.is_body_broken {
                if !matches!(ready!(self.read.poll_fill(&mut self.stream, cx)), Ok(1..)) {
                    self.closed = true;
                    return Poll::Ready(());
                }
            }
        } else if !self.body.is_ended() {
            if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                self.task = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
        while self.read.bytes.len() < MAX_AHEAD {
            let Self { stream, read, .. } = self;
            let count = scratch::poll_read(stream, cx, |bytes| {
                read.bytes.extend_from_slice(bytes);
                bytes.len()
            });
            if !matches!(ready!(count), Ok(1..)) {
                self.closed = true;
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Returns whether so many bytes of later requests were read that the client's disconnection is not noticed.
    pub(super) fn is_read_ahead_full(&self) -> bool {
        (self.body.is_ended() || self.is_body_broken) && self.read.bytes.len() >= MAX_AHEAD
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, ClientBodyError>> {
        if self.is_continue_due {
            self.is_continue_due = false;
            self.queue(Bytes::from_static(CONTINUE));
        }
        // The connection's task writes the rest.
        if self.poll_write(cx)?.is_ready() {
            let _ = self.poll_flush(cx)?;
        }
        loop {
            match self.body.next(&mut self.read.bytes, self.closed) {
                Ok(Step::NeedsRead) => {}
                Ok(step) => {
                    if self.body.is_ended()
                        && let Some(task) = self.task.take()
                        && !task.will_wake(cx.waker())
                    {
                        task.wake();
                    }
                    return Poll::Ready(Ok(step));
                }
                Err(bad) => {
                    self.is_body_broken = true;
                    return Poll::Ready(Err(bad.into()));
                }
            }
            match self.read.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(count)) => self.closed |= count == 0,
                Poll::Ready(Err(error)) => {
                    self.closed = true;
                    self.is_body_broken = true;
                    return Poll::Ready(Err(error.into()));
                }
                Poll::Pending => {
                    self.read.free_if_empty();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + std::fmt::Debug> BodyReader for RefCell<ConnectionIo<S>> {
    fn poll_body(&self, request: u64, cx: &mut Context<'_>) -> Poll<Result<Step, ClientBodyError>> {
        let mut io = self.borrow_mut();
        if io.request != request {
            return Poll::Ready(Err(ClientBodyError::Ended));
        }
        io.poll_body(cx)
    }

    fn expects_continue(&self, request: u64) -> bool {
        let io = self.borrow();
        io.request == request && io.is_continue_due
    }

    fn body_dropped(&self, request: u64) {
        // If the connection's task is dropping the body, it looks at the connection afterwards anyway.
        if let Ok(mut io) = self.try_borrow_mut()
            && io.request == request
        {
            io.task.take().into_iter().for_each(Waker::wake);
        }
    }

    fn send_interim(&self, request: u64, head: Bytes) {
        let mut io = self.borrow_mut();
        if io.request == request && io.accepts_interim {
            io.queue(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[test]
    fn head_that_arrives_byte_by_byte_is_searched_once() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut io = ConnectionIo::new(near, Bytes::new());
        let limits = HeadLimits { bytes: 1024, lines: 10 };
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (at, byte) in head.iter().enumerate() {
            far.write_all(&[*byte]).now_or_never().unwrap().unwrap();
            let read = std::future::poll_fn(|cx| io.poll_head(cx, limits)).now_or_never();
            assert_eq!(read.is_some(), at + 1 == head.len());
            assert_eq!(io.read.searched(), if read.is_some() { 0 } else { at + 1 });
        }
    }
}
