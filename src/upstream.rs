//! The servers behind the gateway, and the connections to them.
//!
//! Each worker has pools of its own: taking a connection out and putting it back needs no lock and wakes no other
//! thread. A connection comes back only when a response has been read to its end over it and the request had been
//! sent to its end; everything else closes it, there and then: what a client has yet to send of a request that is
//! answered is not waited for.

mod body;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use crate::time::Clock;

pub(crate) use body::Progress;
pub use body::{Pace, RequestBody, RequestBodyError};

/// An upstream, resolved. Shared by all workers.
#[derive(Debug)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its servers, at least one.
    pub servers: Vec<Endpoint>,
    /// The limit of opening a connection.
    pub connect_timeout: Duration,
    /// The limit of waiting for a response's head, and for each piece of its body.
    pub response_timeout: Duration,
    /// Idle connections kept to each server.
    pub keep_alive: usize,
    /// How long one is kept.
    pub idle_timeout: Duration,
}

/// One server.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Both, for logs.
    pub label: Arc<str>,
}

impl Endpoint {
    /// The server at `host` and `port`.
    pub fn new(host: &str, port: u16) -> Self {
        let label = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        Self { host: host.to_owned(), port, label: label.into() }
    }
}

/// A worker's connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    upstream: Arc<Upstream>,
    /// Per server, the one used last at the back.
    idle: Vec<RefCell<VecDeque<Idle>>>,
    next: Cell<usize>,
}

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// An open connection. It is closed when this is dropped.
#[derive(Debug)]
struct Link {
    sender: SendRequest<RequestBody>,
    _task: AbortOnDropHandle<()>,
}

/// A connection in use.
#[derive(Debug)]
pub struct Connection {
    lease: Lease,
    reused: bool,
}

/// A connection that may be used again.
#[derive(Debug)]
pub struct Lease {
    link: Link,
    pool: Rc<Pool>,
    server: usize,
}

/// No server took a connection.
#[derive(Debug, thiserror::Error)]
#[error("upstream `{upstream}`: {server}: {reason}")]
pub struct ConnectError {
    upstream: String,
    server: Arc<str>,
    reason: String,
}

impl Pool {
    /// An empty pool. `worker` spreads the first turns of the workers over the servers.
    pub fn new(upstream: &Arc<Upstream>, worker: usize) -> Rc<Self> {
        let idle = upstream.servers.iter().map(|_| RefCell::default()).collect();
        Rc::new(Self { upstream: Arc::clone(upstream), idle, next: Cell::new(worker) })
    }

    /// The upstream.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A connection to the server whose turn it is; if it takes none, to the next that does.
    ///
    /// # Errors
    /// If no server takes one.
    pub async fn connect(self: &Rc<Self>) -> Result<Connection, ConnectError> {
        let count = self.upstream.servers.len();
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        let mut failed = None;
        for server in (0..count).map(|step| turn.wrapping_add(step) % count) {
            if let Some(link) = self.take(server).await {
                return Ok(Connection { lease: self.lease(link, server), reused: true });
            }
            match self.open(server).await {
                Ok(link) => return Ok(Connection { lease: self.lease(link, server), reused: false }),
                Err(reason) => {
                    tracing::warn!(upstream = %self.upstream.name, server = %self.label(server), %reason, "no connection");
                    failed = Some((server, reason));
                }
            }
        }
        let (server, reason) = failed.unwrap_or((0, "there is no server".to_owned()));
        let (upstream, server) = (self.upstream.name.clone(), self.label(server));
        Err(ConnectError { upstream, server, reason })
    }

    fn lease(self: &Rc<Self>, link: Link, server: usize) -> Lease {
        Lease { link, pool: Rc::clone(self), server }
    }

    fn label(&self, server: usize) -> Arc<str> {
        self.upstream.servers.get(server).map_or_else(|| "".into(), |endpoint| Arc::clone(&endpoint.label))
    }

    /// An idle connection that is still open.
    async fn take(&self, server: usize) -> Option<Link> {
        let idle = self.idle.get(server)?;
        loop {
            let Idle { mut link, since } = idle.borrow_mut().pop_back()?;
            if Clock.mono().saturating_duration_since(since) > self.upstream.idle_timeout {
                // The others have been idle for longer.
                idle.borrow_mut().clear();
                return None;
            }
            // Ready at once but for the moment between the end of a response and its connection's next turn.
            // A server that has answered without reading all of the last request may keep it from ever getting there.
            let ready = tokio::time::timeout(self.upstream.connect_timeout, link.sender.ready()).await;
            if matches!(ready, Ok(Ok(()))) {
                return Some(link);
            }
        }
    }

    async fn open(&self, server: usize) -> Result<Link, String> {
        let endpoint = self.upstream.servers.get(server).ok_or("there is no such server")?;
        let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
        let stream = match tokio::time::timeout(self.upstream.connect_timeout, connecting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("no connection within {:?}", self.upstream.connect_timeout)),
        };
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(Link { sender, _task: AbortOnDropHandle::new(task) })
    }

    /// Closes what has been idle for too long.
    pub fn sweep(&self, now: Instant) {
        for idle in &self.idle {
            idle.borrow_mut().retain(|idle| {
                !idle.link.sender.is_closed()
                    && now.saturating_duration_since(idle.since) <= self.upstream.idle_timeout
            });
        }
    }
}

impl Connection {
    /// What sends requests over it.
    pub fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.lease.link.sender
    }

    /// Whether it has carried a request before.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The server, for logs.
    pub fn server(&self) -> Arc<str> {
        self.lease.pool.label(self.lease.server)
    }

    /// What puts it back.
    pub fn into_lease(self) -> Lease {
        self.lease
    }
}

impl Lease {
    /// Puts the connection back.
    pub fn release(self) {
        let Self { link, pool, server } = self;
        if link.sender.is_closed() {
            return;
        }
        if let Some(idle) = pool.idle.get(server) {
            let mut idle = idle.borrow_mut();
            if idle.len() >= pool.upstream.keep_alive {
                idle.pop_front();
            }
            if pool.upstream.keep_alive > 0 {
                idle.push_back(Idle { link, since: Clock.mono() });
            }
        }
    }
}
