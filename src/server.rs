//! The running gateway: its listeners, its worker threads, and their end.
//!
//! A worker is a thread with a runtime of its own, its own socket on every address (SO_REUSEPORT), its own connections
//! and its own pools; a request never leaves it but to ask the store. Everything else runs on the runtime that
//! [`Server::start`] is called on.
//!
//! What the configuration says is made ready as a `Generation` and handed to the workers as one. A reload makes the
//! next one of the last: what has not changed is the same object in both, and so keeps what it holds (sockets, pools,
//! caches). Nothing is swapped before all of it is ready.

mod arrival;
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
mod unix;
mod worker;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin, Subject};
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

/// How long workers are waited for to go by a new configuration, which takes them no more than getting round to it.
const FOLLOWED: Duration = Duration::from_secs(5);
/// How long store operations under way may take to end after the last request has; each has a limit of its own.
const LAST_WRITES: Duration = Duration::from_secs(10);

/// How long the access log may take to be written to its end.
const LAST_LINES: Duration = Duration::from_secs(5);

/// A running gateway.
#[derive(Debug)]
pub struct Server {
    /// The configuration in force.
    config: Config,
    assembled: Assembled,
    listeners: Vec<Arc<Listener>>,
    workers: Vec<JoinHandle<()>>,
    /// What workers take each new configuration from.
    generations: watch::Sender<Arc<Generation>>,
    stop: watch::Sender<bool>,
    state: Arc<State>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    telemetry: Telemetry,
    /// Answers until the very end: whoever asks is told that the gateway is draining.
    admin: Option<Admin>,
}

/// The certificates of all listeners of a server, whatever reloads make of them.
#[derive(Clone, Debug)]
pub struct Certificates {
    generations: watch::Receiver<Arc<Generation>>,
}

impl Server {
    /// Starts a gateway over `store`: makes sure of the tables, binds every address that `inherited` has no socket of,
    /// and serves.
    ///
    /// # Errors
    /// See [`StartError`]. A store that does not answer is none: it may, later.
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
        let (generations, following) =
            watch::channel(Arc::new(Generation::new(config, &assembled, &listeners)));
        let (stop, stopped) = watch::channel(false);
        let mut workers = Vec::new();
        for number in 0..count {
            workers.push(worker::spawn(worker::Seed {
                number,
                workers: count,
                generations: following.clone(),
                stopped: stopped.clone(),
                state: Arc::clone(&state),
            })?);
        }
        let admin = config.admin.as_ref().map(|admin| {
            let passed = inherited.take_admin(&admin.address);
            Admin::start(admin, passed, subject(&following, &state, &connections, telemetry, count))
                .map_err(|error| StartError::System { what: "the admin listener", error })
        });
        let admin = admin.transpose()?;
        inherited.finish();
        for listener in &listeners {
            tracing::info!(address = %listener.address, listener = listener.kind(), "listening");
        }
        if let Some(address) = store.served_at() {
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

    /// Puts `config` into force, but for what only a new process can change. Requests under way are finished as they
    /// began. Either all of it comes into force or nothing does; a future that is dropped leaves everything as it was.
    ///
    /// # Errors
    /// If a table is not as a new realm needs it, or a new address cannot be listened on. A store that does not answer
    /// is no error here either.
    pub async fn reload(&mut self, config: &Config, store: &Store) -> Result<Difference, StartError> {
        let (config, difference) = Difference::apply(&self.config, config);
        let before = Some((&self.config, &self.assembled));
        let telemetry = self
            .telemetry
            .following(&self.config.server, &config.server)
            .map_err(|error| StartError::System { what: "the access log", error })?;
        let assembled = assemble::assemble(&config, store, &self.tasks, &telemetry, before).await?;
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
        if tokio::time::timeout(FOLLOWED, generation.followed.acquire_many(workers)).await.is_err() {
            tracing::warn!("a worker has not taken the new configuration up yet");
        }
        Ok(difference)
    }

    /// The listeners of `config`: those that are as they were, those that take the sockets of one over, and new ones.
    fn listeners(&self, config: &Config) -> Result<Vec<Arc<Listener>>, ListenError> {
        let mut left = self.listeners.clone();
        let mut listeners = Vec::new();
        for wanted in &config.listeners {
            let kept = left.iter().position(|listener| listener.config.address == wanted.address);
            listeners.push(match kept.map(|index| left.remove(index)) {
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

    /// The addresses that are listened on, in the order of the configuration, without unix sockets.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |listener: &Arc<Listener>| match listener.address {
            ListenerAddress::Tcp(address) => Some(address),
            ListenerAddress::Unix(_) => None,
        };
        self.listeners.iter().filter_map(address).collect()
    }

    /// The client connections, and what became of those who made them.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// The listeners' certificates.
    pub fn certificates(&self) -> Certificates {
        Certificates { generations: self.generations.subscribe() }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Opens the file of the access log again, by its name.
    pub fn reopen_access_log(&self) {
        self.telemetry.access_log.iter().for_each(|log| log.reopen());
    }

    /// What others may know of this gateway.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// All sockets that are listened on once more, to be passed to the process that takes over.
    ///
    /// # Errors
    /// If there is no descriptor left for one of them.
    pub fn descriptors(&self) -> std::io::Result<Vec<OwnedFd>> {
        let mut all = Vec::new();
        for listener in &self.listeners {
            all.extend(listener.descriptors()?);
        }
        // Last, so that no listener on any port takes it for its own.
        if let Some(admin) = &self.admin {
            all.push(admin.descriptor()?);
        }
        Ok(all)
    }

    /// Another process has taken over: its are the sockets' files, and who asks how the gateway is means that one.
    pub fn hand_over(&mut self) {
        self.listeners.iter().for_each(|listener| listener.leave());
        self.admin.take().into_iter().for_each(Admin::leave);
    }

    /// Ends the gateway: readiness goes first, and after the configured delay, in which balancers are to notice, so does
    /// all else as [`Self::end`] says.
    pub async fn drain(self) {
        self.state.drain();
        let delay = self.config.server.drain_delay;
        if !delay.is_zero() {
            tracing::info!(?delay, "not ready any more");
            tokio::time::sleep(delay).await;
        }
        self.end().await;
    }

    /// Ends the gateway: no new connections, requests under way are finished within the configured time, and so is
    /// every write to the store.
    pub async fn end(self) {
        self.state.drain();
        tracing::info!("draining");
        let Self { listeners, generations, .. } = self;
        // Once the workers let go of them, nothing may hold the sockets open for connections that nobody accepts.
        drop(listeners);
        generations.send_modify(|generation| {
            *generation = Arc::new(generation.without_listeners());
        });
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
        if let Some(log) = &self.telemetry.access_log
            && tokio::time::timeout(LAST_LINES, log.close()).await.is_err()
        {
            tracing::warn!("the last lines of the access log could not be written");
        }
        tracing::info!("stopped");
    }
}

impl Certificates {
    /// When the first of them expires; none: there are none.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.generations.borrow().listeners.iter().filter_map(|listener| listener.entrance.not_after()).min()
    }
}

/// What the admin listener shows.
fn subject(
    generations: &watch::Receiver<Arc<Generation>>,
    state: &Arc<State>,
    connections: &Arc<Connections>,
    telemetry: &Telemetry,
    workers: usize,
) -> Subject {
    let certificates = Certificates { generations: generations.clone() };
    let (generations, connections) = (generations.clone(), Arc::clone(connections));
    let (alive, draining, reloads) = (Arc::clone(state), Arc::clone(state), Arc::clone(state));
    Subject {
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
                bound: connections.bound(),
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
                    ended: counters.ended.get(),
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
