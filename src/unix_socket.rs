//! Listening Unix sockets and their files.
//!
//! A socket file on which no process listens is a leftover, and is replaced. A socket file on which a process listens
//! is an error, and so is a file of another kind. The file is removed at the end, unless another process has replaced
//! it or has taken over the socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a listening Unix socket. Dropping it removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Whether the file is kept when this is dropped.
    kept: AtomicBool,
}

/// Listens at `path`. `mode` is the mode of the socket file; clients need write permission to connect.
pub(crate) fn bind(path: &Path, mode: u32, backlog: i32) -> io::Result<(UnixListener, SocketFile)> {
    remove_leftover(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    // The mode is set before `listen`, so that nobody can connect with the permissions that the umask has left.
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.listen(backlog)?;
    Ok((socket.into(), file))
}

/// Removes a socket file on which no process listens.
fn remove_leftover(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Otherwise, the attempt would wait while the accept queue of the other process is full.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

impl SocketFile {
    /// Returns the file at `path`, on whose socket this process listens.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { path: path.to_owned(), device, inode, kept: AtomicBool::new(false) })
    }

    /// Returns the file at `path`, if it is one of `owned`, the devices and inodes of the files that the process which this
    /// one replaces would have removed. Any other file belongs to another process, such as systemd, and is kept.
    pub(crate) fn take_over(path: &Path, owned: &[(u64, u64)]) -> io::Result<Option<Self>> {
        let file = Self::at(path)?;
        if owned.contains(&(file.device, file.inode)) {
            return Ok(Some(file));
        }
        file.keep();
        Ok(None)
    }

    /// Returns the file's device and inode, unless the file is kept for another process.
    pub(crate) fn owned(&self) -> Option<(u64, u64)> {
        (!self.kept.load(Ordering::Relaxed)).then_some((self.device, self.inode))
    }

    /// Keeps the file for another process.
    pub(crate) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }

    /// Changes the mode of the file.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, Permissions::from_mode(mode))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        let is_ours = |metadata: fs::Metadata| metadata.dev() == self.device && metadata.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_of_a_process_whose_accept_queue_is_full_is_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (_listener, _file) = bind(&path, 0o600, 1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            if socket.connect(&SockAddr::unix(&path).unwrap()).is_err() {
                break;
            }
            waiting.push(socket);
        }
        assert_eq!(bind(&path, 0o600, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
