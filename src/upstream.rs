//! The upstream servers and the connections to them.
//!
//! | file | holds |
//! | --- | --- |
//! | `endpoint`, `target` | a configured server; each of its addresses, with the state that all workers share |
//! | `resolve`, `health` | name lookups and health checks, on the control runtime |
//! | `balance`, `queue`, `budget` | load balancing, the queue for busy servers, the retry budget |
//! | `pool`, `slot`, `link`, `stream` | a worker's connections to an upstream and to a server of it, HTTP over them, the transport below HTTP |
//! | `connect_error` | the reasons why a request gets no connection |
//! | `http1` | an HTTP/1.1 client connection |
//! | `response_timeout` | the timeout for a response head |
//! | `gateway_headers`, `body`, `incoming` | headers that the gateway adds, the request body, the response body |
//! | `client_body` | the request body as received from the client, and its unread rest |
//!
//! Each worker has its own pools: taking a connection and returning it needs no lock and wakes no other thread. An
//! HTTP/1.1 connection is returned only when the request was sent and the response was read completely. Otherwise it is
//! closed at once, without waiting for the rest of the client's request. With HTTP/2, only the stream is closed.
//!
//! [`forward`](crate::proxy) decides whether a request may be retried. This module knows whether another server is
//! available and whether the retry budget allows a retry.

mod balance;
mod body;
mod budget;
mod client_body;
mod connect_error;
mod endpoint;
mod gateway_headers;
mod health;
pub(crate) mod http1;
mod incoming;
mod link;
mod pool;
mod probe;
mod queue;
mod report;
mod resolve;
mod response_timeout;
mod slot;
mod stream;
mod target;

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
pub use body::{MinBodyRate, RequestBody, RequestBodyError};
pub(crate) use client_body::BodyReader;
pub use client_body::{ClientBody, ClientBodyError, UnreadBody};
pub use connect_error::ConnectError;
pub use gateway_headers::GatewayHeaders;
pub(crate) use incoming::{Incoming, SendError};
pub use incoming::{IncomingError, RequestSender};
pub use pool::{Connection, Lease, Pool};
pub(crate) use probe::try_connect;
pub use report::{ServerReport, UpstreamReport};

/// An upstream, shared by all workers. Dropping it ends its background tasks.
#[derive(Debug)]
pub struct Upstream {
    config: UpstreamConfig,
    targets: Arc<Targets>,
    budget: Budget,
    queued: AtomicUsize,
    retries: AtomicU64,
    retries_denied: AtomicU64,
    background: OnceLock<[Option<AbortOnDropHandle<()>>; 2]>,
    /// The servers that run in this process. They run until the upstream is dropped, so that requests that began before a
    /// reload still reach them.
    local: Vec<LocalServer>,
}

/// A server of an upstream that runs in this process, such as the demo app.
#[derive(Debug)]
pub struct LocalServer {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// Stops the server when dropped.
    pub running: Box<dyn RunningServer>,
}

/// A handle that stops a server when dropped.
pub trait RunningServer: fmt::Debug + Send + Sync {}

impl<T: fmt::Debug + Send + Sync> RunningServer for T {}

impl Upstream {
    /// Creates an upstream without contacting its servers. `local` are the servers in this process, in the order of the
    /// configuration.
    ///
    /// # Errors
    /// Returns an error if the upstream needs the system's certificate authorities and the system has none, or if its
    /// client certificate cannot be used.
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

    /// Returns whether a server of this upstream runs in this process.
    pub fn has_local_server(&self) -> bool {
        !self.local.is_empty()
    }

    /// Looks up the servers' host names once, within the connect timeout, and starts periodic lookups and health checks
    /// on the current runtime. A name without an address is not an error, since it may get one later.
    pub async fn start(self: &Arc<Self>) {
        let mut failing = vec![false; self.targets.servers()];
        let named = self.config.servers.iter().any(crate::config::UpstreamServer::has_host_name);
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
        // On a second call, the new tasks are dropped here, which ends them.
        let _ = self.background.set([resolving, checking].map(|task| task.map(AbortOnDropHandle::new)));
    }

    /// Returns the configuration.
    pub fn config(&self) -> &UpstreamConfig {
        &self.config
    }

    /// Returns the current state.
    pub fn report(&self) -> UpstreamReport {
        UpstreamReport::new(self)
    }

    /// Adds to the retry budget for a new request.
    pub(crate) fn count_request(&self) {
        self.budget.deposit();
    }

    /// Withdraws a retry from the budget. Returns `false` if the budget is exhausted.
    pub(crate) fn allows_retry(&self) -> bool {
        let allowed = self.budget.withdraw();
        let count = if allowed { &self.retries } else { &self.retries_denied };
        count.fetch_add(1, Relaxed);
        allowed
    }
}

/// Returns the affinity key of a client without a session, for
/// [`BalanceMethod::Sticky`](crate::config::BalanceMethod).
pub(crate) fn affinity(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => balance::hash(&address.octets()),
        IpAddr::V6(address) => balance::hash(&address.octets()),
    }
}

fn endpoints(config: &UpstreamConfig, local: &[SocketAddr]) -> io::Result<Vec<Arc<Endpoint>>> {
    let tls = config.tls.as_ref().map(tls_client).transpose()?;
    let mut local = local.iter().copied();
    let endpoints = config.servers.iter().filter_map(|server| {
        let demo = matches!(server.address, ServerAddress::Demo).then(|| local.next()).flatten();
        Endpoint::new(config, server, demo, tls.as_ref()).map(Arc::new)
    });
    Ok(endpoints.collect())
}

fn tls_client(tls: &UpstreamTls) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authorities = match &tls.authorities {
        Some(authorities) => authorities.clone(),
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(authorities);
    if roots.is_empty() {
        return Err(io::Error::other("the system has no certificate authorities; set `tls.ca`"));
    }
    tls.client(roots).map_err(io::Error::other)
}
