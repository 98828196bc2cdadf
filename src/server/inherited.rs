//! Listening sockets inherited from another process: systemd (socket activation), or the gateway process that this one
//! replaces. Both pass them by `LISTEN_FDS` (sd_listen_fds(3)).
//!
//! A listener uses the inherited sockets of its address instead of opening new ones. So no connection is refused while
//! one process replaces another: the sockets and their accept queues stay open.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;

use super::listener_socket::ListenerSocket;
use crate::config::{AdminAddress, ListenerAddress};

/// The inherited sockets that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(ListenerAddress, ListenerSocket)>,
}

impl Inherited {
    /// Returns an empty set.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes the sockets that the environment variables name, and removes the variables, so that child processes do not
    /// use them. Must be called before a second thread is started.
    ///
    /// # Errors
    /// Returns an error if a descriptor is not a TCP or Unix stream socket, or is a Unix socket without a path.
    pub fn from_environment() -> io::Result<Self> {
        let mut descriptors = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..descriptors.len() {
            // A descriptor of another kind is left in place; it may be a TCP socket.
            if let Ok(Some(socket)) = descriptors.take_unix_listener(index) {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
                let path = path.ok_or_else(|| io::Error::other("an inherited Unix socket has no path"))?;
                sockets.push((ListenerAddress::Unix(path), ListenerSocket::Unix(socket)));
            } else if let Some(socket) = descriptors.take_tcp_listener(index)? {
                socket.set_nonblocking(true)?;
                sockets.push((ListenerAddress::Tcp(socket.local_addr()?), ListenerSocket::Tcp(socket)));
            }
        }
        Ok(Self { sockets })
    }

    /// Takes the sockets that listen on `address`. For port 0, takes those of the first remaining port of the host.
    pub(super) fn take(&mut self, address: &ListenerAddress) -> Vec<ListenerSocket> {
        let matches = |bound: &ListenerAddress| match (address, bound) {
            (ListenerAddress::Tcp(address), ListenerAddress::Tcp(bound)) if address.port() == 0 => {
                bound.ip() == address.ip()
            }
            (address, bound) => address == bound,
        };
        let found = self.sockets.iter().map(|(bound, _)| bound).find(|bound| matches(bound)).cloned();
        let Some(found) = found else { return vec![] };
        self.sockets.extract_if(.., |(bound, _)| *bound == found).map(|(_, socket)| socket).collect()
    }

    /// Takes the socket that listens on the admin listener's `address`.
    pub(super) fn take_admin(&mut self, address: &AdminAddress) -> Option<OwnedFd> {
        let address = match address {
            AdminAddress::Tcp(address) => ListenerAddress::Tcp(*address),
            AdminAddress::Unix(path) => ListenerAddress::Unix(path.clone()),
        };
        self.take(&address).into_iter().next().map(OwnedFd::from)
    }

    /// Closes the remaining sockets with a warning, since an operator who passes a socket expects it to be used.
    pub(super) fn close_unused(self) {
        let mut addresses: Vec<_> = self.sockets.iter().map(|(address, _)| address).collect();
        addresses.dedup();
        for address in addresses {
            tracing::warn!(%address, "an inherited socket was closed: no listener has its address");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;

    #[test]
    fn a_listener_gets_the_sockets_of_its_address() {
        let sockets = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
        let sockets = sockets.map(|socket| (socket.local_addr().unwrap(), socket));
        let sockets =
            sockets.map(|(address, socket)| (ListenerAddress::Tcp(address), ListenerSocket::Tcp(socket)));
        let mut inherited = Inherited { sockets: sockets.into() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut take = |address| -> Vec<_> {
            let taken = inherited.take(&ListenerAddress::Tcp(address));
            let address = |socket: &ListenerSocket| match socket {
                ListenerSocket::Tcp(socket) => socket.local_addr().unwrap(),
                ListenerSocket::Unix(_) => panic!("no Unix socket was passed"),
            };
            taken.iter().map(address).collect()
        };

        assert_eq!(take(addresses[1]), [addresses[1]]);
        assert_eq!(take(addresses[1]), []);
        assert_eq!(take(SocketAddr::from(([0, 0, 0, 0], 0))), []);
        assert_eq!(take(any), [addresses[0]]);
        assert_eq!(take(any), [addresses[2]]);
        assert_eq!(take(any), []);
    }
}
