//! A client's connection as bytes: a socket of either kind, what was read ahead of it, and its place among the others.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::connections::ConnectionPermit;

/// How much is read ahead at once: more than any PROXY header of today, and than most handshakes begin with.
const AHEAD: usize = 1024;

/// A connection.
#[derive(Debug)]
pub(super) struct Transport {
    socket: ClientSocket,
    /// Read, but not yet taken; without memory when there is none.
    ahead: BytesMut,
    place: ConnectionPermit,
}

/// Either kind of socket.
#[derive(Debug)]
pub(super) enum ClientSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    pub(super) fn new(socket: ClientSocket, place: ConnectionPermit) -> Self {
        Self { socket, ahead: BytesMut::new(), place }
    }

    /// Its place among the connections.
    pub(super) fn place(&mut self) -> &mut ConnectionPermit {
        &mut self.place
    }

    /// What was read ahead.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads further ahead, and waits for it; false: the client sends no more.
    pub(super) async fn read_ahead(&mut self) -> io::Result<bool> {
        self.ahead.reserve(AHEAD);
        match &mut self.socket {
            ClientSocket::Tcp(socket) => socket.read_buf(&mut self.ahead).await,
            ClientSocket::Unix(socket) => socket.read_buf(&mut self.ahead).await,
        }
        .map(|count| count > 0)
    }

    /// Takes `count` of the bytes that were read ahead.
    pub(super) fn take(&mut self, count: usize) {
        self.ahead.advance(count.min(self.ahead.len()));
        self.let_go();
    }

    /// Gives memory back that is not needed any more: most connections idle for most of their lives.
    fn let_go(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }
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
            this.let_go();
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
