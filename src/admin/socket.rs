//! The admin listener's socket, TCP or Unix: opened here, or inherited from the previous process. The file of a Unix
//! socket is removed when the listener stops, unless another process may use it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::AdminAddress;
use crate::unix_socket::{self, SocketFile};

/// The size of the kernel's accept queue.
const BACKLOG: i32 = 128;
/// The mode of a Unix socket's file: for the gateway's user and group only. Operators can change the file's group to let
/// others connect.
const MODE: u32 = 0o660;

/// The listening socket.
#[derive(Debug)]
pub(super) struct AdminSocket {
    listener: Listener,
    address: String,
    /// The file of a Unix socket, if this process has bound it or taken it over.
    file: OnceLock<SocketFile>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A connection.
#[derive(Debug)]
pub(super) enum AdminStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AdminSocket {
    /// Listens on `address`, with the inherited socket if there is one, or else with a new one.
    pub(super) fn open(address: &AdminAddress, inherited: Option<OwnedFd>) -> io::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => {
                let bind = || std::net::TcpListener::bind(address);
                let listener = inherited.map_or_else(bind, |inherited| Ok(inherited.into()))?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?.to_string();
                let listener = Listener::Tcp(TcpListener::from_std(listener)?);
                Ok(Self { listener, address, file: OnceLock::new() })
            }
            AdminAddress::Unix(path) => {
                let (listener, file) = match inherited {
                    Some(inherited) => (inherited.into(), OnceLock::new()),
                    None => {
                        let (listener, file) = unix_socket::bind(path, MODE, BACKLOG)?;
                        (listener, file.into())
                    }
                };
                listener.set_nonblocking(true)?;
                let listener = Listener::Unix(UnixListener::from_std(listener)?, path.clone());
                Ok(Self { listener, address: format!("unix:{}", path.display()), file })
            }
        }
    }

    /// Duplicates the socket, for another process.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Listener::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Leaves the socket file to another process.
    pub(super) fn hand_over(&self) {
        if let Some(file) = self.file.get() {
            file.keep();
        }
    }

    /// Returns the device and inode of the socket file, if this process removes it at the end.
    pub(super) fn owned_file(&self) -> Option<(u64, u64)> {
        self.file.get()?.owned()
    }

    /// Takes over the socket file, if it is one of `owned` by the process that this one replaces.
    pub(super) fn take_over(&self, owned: &[(u64, u64)]) -> io::Result<()> {
        let Listener::Unix(_, path) = &self.listener else { return Ok(()) };
        if self.file.get().is_some() {
            return Ok(());
        }
        if let Some(file) = SocketFile::take_over(path, owned)? {
            // Cannot be set already, since only this thread sets it.
            let _ = self.file.set(file);
        }
        Ok(())
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) async fn accept(&self) -> io::Result<AdminStream> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(AdminStream::Tcp(stream))
            }
            Listener::Unix(listener, _) => {
                listener.accept().await.map(|(stream, _)| AdminStream::Unix(stream))
            }
        }
    }
}
