//! The process that takes over: the same program, as it is on disk now, with the same arguments, the configuration as
//! it is in the file now, and the sockets that this process listens on. So a new version, and settings that only a new
//! process can take up, come into force without a connection refused.
//!
//! 1. Both processes hold the same sockets, and so the same queues: nobody who connects meanwhile is lost.
//! 2. This process goes on as if nothing had happened until the other says that it serves. If it never does, the other
//!    is ended, and nothing has changed.
//! 3. The two speak over the successor's standard input, which ends with either of them.

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

/// Tells a process that it is a successor.
const VARIABLE: &str = "SESSIONGATE_SUCCESSOR";
/// What it says when it serves.
const READY: u8 = b'R';
/// How long it may take to start. The tables are checked within it, whose time is limited, too.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end when it is not wanted any more, or its predecessor to take note.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first descriptor that is passed on, by the convention of sd_listen_fds(3).
const FIRST: i32 = 3;

/// A process that is to take over.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    pid: u32,
    line: tokio::net::UnixStream,
}

/// Why it does not.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    /// The store would not come along.
    #[error("the store is inside this process{0}")]
    Store(&'static str),
    /// It could not be started, or spoken with.
    #[error("the next process cannot be started: {0}")]
    Start(#[from] io::Error),
    /// It did not get as far as serving.
    #[error("the next process ended: {0}")]
    Ended(ExitStatus),
    /// It took too long.
    #[error("the next process did not serve within {START:?}")]
    Slow,
}

impl Successor {
    /// Starts it. Once it is there, one of the other methods has to end the matter.
    pub(super) fn start(server: &Server) -> Result<Self, HandoverError> {
        outlasts(server.config())?;
        let (line, theirs) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        let line = tokio::net::UnixStream::from_std(line)?;
        let mut arguments = std::env::args_os();
        let program = arguments.next().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(OwnedFd::from(theirs)));
        let sockets = server.descriptors()?;
        command.env(VARIABLE, "1").env("LISTEN_FDS", sockets.len().to_string());
        // What these say is about this process alone.
        for stale in ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
            command.env_remove(stale);
        }
        let mappings = sockets.into_iter().zip(FIRST..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        let child = tokio::process::Command::from(command).spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        tracing::info!(pid, "starting the next process");
        Ok(Self { child, pid, line })
    }

    /// Waits until it serves.
    pub(super) async fn ready(&mut self) -> Result<(), HandoverError> {
        let mut said = [0];
        match tokio::time::timeout(START, self.line.read(&mut said)).await {
            Ok(Ok(1)) if said == [READY] => Ok(()),
            Ok(_) => match tokio::time::timeout(PATIENCE, self.child.wait()).await {
                Ok(status) => Err(HandoverError::Ended(status?)),
                Err(_) => Err(HandoverError::Slow),
            },
            Err(_) => Err(HandoverError::Slow),
        }
    }

    /// Leaves everything to it.
    pub(super) async fn take_over(mut self) {
        super::manager::succeeded_by(self.pid);
        // It waits for this before it says anything to the service manager, which would not listen to it before.
        let _ = tokio::time::timeout(PATIENCE, self.line.write_all(&[READY])).await;
        tracing::info!(pid = self.pid, "handed over");
    }

    /// Ends it.
    pub(super) async fn abandon(mut self) {
        // It may have ended by itself.
        let _ = tokio::time::timeout(PATIENCE, self.child.kill()).await;
    }
}

/// In a successor: tells the predecessor that this process serves, and waits until that has taken note.
pub(super) fn announce() -> io::Result<()> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(());
    }
    let mut line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    line.set_read_timeout(Some(PATIENCE))?;
    line.write_all(&[READY])?;
    // If the predecessor is gone there is nothing to wait for.
    let _noted = line.read(&mut [0]);
    Ok(())
}

/// Whether the sessions, and the sockets that the store itself listens on, survive this process.
fn outlasts(config: &Config) -> Result<(), HandoverError> {
    match &config.store {
        StoreConfig::Embedded { path: None, .. } => Err(HandoverError::Store(
            ", and all sessions would be lost with it: give [store.embedded] a `path`",
        )),
        StoreConfig::Embedded { listen: Some(_), .. } => {
            Err(HandoverError::Store(" and serves others: two processes cannot have the address of `listen`"))
        }
        StoreConfig::Embedded { .. } | StoreConfig::Dynamodb(_) => Ok(()),
    }
}
