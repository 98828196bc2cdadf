//! `[upstreams.NAME]`

mod server;
mod status;
mod tls;

use std::path::Path;
use std::time::Duration;

use super::environment::Environment;
use super::section::Section;
use super::value::{Fault, duration, integer, number, one_of, text};

pub use server::{Scheme, ServerAddress, UpstreamServer};
pub use status::StatusRanges;
pub use tls::{ClientIdentity, UpstreamTls};

/// `[upstreams.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// The upstream's name.
    pub name: String,
    /// The servers, at least one.
    pub servers: Vec<UpstreamServer>,
    /// The load balancing method.
    pub balance: BalanceMethod,
    /// The protocol for servers over TLS and Unix sockets.
    pub protocol: UpstreamProtocol,
    /// Timeout for connecting to a server, TLS handshake included.
    pub connect_timeout: Duration,
    /// Timeout for the response head, and for each further piece of the body.
    pub response_timeout: Duration,
    /// Maximum idle connections to each server, per worker.
    pub keep_alive: usize,
    /// Timeout after which an idle connection is closed.
    pub idle_timeout: Duration,
    /// Maximum concurrent requests to each server, over all workers. `None` means no limit.
    pub max_connections: Option<usize>,
    /// The queue of requests that wait while every server has `max_connections`.
    pub queue: Queue,
    /// Interval of DNS lookups.
    pub resolve: Duration,
    /// Retries of failed requests.
    pub retries: Retries,
    /// Active health checks. `None` turns them off.
    pub health: Option<Health>,
    /// Ejection of failing servers. `None` turns it off.
    pub ejection: Option<Ejection>,
    /// TLS settings. `Some` if a server is reached over TLS.
    pub tls: Option<UpstreamTls>,
}

/// A load balancing method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalanceMethod {
    /// Weighted round robin.
    RoundRobin,
    /// The server with the fewest requests in flight relative to its weight.
    LeastConnections,
    /// Power of two choices: of two servers drawn at random by weight, the one with fewer requests in flight relative
    /// to its weight.
    RandomTwo,
    /// Always the same server for a session, or for a client's address if there is no session.
    Sticky,
}

/// The protocol for servers whose URL allows more than one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// Over TLS, the one that ALPN selects; over a Unix socket, HTTP/1.1.
    Auto,
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// `[upstreams.NAME.queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Maximum number of waiting requests, over all workers.
    pub size: usize,
    /// Timeout for a waiting request.
    pub timeout: Duration,
}

/// `[upstreams.NAME.retries]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retries {
    /// Maximum attempts of a request, the first included.
    pub attempts: u32,
    /// Maximum ratio of retries to requests in the long run.
    pub budget: f64,
}

/// `[upstreams.NAME.health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The request target of checks.
    pub path: String,
    /// The Host of checks. `None` uses the server's own name.
    pub host: Option<String>,
    /// Interval of checks.
    pub interval: Duration,
    /// Timeout for the response to a check.
    pub timeout: Duration,
    /// Consecutive successes after which an unhealthy server is healthy.
    pub healthy: u32,
    /// Consecutive failures after which a healthy server is unhealthy.
    pub unhealthy: u32,
    /// The statuses that count as success.
    pub status: StatusRanges,
}

/// `[upstreams.NAME.ejection]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Consecutive failures after which a server is ejected.
    pub failures: u32,
    /// The duration of a first ejection. It doubles with each ejection that soon follows another.
    pub period: Duration,
    /// The statuses that count as failures.
    pub status: StatusRanges,
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Vec<UpstreamConfig> {
    root.named("upstreams", |name, upstream| {
        let connect_timeout = upstream.get("connect_timeout", timeout());
        let response_timeout = upstream.get("response_timeout", timeout());
        let keep_alive = upstream.get("keep_alive", integer(0..=4096));
        let idle_timeout = upstream.get("idle_timeout", timeout());
        let balance = upstream.get(
            "balance",
            one_of(&[
                ("round_robin", BalanceMethod::RoundRobin),
                ("least_connections", BalanceMethod::LeastConnections),
                ("random_two", BalanceMethod::RandomTwo),
                ("sticky", BalanceMethod::Sticky),
            ]),
        );
        let protocols = [
            ("auto", UpstreamProtocol::Auto),
            ("http1", UpstreamProtocol::Http1),
            ("http2", UpstreamProtocol::Http2),
        ];
        let protocol = upstream.get("protocol", one_of(&protocols));
        let max_connections = upstream.get("max_connections", integer(0..=100_000)).filter(|most| *most > 0);
        let resolve = upstream.get("resolve", duration(Duration::from_secs(1)..=Duration::from_hours(24)));
        let queue = queue(upstream, max_connections.is_some());
        let retries = retries(upstream);
        let health = health(upstream);
        let ejection = ejection(upstream);
        let tls = tls::read(upstream, directory, environment);
        if !upstream.has("servers") {
            upstream.refuse("servers", &["servers"], Fault::new("is missing"));
        }
        let servers = upstream.list("servers", server::read)?;
        if servers.is_empty() {
            upstream.refuse("servers", &[], Fault::new("must name at least one server"));
        }
        refuse_settings_without_effect(upstream, &servers);
        let is_tls = servers.iter().any(UpstreamServer::is_tls);
        Some(UpstreamConfig {
            name: name.to_owned(),
            servers,
            balance: balance.unwrap_or(BalanceMethod::RoundRobin),
            protocol: protocol.unwrap_or(UpstreamProtocol::Auto),
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(2)),
            response_timeout: response_timeout.unwrap_or(Duration::from_mins(1)),
            keep_alive: keep_alive.unwrap_or(64),
            // Below the 5 s after which common app servers close idle connections, to avoid a race with a request.
            idle_timeout: idle_timeout.unwrap_or(Duration::from_secs(4)),
            max_connections,
            queue,
            resolve: resolve.unwrap_or(Duration::from_secs(30)),
            retries,
            health,
            ejection,
            tls: is_tls.then(|| tls.unwrap_or_default()),
        })
    })
}

/// Parses a timeout.
fn timeout() -> impl Fn(&toml::de::DeValue<'_>) -> Result<Duration, Fault> {
    duration(Duration::from_millis(1)..=Duration::from_hours(24))
}

/// Rejects settings that no server of the upstream uses.
fn refuse_settings_without_effect(upstream: &mut Section<'_, '_>, servers: &[UpstreamServer]) {
    if !servers.iter().any(UpstreamServer::is_tls) {
        let fault = Fault::new("has no effect: no server is reached over TLS");
        if upstream.has("tls") {
            upstream.refuse("tls", &[], fault.hint("use a server URL such as \"https://host:port\""));
        }
    }
    if upstream.has("protocol") && !servers.iter().any(UpstreamServer::has_protocol_choice) {
        let fault = Fault::new("has no effect: the servers' URLs determine the protocol");
        upstream.refuse("protocol", &[], fault.hint("\"http://\" is HTTP/1.1, \"h2c://\" is HTTP/2"));
    }
    if upstream.has("resolve") && !servers.iter().any(UpstreamServer::has_host_name) {
        upstream.refuse("resolve", &[], Fault::new("has no effect: no server has a host name to look up"));
    }
}

fn queue(upstream: &mut Section<'_, '_>, bounded: bool) -> Queue {
    if upstream.has("queue") && !bounded {
        let fault = Fault::new("has no effect without `max_connections`");
        upstream.refuse("queue", &["max_connections"], fault);
    }
    upstream.table("queue", |queue| Queue {
        size: queue.get("size", integer(0..=100_000)).unwrap_or(100),
        timeout: queue.get("timeout", timeout()).unwrap_or(Duration::from_secs(1)),
    })
}

fn retries(upstream: &mut Section<'_, '_>) -> Retries {
    upstream.table("retries", |retries| {
        let attempts = retries.get("attempts", integer(1..=10)).unwrap_or(2);
        let budget = retries.get("budget", number(0.001..=1.0));
        if attempts == 1 && retries.has("budget") {
            let fault = Fault::new("has no effect: with `attempts = 1` there are no retries");
            retries.refuse("budget", &[], fault);
        }
        Retries { attempts, budget: budget.unwrap_or(0.2) }
    })
}

fn health(upstream: &mut Section<'_, '_>) -> Option<Health> {
    upstream.table("health", |health| {
        let path = health.require("path", text(path));
        let host = health.get("host", text(host));
        let interval = health
            .get("interval", duration(Duration::from_millis(100)..=Duration::from_hours(1)))
            .unwrap_or(Duration::from_secs(5));
        let timeout = health.get("timeout", timeout()).unwrap_or(Duration::from_secs(2).min(interval));
        if timeout > interval {
            let fault = Fault::new("must not be longer than `interval`");
            health.refuse_or("timeout", "interval", &["interval"], fault);
        }
        let healthy = health.get("healthy", integer(1..=100)).unwrap_or(2);
        let unhealthy = health.get("unhealthy", integer(1..=100)).unwrap_or(3);
        let status = health.get("status", text(status::read)).unwrap_or_else(StatusRanges::success);
        Some(Health { path: path?, host, interval, timeout, healthy, unhealthy, status })
    })
}

fn ejection(upstream: &mut Section<'_, '_>) -> Option<Ejection> {
    upstream.table("ejection", |ejection| {
        let failures = ejection.get("failures", integer(0..=1000)).unwrap_or(5);
        let period = ejection.get("for", duration(Duration::from_millis(100)..=Duration::from_hours(1)));
        let status = ejection.get("status", text(status::read)).unwrap_or_default();
        if failures == 0 {
            for key in ["for", "status"].into_iter().filter(|key| ejection.has(key)).collect::<Vec<_>>() {
                let fault = Fault::new("has no effect: with `failures = 0` no server is ejected");
                ejection.refuse(key, &[], fault);
            }
            return None;
        }
        Some(Ejection { failures, period: period.unwrap_or(Duration::from_secs(10)), status })
    })
}

/// Parses a request target: a path with an optional query.
fn path(text: &str) -> Result<String, Fault> {
    let target = text.parse::<http::uri::PathAndQuery>().ok();
    let is_valid = text.starts_with('/') && !text.contains('#') && target.is_some();
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(Fault::new("must be a path").hint("for example \"/healthz\""))
    }
}

fn host(text: &str) -> Result<String, Fault> {
    let authority = text.parse::<http::uri::Authority>().ok().filter(|_| !text.contains('@'));
    let fault = || Fault::new("must be a host with an optional port").hint("for example \"app.internal\"");
    authority.map(|_| text.to_owned()).ok_or_else(fault)
}
