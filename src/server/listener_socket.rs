//! The listening sockets of a listener, TCP or Unix.

use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use socket2::{Domain, Protocol, Type};

use super::transport::ClientSocket;

/// The size of the kernel's accept queue.
pub(super) const BACKLOG: i32 = 1024;
/// Limit of the connections in the accept queue: Linux queues one more than the backlog.
pub(super) const MAX_QUEUED: usize = BACKLOG as usize + 1;

/// A listening socket.
#[derive(Debug)]
pub(super) enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A listening socket that is registered with a worker's runtime.
#[derive(Debug)]
pub(super) enum AsyncListenerSocket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// An accepted connection, and the client's address; `None` for a Unix socket.
pub(super) type Accepted = (ClientSocket, Option<IpAddr>);

// === impl ListenerSocket ===

impl ListenerSocket {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// Accepts the connections that are in the kernel's queue, without waiting for more. `max` limits their number,
    /// since clients may keep connecting meanwhile.
    pub(super) fn accept_queued(&self, max: usize) -> impl Iterator<Item = io::Result<Accepted>> {
        let next = || match self.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        };
        iter::from_fn(next).take(max)
    }

    /// Accepts one connection. Fails with `WouldBlock` if none is queued.
    fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(tcp(tokio::net::TcpStream::from_std(stream)?, address))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok((ClientSocket::Unix(tokio::net::UnixStream::from_std(stream)?), None))
            }
        }
    }
}

impl From<ListenerSocket> for OwnedFd {
    fn from(socket: ListenerSocket) -> Self {
        match socket {
            ListenerSocket::Tcp(socket) => socket.into(),
            ListenerSocket::Unix(socket) => socket.into(),
        }
    }
}

// === impl AsyncListenerSocket ===

impl AsyncListenerSocket {
    /// Registers `socket` with the runtime of the calling worker.
    pub(super) fn new(socket: ListenerSocket) -> io::Result<Self> {
        Ok(match socket {
            ListenerSocket::Tcp(socket) => Self::Tcp(tokio::net::TcpListener::from_std(socket)?),
            ListenerSocket::Unix(socket) => Self::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => socket.accept().await.map(|(stream, address)| tcp(stream, address)),
            Self::Unix(socket) => socket.accept().await.map(|(stream, _)| (ClientSocket::Unix(stream), None)),
        }
    }

    /// Removes the socket from the runtime.
    pub(super) fn into_socket(self) -> io::Result<ListenerSocket> {
        Ok(match self {
            Self::Tcp(socket) => ListenerSocket::Tcp(socket.into_std()?),
            Self::Unix(socket) => ListenerSocket::Unix(socket.into_std()?),
        })
    }
}

fn tcp(stream: tokio::net::TcpStream, address: SocketAddr) -> Accepted {
    // If this fails because the client has disconnected, the first read reports it.
    let _ = stream.set_nodelay(true);
    (ClientSocket::Tcp(stream), Some(address.ip()))
}

/// Listens on `address` with one socket for each worker; SO_REUSEPORT spreads connections between them.
pub(super) fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<ListenerSocket>> {
    // With SO_REUSEPORT, a second gateway of the same user would silently take half of the first one's connections.
    // Only a bind without it fails if the address is in use.
    drop(open_tcp(address, ReusePort::No)?);
    let first = open_tcp(address, ReusePort::Yes)?;
    let address = first.local_addr()?;
    let mut sockets = vec![ListenerSocket::Tcp(first)];
    for _ in 1..workers {
        sockets.push(ListenerSocket::Tcp(open_tcp(address, ReusePort::Yes)?));
    }
    Ok(sockets)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReusePort {
    Yes,
    No,
}

fn open_tcp(address: SocketAddr, reuse_port: ReusePort) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Allows a restart while connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port == ReusePort::Yes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accept_queued_empties_the_queue_up_to_its_limit() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let socket = ListenerSocket::Tcp(listener);
        assert_eq!(socket.accept_queued(3).filter(Result::is_ok).count(), 3);
        assert_eq!(socket.accept_queued(3).filter(Result::is_ok).count(), 2);
        assert_eq!(socket.accept_queued(3).count(), 0);
    }
}
