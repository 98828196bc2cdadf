//! Sockets that listen.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use socket2::{Domain, Protocol, Type};

use super::arrival::Entrance;
use super::transport;
use super::unix::{self, Footprint};
use crate::config::{ListenerAddress, ListenerConfig};

/// The system's queue of connections not yet accepted.
const BACKLOG: i32 = 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct BindError {
    /// Which.
    pub address: ListenerAddress,
    /// What the system says.
    pub error: io::Error,
}

/// A worker's socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listening: Listening,
    pub(super) entrance: Arc<Entrance>,
}

/// Either kind of socket.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The same on a worker's runtime.
#[derive(Debug)]
pub(super) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// The sockets of one address, one for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    /// Where, with the port that the system chose.
    pub(super) address: ListenerAddress,
    pub(super) sockets: Vec<Listening>,
    /// Of a unix socket.
    pub(super) footprint: Option<Footprint>,
}

impl Accepting {
    /// Must be called on the worker's runtime.
    pub(super) fn new(listening: Listening) -> io::Result<Self> {
        Ok(match listening {
            Listening::Tcp(listener) => Self::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listening::Unix(listener) => Self::Unix(tokio::net::UnixListener::from_std(listener)?),
        })
    }

    /// The next connection, and its address if it has one.
    pub(super) async fn accept(&self) -> io::Result<(transport::Socket, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // A connection that is gone already shows that when it is read.
                let _ = stream.set_nodelay(true);
                Ok((transport::Socket::Tcp(stream), Some(address.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((transport::Socket::Unix(stream), None))
            }
        }
    }
}

pub(super) fn bind(config: &ListenerConfig, workers: usize) -> Result<Bound, BindError> {
    let bound = match &config.address {
        ListenerAddress::Tcp(address) => bind_tcp(*address, workers),
        ListenerAddress::Unix { path, mode } => {
            unix::bind(path, *mode, BACKLOG).and_then(|(listener, footprint)| {
                // There is no SO_REUSEPORT for these; all workers accept on one queue.
                let shared = (1..workers).map(|_| listener.try_clone()).collect::<io::Result<Vec<_>>>()?;
                let sockets = std::iter::once(listener).chain(shared).map(Listening::Unix).collect();
                Ok(Bound { address: config.address.clone(), sockets, footprint: Some(footprint) })
            })
        }
    };
    bound.map_err(|error| BindError { address: config.address.clone(), error })
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    // SO_REUSEPORT would let a second gateway of the same user take half of the connections of a first one
    // unnoticed; an address that is taken shows only without it.
    drop(open(address, Share::No)?);
    let first = open(address, Share::Yes)?;
    let address = first.local_addr()?;
    let mut sockets = vec![Listening::Tcp(first)];
    for _ in 1..workers {
        sockets.push(Listening::Tcp(open(address, Share::Yes)?));
    }
    Ok(Bound { address: ListenerAddress::Tcp(address), sockets, footprint: None })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Yes,
    No,
}

fn open(address: SocketAddr, share: Share) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // So that a restart need not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share == Share::Yes)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
