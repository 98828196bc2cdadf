//! `sessiongate serve`: the gateway, from its configuration until somebody says stop.

mod manager;
mod reloader;
mod successor;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::server::{Inherited, Server, StartError};
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::telemetry::{self, Telemetry};

use super::args::ConfigFile;
use super::failure::{CommandResult, Failure};
use super::site;
use reloader::Reloader;
use successor::{HandoverError, Successor};

/// Threads for what is not on a request's path: the store, reloads, and the wait for the end.
const CONTROL_THREADS: usize = 2;

pub(super) fn run(file: &ConfigFile) -> CommandResult {
    // While there is one thread only.
    let inherited = Inherited::from_environment()
        .map_err(|error| Failure::refused(format!("a socket passed to the gateway is of no use: {error}")))?;
    let (config, watch) = site::load_watched(file)?;
    telemetry::init(config.server.log);
    on_control_runtime(async {
        // Before anything else, so that whoever stops a gateway that is starting is heard.
        let mut signals = Signals::listen()?;
        let store = Store::open(&config.store).await?;
        let telemetry = Telemetry::open(&config.server)
            .map_err(|error| Failure::refused(format!("the access log: {error}")))?;
        let mut server = Server::start(&config, &store, &telemetry, inherited).await?;
        if let Err(error) = successor::announce() {
            tracing::warn!(%error, "the process before this one could not be told that this one serves");
        }
        manager::ready(&server);
        let _watchdog = manager::watchdog(&server);
        let mut reloader = Reloader::new(file.path(), watch);
        let ending = loop {
            let stop = &mut signals.stop;
            let is_watched = server.config().server.watch;
            // What comes while something else is being done is heard after it, several signals of a kind as one.
            let wish = tokio::select! {
                () = stop.heard() => break Ending::Stop,
                _ = signals.hangup.recv() => Wish::Reload,
                () = reloader.changed(), if is_watched => Wish::Reload,
                _ = signals.user1.recv() => Wish::ReopenLog,
                _ = signals.user2.recv() => Wish::HandOver,
            };
            match wish {
                Wish::Reload => {
                    manager::reloading();
                    tokio::select! {
                        () = stop.heard() => break Ending::Stop,
                        () = reloader.reload(&mut server, &store) => {}
                    }
                    manager::ready(&server);
                }
                Wish::ReopenLog => server.reopen_access_log(),
                Wish::HandOver => match hand_over(&server, stop).await {
                    Ok(ending) => break ending,
                    Err(error) => {
                        tracing::error!(reason = %error, "not handed over: this process goes on");
                    }
                },
            }
        };
        match ending {
            Ending::Stop => {
                manager::stopping();
                drain(server, &mut signals.stop).await;
            }
            Ending::HandedOver => {
                server.hand_over();
                until_stopped(server.end(), &mut signals.stop).await;
            }
        }
        Ok(())
    })
}

/// What the running gateway is asked to do.
enum Wish {
    Reload,
    ReopenLog,
    HandOver,
}

/// Why it ends.
enum Ending {
    Stop,
    HandedOver,
}

/// Starts the next process and waits until it serves, or until somebody says stop.
async fn hand_over(server: &Server, stop: &mut Stop) -> Result<Ending, HandoverError> {
    let mut successor = Successor::start(server)?;
    let ready = tokio::select! {
        ready = successor.ready() => ready,
        () = stop.heard() => {
            successor.abandon().await;
            return Ok(Ending::Stop);
        }
    };
    match ready {
        Ok(()) => {
            successor.take_over().await;
            Ok(Ending::HandedOver)
        }
        Err(error) => {
            successor.abandon().await;
            Err(error)
        }
    }
}

/// What the gateway listens to.
struct Signals {
    stop: Stop,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        // A write beyond the limit of a file's size then fails, as one on a full disk, and does not end the process.
        let _handled = listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?;
        Ok(Self {
            stop: Stop::listen()?,
            hangup: listen(SignalKind::hangup())?,
            user1: listen(SignalKind::user_defined1())?,
            user2: listen(SignalKind::user_defined2())?,
        })
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
}

/// Ends `server` in order, or at once if somebody says stop again: who asks twice does not want to wait.
pub(super) async fn drain(server: Server, stop: &mut Stop) {
    until_stopped(server.drain(), stop).await;
}

async fn until_stopped(ending: impl Future<Output = ()>, stop: &mut Stop) {
    tokio::select! {
        () = ending => {}
        // What is under way is broken off with the process; every write to the store is whole or not there.
        () = stop.heard() => {}
    }
}

/// Runs `work` on the runtime that everything but requests shares.
pub(super) fn on_control_runtime(work: impl Future<Output = CommandResult>) -> CommandResult {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("cannot start the async runtime: {error}")))?
        .block_on(work)
}

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Takes the signals over; until then each of them ends the process.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next signal.
    pub(super) async fn heard(&mut self) {
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
