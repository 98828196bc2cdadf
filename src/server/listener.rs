//! Addresses that are listened on.
//!
//! A [`Listener`] is an address together with what the configuration says of it, and never changes. When a reload says
//! something else of the address, another listener takes its sockets over; the workers tell the two apart by identity.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Type};

use super::inherited::Inherited;
use crate::config::ListenerConfig;

/// The system's queue of connections not yet accepted.
const BACKLOG: i32 = 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}")]
pub struct BindError {
    /// Which.
    pub address: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

/// One of the addresses, as one configuration has it.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) config: ListenerConfig,
    pub(super) address: SocketAddr,
    pub(super) trusted_proxies: Arc<[IpNet]>,
    /// At least one. Each worker accepts on its own, or on its share of them.
    sockets: Arc<[TcpListener]>,
}

impl Listener {
    /// Listens as `config` says: on sockets that were passed to this process, or else on new ones.
    pub(super) fn open(
        config: &ListenerConfig,
        workers: usize,
        inherited: &mut Inherited,
    ) -> Result<Arc<Self>, BindError> {
        let mut open = || -> io::Result<Arc<Self>> {
            let passed = inherited.take(config.address);
            let sockets = if passed.is_empty() { bind(config.address, workers)? } else { passed };
            let address = sockets.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()?;
            Ok(Self::over(config, address, sockets.into()))
        };
        open().map_err(|error| BindError { address: config.address, error })
    }

    /// The same address, as another configuration has it.
    pub(super) fn reconfigured(&self, config: &ListenerConfig) -> Arc<Self> {
        Self::over(config, self.address, Arc::clone(&self.sockets))
    }

    fn over(config: &ListenerConfig, address: SocketAddr, sockets: Arc<[TcpListener]>) -> Arc<Self> {
        let trusted_proxies = config.trusted_proxies.clone().into();
        Arc::new(Self { config: config.clone(), address, trusted_proxies, sockets })
    }

    /// The sockets on which worker `number` of `workers` accepts. With fewer sockets than workers some share one, with
    /// more some have several: each that somebody may connect to is served.
    pub(super) fn of_worker(&self, number: usize, workers: usize) -> io::Result<Vec<TcpListener>> {
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
}

/// A socket for each worker, between which the system spreads connections.
fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would let a second gateway of the same user take half of the connections of a first one
    // unnoticed; an address that is taken shows only without it.
    drop(open(address, Share::No)?);
    let first = open(address, Share::Yes)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(open(address, Share::Yes)?);
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
    use super::*;

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        let config =
            ListenerConfig { address: "127.0.0.1:0".parse().unwrap(), trusted_proxies: vec![], http2: true };
        for sockets in 1..=5 {
            let listener = Listener::open(&config, sockets, &mut Inherited::none()).unwrap();
            for workers in 1..=5 {
                let shares: Vec<_> =
                    (0..workers).map(|number| listener.of_worker(number, workers).unwrap().len()).collect();
                assert!(shares.iter().all(|share| *share > 0), "{sockets} {workers}: {shares:?}");
                assert_eq!(shares.iter().sum::<usize>(), sockets.max(workers), "{shares:?}");
            }
        }
    }
}
