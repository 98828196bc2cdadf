//! The addresses that the gateway listens on.
//!
//! A [`Listener`] is one address with its configuration and its sockets, and never changes. When a reload changes the
//! configuration of an address, a new `Listener` gets the sockets of the old one. Workers compare listeners by
//! pointer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use super::accepted_connection::ListenerContext;
use super::connections::Connections;
use super::inherited::Inherited;
use super::listener_socket::{self, BACKLOG, ListenerSocket};
use super::tls::TlsError;
use crate::config::{ListenerAddress, ListenerConfig};
use crate::unix_socket::{self, SocketFile};

/// Error of a listener that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operating system does not allow listening on the address.
    #[error("cannot listen on {address}: {error}")]
    Bind {
        /// The address.
        address: ListenerAddress,
        /// The operating system's error.
        error: io::Error,
    },
    /// The certificates cannot be used, because the files have changed since the configuration was read.
    #[error("cannot listen on {address}: {error}")]
    Tls {
        /// The address.
        address: ListenerAddress,
        /// The error in the certificates.
        error: TlsError,
    },
}

/// An address with its configuration and its sockets.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) config: ListenerConfig,
    /// The address, with the port that the operating system chose for port 0.
    pub(super) address: ListenerAddress,
    pub(super) context: Arc<ListenerContext>,
    /// The sockets, at least one; see [`Self::sockets_for_worker`].
    sockets: Arc<[ListenerSocket]>,
    /// The file of the Unix socket, if this process has bound it or taken it over.
    file: OnceLock<Arc<SocketFile>>,
}

impl Listener {
    /// Opens the listener of `config`, on inherited sockets or else on new ones.
    pub(super) fn open(
        config: &ListenerConfig,
        workers: usize,
        inherited: &mut Inherited,
        connections: &Arc<Connections>,
    ) -> Result<Arc<Self>, ListenError> {
        let context = context(config, connections)?;
        let mut bind = || -> io::Result<(Vec<ListenerSocket>, Option<SocketFile>)> {
            let sockets = inherited.take(&config.address);
            if !sockets.is_empty() {
                return Ok((sockets, None));
            }
            match &config.address {
                ListenerAddress::Tcp(address) => Ok((listener_socket::bind_tcp(*address, workers)?, None)),
                // Unix sockets have no SO_REUSEPORT; all workers accept from one queue.
                ListenerAddress::Unix(path) => {
                    let (socket, file) = unix_socket::bind(path, config.mode, BACKLOG)?;
                    Ok((vec![ListenerSocket::Unix(socket)], Some(file)))
                }
            }
        };
        let failed = |error| ListenError::Bind { address: config.address.clone(), error };
        let (sockets, file) = bind().map_err(failed)?;
        let address = match (&config.address, sockets.first()) {
            (ListenerAddress::Tcp(_), Some(ListenerSocket::Tcp(socket))) => {
                ListenerAddress::Tcp(socket.local_addr().map_err(failed)?)
            }
            (address, _) => address.clone(),
        };
        let file = file.map_or_else(OnceLock::new, |file| Arc::new(file).into());
        Ok(Arc::new(Self { config: config.clone(), address, context, sockets: sockets.into(), file }))
    }

    /// Returns a listener with a new configuration and the same sockets.
    pub(super) fn reconfigured(
        &self,
        config: &ListenerConfig,
        connections: &Arc<Connections>,
    ) -> Result<Arc<Self>, ListenError> {
        let context = context(config, connections)?;
        if let Some(file) = self.file.get().filter(|_| config.mode != self.config.mode) {
            let failed = |error| ListenError::Bind { address: config.address.clone(), error };
            file.set_mode(config.mode).map_err(failed)?;
        }
        let (sockets, file) = (Arc::clone(&self.sockets), self.file.clone());
        let address = self.address.clone();
        Ok(Arc::new(Self { config: config.clone(), address, context, sockets, file }))
    }

    /// Returns the kind of listener, for the log.
    pub(super) fn kind(&self) -> &'static str {
        match (&self.address, &self.config.tls) {
            (ListenerAddress::Unix(_), _) => "unix",
            (ListenerAddress::Tcp(_), Some(_)) => "https",
            (ListenerAddress::Tcp(_), None) => "http",
        }
    }

    /// Returns the sockets on which worker `number` of `workers` accepts. Workers share sockets if there are fewer sockets
    /// than workers, and have several if there are more. Every socket is served.
    pub(super) fn sockets_for_worker(
        &self,
        number: usize,
        workers: usize,
    ) -> io::Result<Vec<ListenerSocket>> {
        let count = self.sockets.len().max(1);
        let own = self.sockets.iter().enumerate().filter(|(index, _)| {
            if count < workers { *index == number % count } else { index % workers == number }
        });
        own.map(|(_, socket)| socket.try_clone()).collect()
    }

    /// Duplicates the sockets, for another process.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.sockets.iter().map(|socket| socket.try_clone().map(OwnedFd::from)).collect()
    }

    /// Leaves the file of the Unix socket to the process that has taken over.
    pub(super) fn hand_over(&self) {
        if let Some(file) = self.file.get() {
            file.keep();
        }
    }

    /// Returns the device and inode of the Unix socket's file, if this process removes it at the end.
    pub(super) fn owned_file(&self) -> Option<(u64, u64)> {
        self.file.get()?.owned()
    }

    /// Takes over the file of the Unix socket, if it is one of `owned` by the process that this one replaces: sets its mode,
    /// and removes it at the end.
    pub(super) fn take_over(&self, owned: &[(u64, u64)]) -> io::Result<()> {
        let ListenerAddress::Unix(path) = &self.address else { return Ok(()) };
        if self.file.get().is_some() {
            return Ok(());
        }
        let Some(file) = SocketFile::take_over(path, owned)? else { return Ok(()) };
        let file = Arc::new(file);
        // Cannot be set already, since only this thread sets it.
        let _ = self.file.set(Arc::clone(&file));
        file.set_mode(self.config.mode)
    }
}

fn context(
    config: &ListenerConfig,
    connections: &Arc<Connections>,
) -> Result<Arc<ListenerContext>, ListenError> {
    let context = ListenerContext::new(config, connections);
    context.map(Arc::new).map_err(|error| ListenError::Tls { address: config.address.clone(), error })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::environment::System;

    #[test]
    fn every_worker_has_a_socket_and_every_socket_a_worker() {
        let text = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n[upstreams.app]\n\
                    servers = [\"http://127.0.0.1:2\"]\n[[routes]]\npath = \"/\"\naccess = \"public\"\nupstream = \"app\"\n";
        let (config, report) = crate::config::parse(text, Path::new(""), &System);
        let config = config.unwrap_or_else(|| panic!("{report}"));
        let connections = Arc::new(Connections::new(&config.server.limits, 1, 1));
        let config = &config.listeners[0];
        for sockets in 1..=5 {
            let listener = Listener::open(config, sockets, &mut Inherited::none(), &connections).unwrap();
            for workers in 1..=5 {
                let shares: Vec<_> = (0..workers)
                    .map(|number| listener.sockets_for_worker(number, workers).unwrap().len())
                    .collect();
                assert!(shares.iter().all(|share| *share > 0), "{sockets} {workers}: {shares:?}");
                assert_eq!(shares.iter().sum::<usize>(), sockets.max(workers), "{shares:?}");
            }
        }
    }
}
