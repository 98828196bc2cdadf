//! Sockets that another process has opened for this one: systemd for a unit with a socket, or the gateway before this
//! one when it hands over. Both pass them as `LISTEN_FDS` says (sd_listen_fds(3)).
//!
//! A listener whose address one of them has uses it instead of opening its own. So no connection is refused while
//! processes change: the socket, and the queue of connections not yet accepted behind it, outlive both.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use listenfd::ListenFd;

use super::listener_socket::ListenerSocket;
use crate::config::{AdminAddress, ListenerAddress};

/// The sockets that were passed to this process and no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(ListenerAddress, ListenerSocket)>,
}

impl Inherited {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes what the environment speaks of, once. To be called before there is a second thread: what the variables
    /// say is for this process alone, and they are removed.
    ///
    /// # Errors
    /// If one of the descriptors is not a socket that listens, or is of a kind that no listener can be.
    pub fn from_environment() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            // What is not of the one kind stays, and may be of the other.
            if let Ok(Some(socket)) = passed.take_unix_listener(index) {
                socket.set_nonblocking(true)?;
                let path = socket.local_addr()?.as_pathname().map(Path::to_owned);
                let path = path.ok_or_else(|| io::Error::other("a unix socket without a path"))?;
                sockets.push((ListenerAddress::Unix(path), ListenerSocket::Unix(socket)));
            } else if let Some(socket) = passed.take_tcp_listener(index)? {
                socket.set_nonblocking(true)?;
                sockets.push((ListenerAddress::Tcp(socket.local_addr()?), ListenerSocket::Tcp(socket)));
            }
        }
        Ok(Self { sockets })
    }

    /// The sockets that listen on `address`; for a port that the system chooses, those of the first one left.
    pub(super) fn take(&mut self, address: &ListenerAddress) -> Vec<ListenerSocket> {
        let is_wanted = |bound: &ListenerAddress| match (address, bound) {
            (ListenerAddress::Tcp(address), ListenerAddress::Tcp(bound)) if address.port() == 0 => {
                bound.ip() == address.ip()
            }
            (address, bound) => address == bound,
        };
        let found = self.sockets.iter().map(|(bound, _)| bound).find(|bound| is_wanted(bound)).cloned();
        let Some(found) = found else { return vec![] };
        self.sockets.extract_if(.., |(bound, _)| *bound == found).map(|(_, socket)| socket).collect()
    }

    /// The socket of the admin listener at `address`.
    pub(super) fn take_admin(&mut self, address: &AdminAddress) -> Option<OwnedFd> {
        let address = match address {
            AdminAddress::Tcp(address) => ListenerAddress::Tcp(*address),
            AdminAddress::Unix(path) => ListenerAddress::Unix(path.clone()),
        };
        self.take(&address).into_iter().next().map(OwnedFd::from)
    }

    /// Closes what is left, and says so: an operator who has a socket passed expects it to be used.
    pub(super) fn finish(self) {
        let mut addresses: Vec<_> = self.sockets.iter().map(|(address, _)| address).collect();
        addresses.dedup();
        for address in addresses {
            tracing::warn!(%address, "a socket that was passed to the gateway is closed: no listener has its address");
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
                ListenerSocket::Unix(_) => panic!("of no kind that was passed"),
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
