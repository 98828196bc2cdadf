//! `sessiongate serve`: the gateway, from its configuration until somebody says stop.

mod reloader;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::server::{Inherited, Server, StartError};
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::telemetry;

use super::args::ConfigFile;
use super::failure::{Failure, Outcome};
use super::site;
use reloader::Reloader;

/// Threads for what is not on a request's path: the store, reloads, and the wait for the end.
const CONTROL_THREADS: usize = 2;

pub(super) fn run(file: &ConfigFile) -> Outcome {
    // While there is one thread only.
    let inherited = Inherited::from_environment()
        .map_err(|error| Failure::refused(format!("a socket passed to the gateway is of no use: {error}")))?;
    let (config, watch) = site::load_watched(file)?;
    telemetry::init(config.server.log);
    on_control_runtime(async {
        // Before anything else, so that whoever stops a gateway that is starting is heard.
        let mut stop = Stop::listen()?;
        let mut hangup = listen(SignalKind::hangup())?;
        let store = Store::open(&config.store).await?;
        let mut server = Server::start(&config, &store, inherited).await?;
        let mut reloader = Reloader::new(file.config.clone(), watch);
        loop {
            let is_watched = server.config().server.watch;
            tokio::select! {
                () = stop.heard() => break,
                // Signals that come while one is being obeyed are heard after it, as one.
                _ = hangup.recv() => {}
                () = reloader.changed(), if is_watched => {}
            }
            tokio::select! {
                () = stop.heard() => break,
                () = reloader.reload(&mut server, &store) => {}
            }
        }
        drain(server, &mut stop).await;
        Ok(())
    })
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
}

/// Ends `server` in order, or at once if somebody says stop again: who asks twice does not want to wait.
pub(super) async fn drain(server: Server, stop: &mut Stop) {
    tokio::select! {
        () = server.drain() => {}
        // What is under way is broken off with the process; every write to the store is whole or not there.
        () = stop.heard() => {}
    }
}

/// Runs `work` on the runtime that everything but requests shares.
pub(super) fn on_control_runtime(work: impl Future<Output = Outcome>) -> Outcome {
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
            StartError::Table { .. } | StartError::Bind(_) => Self::refused(message),
            StartError::System { .. } => Self::internal(message),
        }
    }
}
