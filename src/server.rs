//! The running gateway: its listeners and worker threads, from start to drain.
//!
//! A worker is a thread with its own runtime, its own socket on every TCP address (SO_REUSEPORT), its own connections
//! and its own upstream pools. A request leaves its worker only for store operations. These, health checks, name
//! lookups, certificate reloads and the admin listener run on the runtime that [`Server::start`] is called on.
//!
//! A configuration is prepared as a `Generation`, which the workers receive as a whole. A reload builds a new generation
//! from the current one. Objects whose configuration has not changed are in both, and so keep their state (sockets, pools,
//! caches). The workers switch only when the whole generation is ready.

mod accepted_connection;
mod assemble;
mod connection;
mod connections;
mod counters;
mod error;
mod generation;
mod inherited;
mod listener;
mod listener_socket;
mod proxy_protocol;
mod reset_budget;
mod state;
mod tls;
mod transport;
mod worker;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin, AdminSources};
use crate::config::{Config, Difference, ListenerAddress};
use crate::store::Store;
use crate::telemetry::Telemetry;
use crate::time::Timestamp;

use assemble::Assembled;
use generation::Generation;
use listener::Listener;

pub(crate) use assemble::gateway;
pub use connections::Connections;
pub use counters::{Count, Counters};
pub use error::StartError;
pub use inherited::Inherited;
pub use listener::ListenError;
pub use state::{ReloadCounters, State};
pub use tls::TlsError;

/// Timeout for all workers to switch to a new generation.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the workers to end after the timeout for draining, which each of them applies itself.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval at which the server checks whether a worker has ended.
const WORKER_POLL: Duration = Duration::from_millis(10);
/// Timeout for store operations that are still running when the workers have ended. Each has its own timeout, too.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for writing the rest of the access log, and of those that reloads have replaced.
const ACCESS_LOG_TIMEOUT: Duration = Duration::from_secs(5);

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    /// The current configuration.
    config: Config,
    assembled: Assembled,
    listeners: Vec<Arc<Listener>>,
    workers: Vec<JoinHandle<()>>,
    /// Sends each new generation to the workers.
    generations: watch::Sender<Arc<Generation>>,
    stop: watch::Sender<bool>,
    state: Arc<State>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    telemetry: Telemetry,
    /// The admin listener. It responds until the process ends, so that health checks see the gateway drain.
    admin: Option<Admin>,
}

/// The certificates of all listeners of a server, as of the latest reload.
#[derive(Clone, Debug)]
pub struct Certificates {
    generations: watch::Receiver<Arc<Generation>>,
}

impl Server {
    /// Starts a gateway with `store`: checks or creates the tables, binds every address for which `inherited` has no
    /// socket, and starts to serve.
    ///
    /// # Errors
    /// Returns [`StartError`]. An unreachable store is not an error, since it may become reachable later.
    pub async fn start(
        config: &Config,
        store: &Store,
        telemetry: &Telemetry,
        mut inherited: Inherited,
    ) -> Result<Self, StartError> {
        let tasks = TaskTracker::new();
        let assembled = assemble::assemble(config, store, &tasks, telemetry, None).await?;
        let count = config.server.workers;
        let connections = Arc::new(Connections::new(&config.server.limits, count, config.listeners.len()));
        let open = |listener| Listener::open(listener, count, &mut inherited, &connections);
        let listeners = config.listeners.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let state = Arc::new(State::new(count));
        let (generations, latest) = watch::channel(Arc::new(Generation::new(config, &assembled, &listeners)));
        let (stop, stopped) = watch::channel(false);
        let mut workers = Vec::new();
        for number in 0..count {
            workers.push(worker::spawn(worker::WorkerSetup {
                number,
                workers: count,
                generations: latest.clone(),
                stopped: stopped.clone(),
                state: Arc::clone(&state),
            })?);
        }
        let admin = config.admin.as_ref().map(|admin| {
            let socket = inherited.take_admin(&admin.address);
            Admin::start(admin, socket, admin_sources(&latest, &state, &connections, telemetry, count))
                .map_err(|error| StartError::System { what: "the admin listener", error })
        });
        let admin = admin.transpose()?;
        inherited.close_unused();
        for listener in &listeners {
            tracing::info!(address = %listener.address, listener = listener.kind(), "listening");
        }
        if let Some(address) = store.api_address() {
            tracing::info!(%address, listener = "dynamodb", "listening");
        }
        if let Some(admin) = &admin {
            tracing::info!(address = admin.address(), listener = "admin", "listening");
        }
        tracing::info!(workers = count, "ready");
        Ok(Self {
            config: config.clone(),
            assembled,
            listeners,
            workers,
            generations,
            stop,
            state,
            connections,
            tasks,
            telemetry: telemetry.clone(),
            admin,
        })
    }

    /// Applies `config`, except for the settings that only a restart can change, and returns the difference. Requests in
    /// flight keep the configuration that they began with. Either all of `config` is applied or none of it, also if the
    /// future is dropped. Only the mode of a Unix socket file may have changed already if a later listener fails.
    ///
    /// # Errors
    /// Returns an error if the table of a new realm is missing or has another schema, or if the access log, a listener
    /// with its certificates, TLS to an upstream or a demo app cannot be set up. An unreachable store is not an error.
    pub async fn reload(&mut self, config: &Config, store: &Store) -> Result<Difference, StartError> {
        let (config, difference) = Difference::apply(&self.config, config);
        let current = Some((&self.config, &self.assembled));
        let telemetry = self
            .telemetry
            .for_reload(&self.config.server, &config.server)
            .map_err(|error| StartError::System { what: "the access log", error })?;
        let assembled = assemble::assemble(&config, store, &self.tasks, &telemetry, current).await?;
        let listeners = self.listeners(&config)?;
        let opened = listeners.iter().filter(|listener| !self.listens_on(&listener.address));
        for listener in opened {
            tracing::info!(address = %listener.address, listener = listener.kind(), "listening");
        }
        // From here on nothing can fail.
        let generation = Arc::new(Generation::new(&config, &assembled, &listeners));
        self.config = config;
        self.telemetry = telemetry;
        self.reopen_access_log();
        self.assembled = assembled;
        self.listeners = listeners;
        self.generations.send_replace(Arc::clone(&generation));
        self.state.reloaded();
        let workers = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        if tokio::time::timeout(SWITCH_TIMEOUT, generation.switched.acquire_many(workers)).await.is_err() {
            tracing::warn!("not all workers use the new configuration yet");
        }
        Ok(difference)
    }

    /// Returns the listeners of `config`. An unchanged listener is kept, a changed one keeps its sockets, and for a
    /// new address a listener is opened.
    fn listeners(&self, config: &Config) -> Result<Vec<Arc<Listener>>, ListenError> {
        let mut current = self.listeners.clone();
        let mut listeners = Vec::new();
        for wanted in &config.listeners {
            let kept = current.iter().position(|listener| listener.config.address == wanted.address);
            listeners.push(match kept.map(|index| current.remove(index)) {
                Some(kept) if kept.config == *wanted => kept,
                Some(changed) => changed.reconfigured(wanted, &self.connections)?,
                None => {
                    let (workers, none) = (self.config.server.workers, &mut Inherited::none());
                    Listener::open(wanted, workers, none, &self.connections)?
                }
            });
        }
        Ok(listeners)
    }

    fn listens_on(&self, address: &ListenerAddress) -> bool {
        self.listeners.iter().any(|listener| listener.address == *address)
    }

    /// Returns the TCP addresses of the listeners, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |listener: &Arc<Listener>| match listener.address {
            ListenerAddress::Tcp(address) => Some(address),
            ListenerAddress::Unix(_) => None,
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// Returns the limits and counters of client connections.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Returns the listeners' certificates.
    pub fn certificates(&self) -> Certificates {
        Certificates { generations: self.generations.subscribe() }
    }

    /// Returns the current configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reopens the access log file by its name, for log rotation.
    pub fn reopen_access_log(&self) {
        self.telemetry.access_log.iter().for_each(|log| log.reopen());
    }

    /// Returns the state that health checks and metrics report.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Duplicates all listening sockets, for the process that replaces this one.
    ///
    /// # Errors
    /// Returns an error if the limit of open files is reached.
    pub fn descriptors(&self) -> std::io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        for listener in &self.listeners {
            all.extend(listener.descriptors()?);
        }
        // The admin socket is last, because a listener on port 0 takes the first inherited socket of its host.
        if let Some(admin) = &self.admin {
            all.push(admin.descriptor()?);
        }
        Ok(all)
    }

    /// Leaves the Unix socket files to the process that has taken over, and closes the admin listener.
    pub fn hand_over(&mut self) {
        self.listeners.iter().for_each(|listener| listener.hand_over());
        self.admin.take().into_iter().for_each(Admin::hand_over);
    }

    /// Returns the devices and inodes of the Unix socket files that this process removes at the end.
    pub fn owned_files(&self) -> Vec<(u64, u64)> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.owned_file());
        listeners.chain(self.admin.iter().filter_map(Admin::owned_file)).collect()
    }

    /// Takes over the Unix socket files that are `owned` by the process that this one has replaced.
    pub fn take_over(&self, owned: &[(u64, u64)]) {
        let listeners = self.listeners.iter().map(|listener| listener.take_over(owned));
        let admin = self.admin.iter().map(|admin| admin.take_over(owned));
        for error in listeners.chain(admin).filter_map(Result::err) {
            tracing::warn!(%error, "a Unix socket's file could not be taken over");
        }
    }

    /// Ends the gateway: readiness fails at once, so that load balancers stop sending requests, and [`Self::end`]
    /// follows after the configured delay.
    pub async fn drain(self) {
        self.state.drain();
        let delay = self.config.server.drain_delay;
        if !delay.is_zero() {
            tracing::info!(?delay, "readiness fails from now on");
            tokio::time::sleep(delay).await;
        }
        self.end().await;
    }

    /// Ends the gateway: accepts no more connections, and waits, up to the configured timeouts, for requests in flight
    /// and for writes to the store.
    pub async fn end(self) {
        self.state.drain();
        tracing::info!("draining");
        let Self { listeners, generations, .. } = self;
        // No duplicate of a socket may outlive the workers' sockets: clients would queue on it and never be accepted.
        drop(listeners);
        generations.send_modify(|generation| {
            *generation = Arc::new(generation.without_listeners());
        });
        // The send fails if no worker is left.
        let _ = self.stop.send(true);
        let timeout = self.config.server.drain.saturating_add(WORKER_TIMEOUT);
        if tokio::time::timeout(timeout, join(self.workers)).await.is_err() {
            tracing::error!("a worker is stuck, and is not waited for any longer");
        }
        self.tasks.close();
        if tokio::time::timeout(STORE_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("store operations were still running at the end");
        }
        let closing = self.telemetry.close_access_logs();
        if tokio::time::timeout(ACCESS_LOG_TIMEOUT, closing).await.is_err() {
            tracing::warn!("the last lines of the access log could not be written");
        }
        tracing::info!("stopped");
    }
}

/// Waits until all workers have ended.
async fn join(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        // Polls, because a task cannot await a thread, and a second stop signal could not cancel a blocking call.
        while !worker.is_finished() {
            tokio::time::sleep(WORKER_POLL).await;
        }
        if worker.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

impl Certificates {
    /// Returns when the first of the certificates expires, or `None` if no listener has TLS.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.generations.borrow().listeners.iter().filter_map(|listener| listener.context.not_after()).min()
    }
}

/// Builds the admin listener's view of the server.
fn admin_sources(
    generations: &watch::Receiver<Arc<Generation>>,
    state: &Arc<State>,
    connections: &Arc<Connections>,
    telemetry: &Telemetry,
    workers: usize,
) -> AdminSources {
    let certificates = Certificates { generations: generations.clone() };
    let (generations, connections) = (generations.clone(), Arc::clone(connections));
    let (alive, draining, reloads) = (Arc::clone(state), Arc::clone(state), Arc::clone(state));
    AdminSources {
        gateway: Box::new(move || Arc::clone(&generations.borrow().gateway)),
        is_alive: Box::new(move || alive.is_alive()),
        is_draining: Box::new(move || draining.is_draining()),
        reloads: Box::new(move || {
            let ReloadCounters { done, failed, last, generation } = reloads.reloads();
            admin::ReloadReport { done, failed, last, generation }
        }),
        tunnels: Arc::clone(state.tunnels()),
        metrics: Arc::clone(&telemetry.metrics),
        connections: Box::new(move || {
            let counters = &connections.counters;
            admin::ConnectionReport {
                open: connections.open(),
                limit: connections.limit(),
                outcomes: [
                    ("accepted", counters.accepted.get()),
                    ("over_share", counters.over_share.get()),
                    ("bad_proxy_header", counters.bad_proxy_headers.get()),
                    ("handshake", counters.handshakes.get()),
                    ("failed_handshake", counters.failed_handshakes.get()),
                    ("plain_at_tls", counters.plain_at_tls.get()),
                ],
                http2: admin::Http2Report {
                    resets: counters.resets.get(),
                    pauses: counters.pauses.get(),
                    ended: counters.abusive_connections.get(),
                },
                certificates: [
                    ("done", counters.reloaded_certificates.get()),
                    ("failed", counters.failed_reloads.get()),
                ],
                not_after: certificates.not_after(),
            }
        }),
        workers,
    }
}
