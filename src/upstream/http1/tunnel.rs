//! A connection after a 101 response, as a byte stream that begins with the bytes that were read after the head.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Http1Connection;

impl<S: AsyncRead + Unpin, B> AsyncRead for Http1Connection<S, B> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.borrow_mut();
        let ahead = into.remaining().min(inner.read.bytes.len());
        if ahead == 0 {
            // Reads into the caller's buffer, since a tunnel is idle most of the time and then needs no buffer here.
            inner.read.free_if_empty();
            return Pin::new(&mut inner.stream).poll_read(cx, into);
        }
        into.put_slice(inner.read.bytes.get(..ahead).unwrap_or_default());
        inner.read.bytes.advance(ahead);
        inner.read.free_if_empty();
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
