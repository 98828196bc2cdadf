//! `sessiongate serve`: the gateway, from its configuration until somebody says stop.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::task::AbortOnDropHandle;

use crate::server::{Server, StartError};
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::telemetry::{self, Telemetry};

use super::args::ConfigFile;
use super::failure::{Failure, Outcome};
use super::site;

/// Threads for what is not on a request's path: the store, and the wait for the end.
const CONTROL_THREADS: usize = 2;
/// How long the access log may take to be written to its end.
const LAST_LINES: Duration = Duration::from_secs(5);

pub(super) fn run(file: &ConfigFile) -> Outcome {
    let config = site::load(file)?;
    telemetry::init(config.server.log);
    on_control_runtime(async {
        // Before anything else, so that whoever stops a gateway that is starting is heard.
        let mut stop = Stop::listen()?;
        let store = Store::open(&config.store).await?;
        let telemetry = Telemetry::open(&config.server)
            .map_err(|error| Failure::refused(format!("the access log: {error}")))?;
        let _rotation = reopen_on_signal(&telemetry)?;
        let server = Server::start(&config, &store, &telemetry).await?;
        stop.heard().await;
        drain(server, &mut stop).await;
        close(&telemetry).await;
        Ok(())
    })
}

/// Ends `server` in order, or at once if somebody says stop again: who asks twice does not want to wait.
pub(super) async fn drain(server: Server, stop: &mut Stop) {
    tokio::select! {
        () = server.drain() => {}
        // What is under way is broken off with the process; every write to the store is whole or not there.
        () = stop.heard() => {}
    }
}

/// Opens the access log again at each SIGUSR1, which is how logs are rotated.
fn reopen_on_signal(telemetry: &Telemetry) -> Result<AbortOnDropHandle<()>, Failure> {
    let mut rotated = signal(SignalKind::user_defined1())
        .map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))?;
    let log = telemetry.access_log.clone();
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while rotated.recv().await.is_some() {
            log.iter().for_each(|log| log.reopen());
        }
    })))
}

/// Has the last lines of the access log written, as far as whoever reads them does so in time.
pub(super) async fn close(telemetry: &Telemetry) {
    let Some(log) = &telemetry.access_log else { return };
    if tokio::time::timeout(LAST_LINES, log.close()).await.is_err() {
        tracing::warn!("the last lines of the access log could not be written");
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
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Stop {
    /// Takes the signals over; until then each of them ends the process.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
        };
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
