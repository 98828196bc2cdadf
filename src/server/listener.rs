//! Addresses that are listened on.
//!
//! A [`Listener`] is an address together with what the configuration says of it, and never changes. When a reload says
//! something else of the address, another listener takes its sockets over; the workers tell the two apart by identity.

use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use socket2::{Domain, Protocol, Type};

use super::arrival::ListenerContext;
use super::connections::Connections;
use super::inherited::Inherited;
use super::tls::TlsError;
use super::transport;
use super::unix::{self, Footprint};
use crate::config::{ListenerAddress, ListenerConfig};

/// The system's queue of connections not yet accepted.
const BACKLOG: i32 = 1024;
/// How many it holds at most.
pub(super) const QUEUED: usize = BACKLOG as usize + 1;

/// A listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system does not give its address.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// Which.
        address: ListenerAddress,
        /// What the system says.
        error: io::Error,
    },
    /// Its certificates cannot be used: their files have changed since the configuration was read.
    #[error("cannot listen on {address}: {error}")]
    Tls {
        /// Which.
        address: ListenerAddress,
        /// What is wrong with them.
        error: TlsError,
    },
}

/// One of the addresses, as one configuration has it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) config: ListenerConfig,
    /// Where, with the port that the system chose.
    pub(super) address: ListenerAddress,
    pub(super) entrance: Arc<ListenerContext>,
    /// At least one. Each worker accepts on its own, or on its share of them.
    sockets: Arc<[ListenerSocket]>,
    /// What is in the file system of a socket that was made here.
    footprint: Option<Arc<Footprint>>,
}

/// A socket that listens.
#[derive(Debug)]
pub(super) enum ListenerSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The same on a worker's runtime.
#[derive(Debug)]
pub(super) enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

/// A client's connection, and its address if it has one.
pub(super) type Accepted = (transport::ClientSocket, Option<IpAddr>);

// === impl Listener ===

impl Listener {
    /// Listens as `config` says: on sockets that were passed to this process, or else on new ones.
    pub(super) fn open(
        config: &ListenerConfig,
        workers: usize,
        inherited: &mut Inherited,
        connections: &Arc<Connections>,
    ) -> Result<Arc<Self>, ListenError> {
        let entrance = entrance(config, connections)?;
        let mut bind = || -> io::Result<(Vec<ListenerSocket>, Option<Footprint>)> {
            let passed = inherited.take(&config.address);
            if !passed.is_empty() {
                return Ok((passed, None));
            }
            match &config.address {
                ListenerAddress::Tcp(address) => Ok((bind(*address, workers)?, None)),
                // There is no SO_REUSEPORT for these; all workers accept on one queue.
                ListenerAddress::Unix(path) => {
                    let (socket, footprint) = unix::bind(path, config.mode, BACKLOG)?;
                    Ok((vec![ListenerSocket::Unix(socket)], Some(footprint)))
                }
            }
        };
        let failed = |error| ListenError::Bind { address: config.address.clone(), error };
        let (sockets, footprint) = bind().map_err(failed)?;
        let address = match (&config.address, sockets.first()) {
            (ListenerAddress::Tcp(_), Some(ListenerSocket::Tcp(socket))) => {
                ListenerAddress::Tcp(socket.local_addr().map_err(failed)?)
            }
            (address, _) => address.clone(),
        };
        let footprint = footprint.map(Arc::new);
        Ok(Arc::new(Self { config: config.clone(), address, entrance, sockets: sockets.into(), footprint }))
    }

    /// The same address, as another configuration has it.
    pub(super) fn reconfigured(
        &self,
        config: &ListenerConfig,
        connections: &Arc<Connections>,
    ) -> Result<Arc<Self>, ListenError> {
        let entrance = entrance(config, connections)?;
        if let Some(footprint) = self.footprint.as_ref().filter(|_| config.mode != self.config.mode) {
            let failed = |error| ListenError::Bind { address: config.address.clone(), error };
            footprint.set_mode(config.mode).map_err(failed)?;
        }
        let (sockets, footprint) = (Arc::clone(&self.sockets), self.footprint.clone());
        let address = self.address.clone();
        Ok(Arc::new(Self { config: config.clone(), address, entrance, sockets, footprint }))
    }

    /// What is spoken here, for the log.
    pub(super) fn kind(&self) -> &'static str {
        match (&self.address, &self.config.tls) {
            (ListenerAddress::Unix(_), _) => "unix",
            (ListenerAddress::Tcp(_), Some(_)) => "https",
            (ListenerAddress::Tcp(_), None) => "http",
        }
    }

    /// The sockets on which worker `number` of `workers` accepts. With fewer sockets than workers some share one, with
    /// more some have several: each that somebody may connect to is served.
    pub(super) fn of_worker(&self, number: usize, workers: usize) -> io::Result<Vec<ListenerSocket>> {
        let count = self.sockets.len().max(1);
        let own = self.sockets.iter().enumerate().filter(|(index, _)| {
            if count < workers { *index == number % count } else { index % workers == number }
        });
        own.map(|(_, socket)| socket.try_clone()).collect()
    }

    /// All of its sockets once more, to be passed to another process.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(|socket| socket.try_clone().map(OwnedFd::from)).collect()
    }

    /// Another process has its sockets now, and what is in the file system of them.
    pub(super) fn leave(&self) {
        if let Some(footprint) = &self.footprint {
            footprint.leave();
        }
    }
}

fn entrance(
    config: &ListenerConfig,
    connections: &Arc<Connections>,
) -> Result<Arc<ListenerContext>, ListenError> {
    let entrance = ListenerContext::new(config, connections);
    entrance.map(Arc::new).map_err(|error| ListenError::Tls { address: config.address.clone(), error })
}

// === impl ListenerSocket ===

impl ListenerSocket {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => Self::Tcp(socket.try_clone()?),
            Self::Unix(socket) => Self::Unix(socket.try_clone()?),
        })
    }

    /// The connections that are in the system's queue already, at most so many: others may come for as long as somebody
    /// looks.
    pub(super) fn queued(&self, most: usize) -> impl Iterator<Item = io::Result<Accepted>> {
        let next = || match self.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            accepted => Some(accepted),
        };
        iter::from_fn(next).take(most)
    }

    /// The next connection of the system's queue; an error if nobody waits there.
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
                Ok((transport::ClientSocket::Unix(tokio::net::UnixStream::from_std(stream)?), None))
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

// === impl Accepting ===

impl Accepting {
    /// Must be called on the worker's runtime.
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
            Self::Unix(socket) => {
                socket.accept().await.map(|(stream, _)| (transport::ClientSocket::Unix(stream), None))
            }
        }
    }

    /// The socket again.
    pub(super) fn into_socket(self) -> io::Result<ListenerSocket> {
        Ok(match self {
            Self::Tcp(socket) => ListenerSocket::Tcp(socket.into_std()?),
            Self::Unix(socket) => ListenerSocket::Unix(socket.into_std()?),
        })
    }
}

fn tcp(stream: tokio::net::TcpStream, address: SocketAddr) -> Accepted {
    // A connection that is gone already shows that when it is read.
    let _ = stream.set_nodelay(true);
    (transport::ClientSocket::Tcp(stream), Some(address.ip()))
}

/// A socket for each worker, between which the system spreads connections.
fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<ListenerSocket>> {
    // SO_REUSEPORT would let a second gateway of the same user take half of the connections of a first one
    // unnoticed; an address that is taken shows only without it.
    drop(open(address, Share::No)?);
    let first = open(address, Share::Yes)?;
    let address = first.local_addr()?;
    let mut sockets = vec![ListenerSocket::Tcp(first)];
    for _ in 1..workers {
        sockets.push(ListenerSocket::Tcp(open(address, Share::Yes)?));
    }
    Ok(sockets)
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::environment::System;

    #[tokio::test]
    async fn the_queue_is_emptied_and_no_more_than_that() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let socket = ListenerSocket::Tcp(listener);
        assert_eq!(socket.queued(3).filter(Result::is_ok).count(), 3);
        assert_eq!(socket.queued(3).filter(Result::is_ok).count(), 2);
        assert_eq!(socket.queued(3).count(), 0);
    }

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        let text = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n[upstreams.app]\n\
                    servers = [\"http://127.0.0.1:2\"]\n[[routes]]\npath = \"/\"\naccess = \"public\"\nupstream = \"app\"\n";
        let (config, report) = crate::config::parse(text, Path::new(""), &System);
        let config = config.unwrap_or_else(|| panic!("{report}"));
        let connections = Arc::new(Connections::new(&config.server.limits, 1, 1));
        let config = &config.listeners[0];
        for sockets in 1..=5 {
            let listener = Listener::open(config, sockets, &mut Inherited::none(), &connections).unwrap();
            for workers in 1..=5 {
                let shares: Vec<_> =
                    (0..workers).map(|number| listener.of_worker(number, workers).unwrap().len()).collect();
                assert!(shares.iter().all(|share| *share > 0), "{sockets} {workers}: {shares:?}");
                assert_eq!(shares.iter().sum::<usize>(), sockets.max(workers), "{shares:?}");
            }
        }
    }
}
