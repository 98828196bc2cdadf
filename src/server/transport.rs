//! A client connection below TLS and HTTP: the socket, bytes that were read ahead, and the connection permit.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::connections::ConnectionPermit;

/// Bytes to read ahead at a time: more than a usual PROXY header. Of a TLS ClientHello, only the first byte is needed.
const READ_AHEAD: usize = 1024;

/// A client connection.
#[derive(Debug)]
pub(super) struct Transport {
    socket: ClientSocket,
    /// Bytes that were read ahead and not consumed yet; unallocated when empty.
    ahead: BytesMut,
    permit: ConnectionPermit,
}

/// A TCP or Unix socket.
#[derive(Debug)]
pub(super) enum ClientSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    pub(super) fn new(socket: ClientSocket, permit: ConnectionPermit) -> Self {
        Self { socket, ahead: BytesMut::new(), permit }
    }

    pub(super) fn permit(&mut self) -> &mut ConnectionPermit {
        &mut self.permit
    }

    /// Returns the bytes that were read ahead and not consumed yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Waits for more bytes and reads them ahead. Returns `false` at the end of the stream.
    pub(super) async fn read_ahead(&mut self) -> io::Result<bool> {
        self.ahead.reserve(READ_AHEAD);
        match &mut self.socket {
            ClientSocket::Tcp(socket) => socket.read_buf(&mut self.ahead).await,
            ClientSocket::Unix(socket) => socket.read_buf(&mut self.ahead).await,
        }
        .map(|count| count > 0)
    }

    /// Consumes `count` of the bytes that were read ahead.
    pub(super) fn consume(&mut self, count: usize) {
        self.ahead.advance(count.min(self.ahead.len()));
        self.free_empty_buffer();
    }

    /// Frees the buffer if it is empty: most connections are idle most of the time.
    fn free_empty_buffer(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
}

/// A connection that can be reset instead of closed.
pub(super) trait ResetOnClose {
    /// Makes the end of a cut-off response different from a regular end: closing the connection resets it.
    fn reset_on_close(&mut self);
}

impl ResetOnClose for Transport {
    fn reset_on_close(&mut self) {
        match &self.socket {
            ClientSocket::Tcp(socket) => {
                if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
                    tracing::debug!(%error, "a connection cannot be reset");
                }
            }
            // A Unix socket cannot be reset.
            ClientSocket::Unix(_) => {}
        }
    }
}

impl ResetOnClose for Box<TlsStream<Transport>> {
    /// Does nothing: without close_notify, the end is not a regular one (RFC 8446, 6.1).
    fn reset_on_close(&mut self) {}
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let taken = this.ahead.split_to(this.ahead.len().min(buffer.remaining()));
            buffer.put_slice(&taken);
            drop(taken);
            this.free_empty_buffer();
            return Poll::Ready(Ok(()));
        }
        match &mut this.socket {
            ClientSocket::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            ClientSocket::Unix(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            ClientSocket::Unix(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            ClientSocket::Unix(socket) => Pin::new(socket).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.socket {
            ClientSocket::Tcp(socket) => socket.is_write_vectored(),
            ClientSocket::Unix(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(socket) => Pin::new(socket).poll_flush(context),
            ClientSocket::Unix(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            ClientSocket::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            ClientSocket::Unix(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}
