//! The running gateway: its listeners, its worker threads, and their end.
//!
//! A worker is a thread with a runtime of its own, its own socket on every address (SO_REUSEPORT), its own connections
//! and its own pools; a request never leaves it but to ask the store. Everything else runs on the runtime that
//! [`Server::start`] is called on.

mod assemble;
mod connection;
mod listener;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Subject};
use crate::config::Config;
use crate::proxy::Gateway;
use crate::store::Store;
use crate::store::schema::SchemaError;
use crate::telemetry::Telemetry;

pub(crate) use assemble::gateway;
pub use listener::BindError;

/// How long store operations under way may take to end after the last request has; each has a limit of its own.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    workers: Vec<JoinHandle<()>>,
    /// What workers take each new configuration from.
    _gateways: watch::Sender<Arc<Gateway>>,
    stop: watch::Sender<bool>,
    tasks: TaskTracker,
    /// Answers until the very end: whoever asks is told that the gateway is draining.
    _admin: Option<Admin>,
    /// The built-in apps that serve as upstreams end with the server.
    _apps: Vec<crate::demo::Running>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A realm's table is not there, or not as its format needs it.
    #[error("realm `{realm}`: {error}")]
    Table {
        /// Which realm.
        realm: String,
        /// What is wrong with its table.
        error: SchemaError,
    },
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The operating system refuses a thread, a socket or randomness.
    #[error("{what}: {error}")]
    System {
        /// What for.
        what: &'static str,
        /// What it says.
        error: std::io::Error,
    },
}

impl Server {
    /// Starts a gateway over `store`: makes sure of the tables, binds every address, and serves.
    ///
    /// # Errors
    /// See [`StartError`]. A store that does not answer is none: it may, later.
    pub async fn start(config: &Config, store: &Store, telemetry: &Telemetry) -> Result<Self, StartError> {
        let tasks = TaskTracker::new();
        let assembled = assemble::assemble(config, store, &tasks, telemetry).await?;
        let (gateways, _) = watch::channel(Arc::new(assembled.gateway));
        let mut addresses = Vec::new();
        let mut sockets: Vec<Vec<listener::Socket>> =
            (0..config.server.workers).map(|_| Vec::new()).collect();
        for listener in &config.listeners {
            let bound = listener::bind(listener, config.server.workers)?;
            addresses.push(bound.address);
            for (worker, socket) in sockets.iter_mut().zip(bound.sockets) {
                worker.push(socket);
            }
        }
        let (stop, stopped) = watch::channel(false);
        let mut workers = Vec::new();
        for (number, sockets) in sockets.into_iter().enumerate() {
            let seed = worker::Seed {
                number,
                gateways: gateways.subscribe(),
                sockets,
                stopped: stopped.clone(),
                drain: config.server.drain,
            };
            workers.push(worker::spawn(seed)?);
        }
        let admin = config.admin.as_ref().map(|admin| {
            let subject = Subject {
                gateway: {
                    let gateways = gateways.subscribe();
                    Box::new(move || Arc::clone(&gateways.borrow()))
                },
                is_alive: Box::new(|| true),
                is_draining: {
                    let stopped = stopped.clone();
                    Box::new(move || *stopped.borrow())
                },
                telemetry: telemetry.clone(),
                workers: config.server.workers,
            };
            Admin::start(admin, subject)
                .map_err(|error| StartError::System { what: "the admin listener", error })
        });
        let admin = admin.transpose()?;
        for address in &addresses {
            tracing::info!(%address, listener = "http", "listening");
        }
        if let Some(address) = store.served_at() {
            tracing::info!(%address, listener = "dynamodb", "listening");
        }
        if let Some(admin) = &admin {
            tracing::info!(address = admin.address(), listener = "admin", "listening");
        }
        tracing::info!(workers = config.server.workers, "ready");
        Ok(Self {
            addresses,
            workers,
            _gateways: gateways,
            stop,
            tasks,
            _admin: admin,
            _apps: assembled.apps,
        })
    }

    /// The addresses that are listened on, in the order of the configuration.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Ends the gateway: no new connections, requests under way are finished within the configured time, and so is
    /// every write to the store.
    pub async fn drain(self) {
        tracing::info!("draining");
        // Workers that are gone already need no telling.
        let _ = self.stop.send(true);
        for worker in self.workers {
            let ended = tokio::task::spawn_blocking(move || worker.join()).await;
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("a worker ended in a panic");
            }
        }
        self.tasks.close();
        if tokio::time::timeout(LAST_WRITES, self.tasks.wait()).await.is_err() {
            tracing::warn!("store operations were still under way at the end");
        }
        tracing::info!("stopped");
    }
}
