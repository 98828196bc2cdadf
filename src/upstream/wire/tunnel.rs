//! A wire after a 101: the bytes both ways, beginning with what was read beyond the head.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Http1Connection;

impl<S: AsyncRead + Unpin, B> AsyncRead for Http1Connection<S, B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        let ahead = into.remaining().min(inner.read.len());
        if ahead == 0 {
            // It is quiet for most of its time, and is read into the reader's own memory.
            inner.let_go();
            return Pin::new(&mut inner.stream).poll_read(cx, into);
        }
        into.put_slice(inner.read.get(..ahead).unwrap_or_default());
        inner.read.advance(ahead);
        inner.let_go();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, B> AsyncWrite for Http1Connection<S, B> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner.borrow_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.borrow_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner.borrow_mut().stream).poll_shutdown(cx)
    }
}
