//! Sockets that another process has opened for this one: systemd for a unit with a socket, or the gateway before this
//! one when it hands over. Both pass them as `LISTEN_FDS` says (sd_listen_fds(3)).
//!
//! A listener whose address one of them has uses it instead of opening its own. So no connection is refused while
//! processes change: the socket, and the queue of connections not yet accepted behind it, outlive both.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// The sockets that were passed to this process and no listener has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(SocketAddr, TcpListener)>,
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
            let Some(socket) = passed.take_tcp_listener(index)? else { continue };
            socket.set_nonblocking(true)?;
            sockets.push((socket.local_addr()?, socket));
        }
        Ok(Self { sockets })
    }

    /// The sockets that listen on `address`; for a port that the system chooses, those of the first one left.
    pub(super) fn take(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        let is_wanted = |bound: &SocketAddr| match address.port() {
            0 => bound.ip() == address.ip(),
            _ => *bound == address,
        };
        let Some(found) = self.sockets.iter().map(|(bound, _)| *bound).find(is_wanted) else { return vec![] };
        self.sockets.extract_if(.., |(bound, _)| *bound == found).map(|(_, socket)| socket).collect()
    }

    /// Closes what is left, and says so: an operator who has a socket passed expects it to be used.
    pub(super) fn finish(self) {
        let mut addresses: Vec<_> = self.sockets.iter().map(|(address, _)| *address).collect();
        addresses.dedup();
        for address in addresses {
            tracing::warn!(%address, "a socket that was passed to the gateway is closed: no listener has its address");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_gets_the_sockets_of_its_address() {
        let socket = || TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = [socket(), socket(), socket()].map(|socket| (socket.local_addr().unwrap(), socket));
        let addresses = sockets.each_ref().map(|(address, _)| *address);
        let mut inherited = Inherited { sockets: sockets.into() };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut take = |address| -> Vec<_> {
            let taken = inherited.take(address);
            taken.iter().map(|socket| socket.local_addr().unwrap()).collect()
        };

        assert_eq!(take(addresses[1]), [addresses[1]]);
        assert_eq!(take(addresses[1]), []);
        assert_eq!(take(SocketAddr::from(([0, 0, 0, 0], 0))), []);
        assert_eq!(take(any), [addresses[0]]);
        assert_eq!(take(any), [addresses[2]]);
        assert_eq!(take(any), []);
    }
}
