//! `sessiongate serve`: runs the gateway until a signal stops it, and handles the signals for reloads, log rotation and
//! handover to a new process.

mod manager;
mod reloader;
mod successor;

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::server::{Inherited, Server, StartError};
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::telemetry::{self, Telemetry};

use super::args::ConfigFile;
use super::context;
use super::failure::{CommandResult, Failure};
use reloader::Reloader;
use successor::{HandoverError, Successor};

/// Threads of the control runtime, which runs everything but requests: store operations, reloads, signals.
const CONTROL_THREADS: usize = 2;
/// Timeout for tasks and blocking calls that still run at the end, such as the lookup of a name.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) fn run(file: &ConfigFile) -> CommandResult {
    // This changes environment variables, so it must come before any thread is started.
    let inherited = Inherited::from_environment()
        .map_err(|error| Failure::refused(format!("an inherited socket cannot be used: {error}")))?;
    let (config, watcher) = context::load_watched(file)?;
    telemetry::init(config.server.log);
    on_control_runtime(async {
        // First, so that signals during the start are handled after it.
        let mut signals = Signals::listen()?;
        let store = Store::open(&config.store).await?;
        let telemetry = Telemetry::open(&config.server)
            .map_err(|error| Failure::refused(format!("cannot start the access log: {error}")))?;
        let mut server = Server::start(&config, &store, &telemetry, inherited).await?;
        // The server has a clone. This one would keep the first access log open after a reload has replaced it.
        drop(telemetry);
        match successor::announce() {
            Ok(Some(owned)) => server.take_over(&owned),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "the previous process could not be notified that this one serves");
            }
        }
        manager::ready(&server);
        let _watchdog = manager::watchdog(&server);
        let mut reloader = Reloader::new(file.path(), watcher);
        let end = loop {
            let stop = &mut signals.stop;
            let is_watched = server.config().server.watch;
            // Signals that arrive during a command are handled after it; only a stop signal interrupts a reload or a
            // handover. Several of one kind count as one.
            let command = tokio::select! {
                () = stop.recv() => break End::Stopped,
                _ = signals.hangup.recv() => ServerCommand::Reload,
                () = reloader.changed(), if is_watched => ServerCommand::Reload,
                _ = signals.user1.recv() => ServerCommand::ReopenLog,
                _ = signals.user2.recv() => ServerCommand::HandOver,
            };
            match command {
                ServerCommand::Reload => {
                    manager::reloading();
                    tokio::select! {
                        () = stop.recv() => break End::Stopped,
                        () = reloader.reload(&mut server, &store) => {}
                    }
                    manager::ready(&server);
                }
                ServerCommand::ReopenLog => server.reopen_access_log(),
                ServerCommand::HandOver => match hand_over(&server, stop).await {
                    Ok(end) => break end,
                    Err(error) => {
                        tracing::error!(reason = %error, "handover failed: this process continues to serve");
                    }
                },
            }
        };
        match end {
            End::Stopped => {
                manager::stopping();
                drain(server, &mut signals.stop).await;
            }
            End::HandedOver => {
                server.hand_over();
                run_until_stopped(server.end(), &mut signals.stop).await;
            }
        }
        Ok(())
    })
}

/// A command to the running gateway, from a signal or, for a reload, from a changed file.
enum ServerCommand {
    Reload,
    ReopenLog,
    HandOver,
}

/// Reason why the gateway ends.
enum End {
    Stopped,
    HandedOver,
}

/// Starts the next process and waits until it serves, or until a signal stops the gateway.
async fn hand_over(server: &Server, stop: &mut StopSignals) -> Result<End, HandoverError> {
    let mut successor = Successor::start(server)?;
    let ready = tokio::select! {
        ready = successor.wait_until_ready() => ready,
        () = stop.recv() => {
            successor.kill().await;
            return Ok(End::Stopped);
        }
    };
    match ready {
        Ok(()) => {
            successor.take_over().await;
            Ok(End::HandedOver)
        }
        Err(error) => {
            successor.kill().await;
            Err(error)
        }
    }
}

/// The signals that the gateway handles.
struct Signals {
    stop: StopSignals,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        // With a handler for SIGXFSZ, a write beyond RLIMIT_FSIZE fails like one on a full disk, and does not kill the
        // process.
        let _handled = listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self {
            stop: StopSignals::listen()?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
        })
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
}

/// Drains `server`. A second stop signal ends it at once.
pub(super) async fn drain(server: Server, stop: &mut StopSignals) {
    run_until_stopped(server.drain(), stop).await;
}

async fn run_until_stopped(ending: impl Future<Output = ()>, stop: &mut StopSignals) {
    tokio::select! {
        () = ending => {}
        // Requests in flight are cut off when the process exits. Writes to the store are atomic.
        () = stop.recv() => {}
    }
}

/// Runs `work` on the control runtime.
pub(super) fn on_control_runtime(work: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("cannot start the async runtime: {error}")))?;
    let result = runtime.block_on(work);
    // Dropping the runtime would wait for blocking calls without a timeout.
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    result
}

/// The signals that stop the gateway: SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers. Before that, the signals kill the process.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub(super) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let message = error.to_string();
        match error {
            StartError::Table { error: SchemaError::Store(store), .. } => {
                Self { message, ..Self::from(store) }
            }
            StartError::Table { .. } | StartError::Open(_) => Self::refused(message),
            StartError::System { .. } => Self::internal(message),
        }
    }
}
