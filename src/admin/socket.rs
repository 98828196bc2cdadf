//! The admin listener's socket, TCP or Unix: opened here, or inherited from the previous process. The file of a Unix
//! socket is removed when the listener stops, unless another process may use it.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::AdminAddress;

/// The listening socket.
#[derive(Debug)]
pub(super) struct AdminSocket {
    listener: Listener,
    address: String,
    /// Whether another process may use the socket file, so that it is not removed on drop.
    keeps_file: AtomicBool,
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
        let keeps_file = AtomicBool::new(inherited.is_some());
        match address {
            AdminAddress::Tcp(address) => {
                let bind = || std::net::TcpListener::bind(address);
                let listener = inherited.map_or_else(bind, |inherited| Ok(inherited.into()))?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?.to_string();
                Ok(Self { listener: Listener::Tcp(TcpListener::from_std(listener)?), address, keeps_file })
            }
            AdminAddress::Unix(path) => {
                let listener = inherited.map_or_else(|| bind(path), |inherited| Ok(inherited.into()))?;
                listener.set_nonblocking(true)?;
                let listener = Listener::Unix(UnixListener::from_std(listener)?, path.clone());
                Ok(Self { listener, address: format!("unix:{}", path.display()), keeps_file })
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
        self.keeps_file.store(true, Ordering::Relaxed);
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

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = &self.listener
            && !self.keeps_file.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "the admin socket file could not be removed");
        }
    }
}

fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    remove_stale(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    // For the gateway's user and group only. Operators can change the file's group to let others connect.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Removes a socket file on which no process listens, left by a gateway that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    Ok(())
}
