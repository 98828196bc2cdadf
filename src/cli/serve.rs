//! `sessiongate serve`: runs the gateway until it is told to stop.

use tokio::signal::unix::{SignalKind, signal};

use crate::server::{Server, StartError};
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::telemetry;

use super::args::ConfigFile;
use super::failure::{Failure, Outcome};
use super::site;

/// Threads for what does not belong to a request: the store, the embedded engine, signals.
const CONTROL_THREADS: usize = 2;

pub(super) fn run(file: &ConfigFile) -> Outcome {
    let config = site::load(file)?;
    telemetry::init(config.server.log);
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("cannot start the control runtime: {error}")))?;
    control.block_on(async {
        // Before anything else, so that whoever stops a gateway that is starting is heard.
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let store = Store::open(&config.store).await?;
        let server = Server::start(&config, &store).await?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::select! {
            () = server.drain() => {}
            // Who asks twice does not want to wait.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
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
