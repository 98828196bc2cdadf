//! The admin listener's socket: an address and a port, or a file that goes with it; opened here, or passed on by the
//! process before this one.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::AdminAddress;

/// A socket that listens.
#[derive(Debug)]
pub(super) struct AdminSocket {
    listener: Listener,
    address: String,
    /// Whether its file is somebody else's to remove.
    left: AtomicBool,
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
    /// Listens on `address`: on the socket that was passed to this process for it, or else on a new one.
    pub(super) fn open(address: &AdminAddress, passed: Option<OwnedFd>) -> io::Result<Self> {
        let left = AtomicBool::new(passed.is_some());
        match address {
            AdminAddress::Tcp(address) => {
                let bind = || std::net::TcpListener::bind(address);
                let listener = passed.map_or_else(bind, |passed| Ok(passed.into()))?;
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?.to_string();
                Ok(Self { listener: Listener::Tcp(TcpListener::from_std(listener)?), address, left })
            }
            AdminAddress::Unix(path) => {
                let listener = passed.map_or_else(|| bind(path), |passed| Ok(passed.into()))?;
                listener.set_nonblocking(true)?;
                let listener = Listener::Unix(UnixListener::from_std(listener)?, path.clone());
                Ok(Self { listener, address: format!("unix:{}", path.display()), left })
            }
        }
    }

    /// The socket once more, to be passed to another process.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        match &self.listener {
            Listener::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Listener::Unix(listener, _) => listener.as_fd().try_clone_to_owned(),
        }
    }

    /// Leaves its file to another process.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
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
            && !self.left.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::debug!(path = %path.display(), %error, "the admin socket was gone already");
        }
    }
}

fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    remove_stale(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    // For the gateway's own user; whoever else is to connect is given the file's group or owner.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Removes a socket that a gateway which is gone has left behind; one that somebody listens on stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket && std::os::unix::net::UnixStream::connect(path).is_err() {
        fs::remove_file(path)?;
    }
    Ok(())
}
