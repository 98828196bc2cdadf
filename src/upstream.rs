//! The servers behind the gateway, and the connections to them.
//!
//! | file | holds |
//! | --- | --- |
//! | `endpoint`, `target` | a server as configured; each address of it, with what all workers know of it |
//! | `resolve`, `health` | what the control runtime finds out: addresses, and whether they answer |
//! | `balance`, `queue`, `budget` | which server, how long a wait for it, how many second tries |
//! | `pool`, `link`, `stream` | a worker's connections, HTTP over them, and the bytes under that |
//! | `patience` | how long a response is waited for |
//! | `said`, `body`, `incoming` | what the gateway says of a request; its body, and how far it has come; a response's |
//! | `client_body` | the request's body as the client sends it, and the rest of one that nobody reads |
//!
//! Each worker has pools of its own: taking a connection out and putting it back needs no lock and wakes no other
//! thread. A connection comes back only when a response has been read to its end over it and the request had been
//! sent to its end; everything else closes it, there and then: what a client has yet to send of a request that is
//! answered is not waited for. (Of an HTTP/2 connection, which many requests share, it is the stream that is closed.)
//!
//! What is sent again, and when, is [`forward`](crate::proxy)'s to decide; what this module knows is whether there is
//! another server to send it to, and whether the budget allows it.

mod balance;
mod body;
mod budget;
mod client_body;
mod endpoint;
mod gateway_headers;
mod health;
mod incoming;
mod link;
mod patience;
mod pool;
mod probe;
mod queue;
mod report;
mod resolve;
mod stream;
mod target;
pub(crate) mod wire;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ServerAddress, UpstreamConfig, UpstreamTls};
use budget::Budget;
use endpoint::Endpoint;
use health::HealthCheck;
use resolve::Targets;

pub(crate) use body::BodyProgress;
pub use body::{Pace, RequestBody, RequestBodyError};
pub use client_body::{ClientBody, UnreadBody};
pub use gateway_headers::GatewayHeaders;
pub(crate) use incoming::{Incoming, SendError};
pub use incoming::{IncomingError, RequestSender};
pub use pool::{ConnectError, Connection, Lease, Pool};
pub(crate) use probe::reach;
pub use report::{ServerReport, UpstreamReport};

/// An upstream, shared by all workers. What runs for it in the background ends with it.
#[derive(Debug)]
pub struct Upstream {
    config: UpstreamConfig,
    targets: Arc<Targets>,
    budget: Budget,
    queued: AtomicUsize,
    retries: AtomicU64,
    retries_denied: AtomicU64,
    background: OnceLock<[Option<AbortOnDropHandle<()>>; 2]>,
    /// The servers among its own that run in this process. They live as long as a request may still be sent to them, also
    /// one that began before a reload.
    local: Vec<LocalServer>,
}

/// A server that runs in this process for one upstream, such as the demo app.
#[derive(Debug)]
pub struct LocalServer {
    /// Its address.
    pub address: SocketAddr,
    /// Keeps it running until this is dropped.
    pub running: Box<dyn RunningServer>,
}

/// Something that runs until it is dropped.
pub trait RunningServer: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> RunningServer for T {}

impl Upstream {
    /// Returns an upstream whose servers have not been contacted. `local` are those that run in this process, in the order
    /// of its servers.
    ///
    /// # Errors
    /// If it needs the system's certificate authorities and there are none, or its own certificate is not usable.
    pub fn new(config: UpstreamConfig, local: Vec<LocalServer>) -> io::Result<Arc<Self>> {
        let addresses: Vec<_> = local.iter().map(|server| server.address).collect();
        let endpoints = endpoints(&config, &addresses)?;
        Ok(Arc::new(Self {
            targets: Arc::new(Targets::new(&config.name, endpoints, config.max_connections)),
            budget: Budget::new(config.retries.budget),
            queued: AtomicUsize::new(0),
            retries: AtomicU64::new(0),
            retries_denied: AtomicU64::new(0),
            background: OnceLock::new(),
            local,
            config,
        }))
    }

    /// Returns whether one of its servers runs in this process.
    pub fn has_local_server(&self) -> bool {
        !self.local.is_empty()
    }

    /// Looks its names up, for no longer than a connection may take, and goes on with that and with health checks on
    /// the runtime that this is called on. A name that has no address yet is no error: it may have one later.
    pub async fn start(self: &Arc<Self>) {
        let mut failing = vec![false; self.targets.servers()];
        let named = self.config.servers.iter().any(crate::config::UpstreamServer::is_named);
        if named {
            let first = self.targets.look_up_all(&mut failing);
            if tokio::time::timeout(self.config.connect_timeout, first).await.is_err() {
                tracing::warn!(upstream = %self.config.name, "names are still being looked up");
            }
        }
        let targets = Arc::downgrade(&self.targets);
        let resolving =
            named.then(|| tokio::spawn(resolve::run(targets.clone(), self.config.resolve, failing)));
        let checking = self.config.health.clone().map(|health| {
            let (upstream, connect_timeout) = (self.config.name.clone(), self.config.connect_timeout);
            tokio::spawn(health::run(targets, HealthCheck { upstream, connect_timeout, health }))
        });
        // Started once: whoever comes second finds it done, and its own tasks end here.
        let _ = self.background.set([resolving, checking].map(|task| task.map(AbortOnDropHandle::new)));
    }

    /// What it was made of.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// How it stands.
    pub fn report(&self) -> UpstreamReport {
        UpstreamReport::of(self)
    }

    /// There is a request.
    pub(crate) fn count_request(&self) {
        self.budget.deposit();
    }

    /// Whether the budget allows a retry, which is then counted.
    pub(crate) fn allows_retry(&self) -> bool {
        let allowed = self.budget.withdraw();
        let count = if allowed { &self.retries } else { &self.retries_denied };
        count.fetch_add(1, Relaxed);
        allowed
    }
}

/// What keeps a client without a session with the server that it is with.
pub(crate) fn affinity(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => balance::hash(&address.octets()),
        IpAddr::V6(address) => balance::hash(&address.octets()),
    }
}

fn endpoints(config: &UpstreamConfig, local: &[SocketAddr]) -> io::Result<Vec<Arc<Endpoint>>> {
    let tls = config.tls.as_ref().map(client).transpose()?;
    let mut local = local.iter().copied();
    let endpoints = config.servers.iter().filter_map(|server| {
        let demo = matches!(server.address, ServerAddress::Demo).then(|| local.next()).flatten();
        Endpoint::new(config, server, demo, tls.as_ref()).map(Arc::new)
    });
    Ok(endpoints.collect())
}

fn client(tls: &UpstreamTls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let believed = match &tls.authorities {
        Some(authorities) => authorities.clone(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(believed);
    if roots.is_empty() {
        return Err(io::Error::other("the system has no certificate authorities; set `tls.ca`"));
    }
    tls.client(roots).map_err(io::Error::other)
}
