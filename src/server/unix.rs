//! Unix sockets that listen.
//!
//! A socket that a gateway left behind is removed if nobody listens on it any more; one that somebody listens on, or a
//! file of any other kind, is not touched. At the end the socket goes, unless another has taken its place.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

/// A socket's place in the file system, until it is dropped.
#[derive(Debug)]
pub(super) struct Footprint {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Whether it stays when this is dropped.
    left: AtomicBool,
}

/// Listens at `path`, to which those may connect whom `mode` lets write.
pub(super) fn bind(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, Footprint)> {
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let metadata = fs::metadata(path)?;
    let footprint = Footprint {
        path: path.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
        left: AtomicBool::new(false),
    };
    // Before it listens, so that at no time anybody gets in who may not.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok((socket.into(), footprint))
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) => Err(error),
    }
}

impl Footprint {
    /// Leaves the socket to another process.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Changes who may connect.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        let is_ours = |metadata: fs::Metadata| metadata.dev() == self.device && metadata.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}
