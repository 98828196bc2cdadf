//! The stream of an HTTP/2 connection or of a tunnel. It first returns bytes that were read ahead, and records blocked
//! writes.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;

/// A stream whose writes are recorded.
#[derive(Debug)]
pub(super) struct TrackedIo<S> {
    stream: S,
    /// Bytes that were read ahead, and are returned first.
    ahead: Bytes,
    activity: Rc<Activity>,
}

impl<S> TrackedIo<S> {
    pub(super) fn new(stream: S, ahead: Bytes, activity: Rc<Activity>) -> Self {
        Self { stream, ahead, activity }
    }
}

impl<S: AsyncWrite + Unpin> TrackedIo<S> {
    fn write<T>(&mut self, write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream));
        self.activity.record_write(written.is_pending());
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead.split_to(count));
            if !this.ahead.has_remaining() && buffer.remaining() > 0 {
                // Also returns bytes that have arrived since, so that the parser sees more than a part of a frame. The
                // next read reports the end of the stream or an error again.
                let _ = Pin::new(&mut this.stream).poll_read(cx, buffer);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(|stream| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write(|stream| stream.poll_shutdown(cx))
    }
}
