//! Addresses that are listened on.
//!
//! A [`Listener`] is an address together with what the configuration says of it, and never changes. When a reload says
//! something else of the address, another listener takes its sockets over; the workers tell the two apart by identity.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::arrival::ListenerContext;
use super::connections::Connections;
use super::inherited::Inherited;
use super::listener_socket::{self, BACKLOG, ListenerSocket};
use super::tls::TlsError;
use super::unix::{self, Footprint};
use crate::config::{ListenerAddress, ListenerConfig};

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
                ListenerAddress::Tcp(address) => Ok((listener_socket::bind_tcp(*address, workers)?, None)),
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::environment::System;

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
