//! Starts the next gateway process, which takes over: a binary upgrade without refused connections.
//!
//! The next process runs the program that is on disk now, with the same arguments, and reads the configuration file again,
//! so it also applies settings that need a restart. It inherits the sockets that this process listens on.
//!
//! 1. Both processes hold the same sockets with their accept queues, so no connection is lost meanwhile.
//! 2. This process serves until the next one reports that it serves. If it does not, it is killed, and nothing changes.
//! 3. The processes communicate over the next one's standard input, a socket that closes when either of them ends.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

use crate::config::{Config, StoreConfig};
use crate::server::Server;

/// Environment variable that tells a process that it is a successor.
const VARIABLE: &str = "SESSIONGATE_SUCCESSOR";
/// Message with which the successor reports that it serves. This process acknowledges it with the same message.
const READY: u8 = b'R';
/// Timeout for the successor to start. It includes the checks of the tables, which have timeouts of their own.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for the successor to end when it is killed, and for messages between the processes.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The first descriptor that is passed on, by the convention of sd_listen_fds(3).
const FIRST_DESCRIPTOR: i32 = 3;

/// A process that is about to take over.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    pid: u32,
    socket: tokio::net::UnixStream,
}

/// Error of a handover.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    /// The store cannot be handed over.
    #[error("the store is inside this process{0}")]
    Store(&'static str),
    /// The process could not be started, or communication with it failed.
    #[error("the next process cannot be started: {0}")]
    Start(#[from] io::Error),
    /// The process ended before it served.
    #[error("the next process ended: {0}")]
    Ended(ExitStatus),
    /// The process did not serve in time.
    #[error("the next process did not serve within {START_TIMEOUT:?}")]
    Timeout,
}

impl Successor {
    /// Starts the next process. The caller must then call [`Self::take_over`] or [`Self::kill`].
    pub(super) fn start(server: &Server) -> Result<Self, HandoverError> {
        check_store(server.config())?;
        let (socket, child_socket) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(socket)?;
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(child_socket)));
        let descriptors = server.descriptors()?;
        let files: Vec<_> = server.owned_files().into_iter().map(format_file).collect();
        command.env(VARIABLE, files.join(",")).env("LISTEN_FDS", descriptors.len().to_string());
        // These variables apply to this process only.
        for variable in ["LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD", "WATCHDOG_PID"] {
            command.env_remove(variable);
        }
        let mappings = descriptors.into_iter().zip(FIRST_DESCRIPTOR..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        let child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        tracing::info!(pid, "starting the next process");
        Ok(Self { child, pid, socket })
    }

    /// Waits until the successor serves.
    pub(super) async fn wait_until_ready(&mut self) -> Result<(), HandoverError> {
        let mut message = [0];
        match tokio::time::timeout(START_TIMEOUT, self.socket.read(&mut message)).await {
            Ok(Ok(1)) if message == [READY] => Ok(()),
            Ok(_) => match tokio::time::timeout(EXCHANGE_TIMEOUT, self.child.wait()).await {
                Ok(status) => Err(HandoverError::Ended(status?)),
                Err(_) => Err(HandoverError::Timeout),
            },
            Err(_) => Err(HandoverError::Timeout),
        }
    }

    /// Makes the successor the service's main process, and acknowledges its message.
    pub(super) async fn take_over(mut self) {
        super::manager::succeeded_by(self.pid);
        // The successor waits for this, because the service manager ignores its notifications before it is the main process.
        let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, self.socket.write_all(&[READY])).await;
        tracing::info!(pid = self.pid, "handed over");
    }

    /// Kills the successor.
    pub(super) async fn kill(mut self) {
        // Fails if the process has already ended.
        let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, self.child.kill()).await;
    }
}

/// In a successor, reports to the predecessor that this process serves, and waits for the acknowledgement. Returns the
/// devices and inodes of the predecessor's Unix socket files, or `None` in other processes.
pub(super) fn announce() -> io::Result<Option<Vec<(u64, u64)>>> {
    let Ok(files) = std::env::var(VARIABLE) else { return Ok(None) };
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_read_timeout(Some(EXCHANGE_TIMEOUT))?;
    socket.write_all(&[READY])?;
    // If the predecessor has ended, this returns at once.
    let _ = socket.read(&mut [0]);
    Ok(Some(files.split(',').filter_map(parse_file).collect()))
}

/// Formats the device and inode of a file for [`VARIABLE`].
fn format_file((device, inode): (u64, u64)) -> String {
    format!("{device}:{inode}")
}

fn parse_file(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// Returns an error if sessions would be lost with this process, or if both processes would need the same address for the
/// store.
fn check_store(config: &Config) -> Result<(), HandoverError> {
    match &config.store {
        StoreConfig::Embedded { path: None, .. } => Err(HandoverError::Store(
            ", and all sessions would be lost with it: set `path` in [store.embedded]",
        )),
        StoreConfig::Embedded { listen: Some(_), .. } => Err(HandoverError::Store(
            " and listens on the address of `listen`, which two processes cannot do at once",
        )),
        StoreConfig::Embedded { .. } | StoreConfig::Dynamodb(_) => Ok(()),
    }
}
