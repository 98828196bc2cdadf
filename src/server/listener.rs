//! Sockets that listen.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use ipnet::IpNet;
use socket2::{Domain, Protocol, Type};

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

/// A worker's socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) listener: TcpListener,
    pub(super) trusted_proxies: Arc<[IpNet]>,
    pub(super) http2: bool,
}

/// The sockets of one address, one for each worker.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) sockets: Vec<Socket>,
}

pub(super) fn bind(config: &ListenerConfig, workers: usize) -> Result<Bound, BindError> {
    let trusted_proxies: Arc<[IpNet]> = config.trusted_proxies.clone().into();
    let bind = || -> io::Result<Bound> {
        // SO_REUSEPORT would let a second gateway of the same user take half of the connections of a first one
        // unnoticed; an address that is taken shows only without it.
        drop(open(config.address, Share::No)?);
        let first = open(config.address, Share::Yes)?;
        let address = first.local_addr()?;
        let mut listeners = vec![first];
        for _ in 1..workers {
            listeners.push(open(address, Share::Yes)?);
        }
        let socket = |listener| Socket {
            listener,
            trusted_proxies: Arc::clone(&trusted_proxies),
            http2: config.http2,
        };
        Ok(Bound { address, sockets: listeners.into_iter().map(socket).collect() })
    };
    bind().map_err(|error| BindError { address: config.address, error })
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
