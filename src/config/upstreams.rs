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
    /// Its name.
    pub name: String,
    /// At least one.
    pub servers: Vec<UpstreamServer>,
    /// How a request gets to one of them.
    pub balance: BalanceMethod,
    /// What is spoken where that can be chosen: over TLS, and over Unix sockets.
    pub protocol: UpstreamProtocol,
    /// The limit of opening a connection.
    pub connect_timeout: Duration,
    /// The limit from sending a request's head to receiving the response's.
    pub response_timeout: Duration,
    /// Idle connections kept to each server, by each worker.
    pub keep_alive: usize,
    /// How long one is kept idle.
    pub idle_timeout: Duration,
    /// Requests that each server is sent at a time, by all workers together; none: any number.
    pub max_connections: Option<usize>,
    /// `queue`: those that wait while every server has its most.
    pub queue: Queue,
    /// How often names are looked up.
    pub resolve: Duration,
    /// `retries`
    pub retries: Retries,
    /// `health`; none: servers are not asked.
    pub health: Option<Health>,
    /// `ejection`; none: servers that fail stay in.
    pub ejection: Option<Ejection>,
    /// `tls`; there where a server is reached over TLS.
    pub tls: Option<UpstreamTls>,
}

/// How a request gets to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalanceMethod {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastConnections,
    /// Of two at random, the one with fewer.
    RandomTwo,
    /// Always the same one for a session; without one, for a client's address.
    Sticky,
}

/// What is spoken to servers that leave a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// Over TLS what the server prefers of both; over a Unix socket HTTP/1.1.
    Auto,
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
}

/// `[upstreams.NAME.queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many requests may wait, of all workers together.
    pub size: usize,
    /// How long one waits.
    pub timeout: Duration,
}

/// `[upstreams.NAME.retries]`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retries {
    /// How often a request is sent, the first time included.
    pub attempts: u32,
    /// Retries for each request, in the long run.
    pub budget: f64,
}

/// `[upstreams.NAME.health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked for.
    pub path: String,
    /// The Host that is asked; none: the server's own.
    pub host: Option<String>,
    /// How often.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// After so many good answers a server that was out is in.
    pub healthy: u32,
    /// After so many others one that was in is out.
    pub unhealthy: u32,
    /// What is good.
    pub status: StatusRanges,
}

/// `[upstreams.NAME.ejection]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// After so many failures in a row a server is out.
    pub failures: u32,
    /// For this long at first; each time that follows upon the last, for twice as long.
    pub period: Duration,
    /// Answers that are failures too.
    pub status: StatusRanges,
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Vec<UpstreamConfig> {
    root.named("upstreams", |name, upstream| {
        let connect_timeout = upstream.get("connect_timeout", limit());
        let response_timeout = upstream.get("response_timeout", limit());
        let keep_alive = upstream.get("keep_alive", integer(0..=4096));
        let idle_timeout = upstream.get("idle_timeout", limit());
        let balance = upstream.get(
            "balance",
            one_of(&[
                ("round_robin", BalanceMethod::RoundRobin),
                ("least_connections", BalanceMethod::LeastConnections),
                ("random_two", BalanceMethod::RandomTwo),
                ("sticky", BalanceMethod::Sticky),
            ]),
        );
        let words = [
            ("auto", UpstreamProtocol::Auto),
            ("http1", UpstreamProtocol::Http1),
            ("http2", UpstreamProtocol::Http2),
        ];
        let protocol = upstream.get("protocol", one_of(&words));
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
        refuse_useless(upstream, &servers);
        let is_tls = servers.iter().any(UpstreamServer::is_tls);
        Some(UpstreamConfig {
            name: name.to_owned(),
            servers,
            balance: balance.unwrap_or(BalanceMethod::RoundRobin),
            protocol: protocol.unwrap_or(UpstreamProtocol::Auto),
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(2)),
            response_timeout: response_timeout.unwrap_or(Duration::from_mins(1)),
            keep_alive: keep_alive.unwrap_or(64),
            // Below the 5 s after which the usual app servers close, so that they do not close under a request.
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

/// What a wait may be limited to.
fn limit() -> impl Fn(&toml::de::DeValue<'_>) -> Result<Duration, Fault> {
    duration(Duration::from_millis(1)..=Duration::from_hours(24))
}

/// Settings of what no server of the upstream does.
fn refuse_useless(upstream: &mut Section<'_, '_>, servers: &[UpstreamServer]) {
    if !servers.iter().any(UpstreamServer::is_tls) {
        let fault = Fault::new("is of no use: no server is reached over TLS");
        if upstream.has("tls") {
            upstream.refuse("tls", &[], fault.hint("\"https://host:port\" is"));
        }
    }
    if upstream.has("protocol") && !servers.iter().any(UpstreamServer::leaves_protocol_open) {
        let fault = Fault::new("is of no use: the servers' URLs say what is spoken");
        upstream.refuse("protocol", &[], fault.hint("\"http://\" is HTTP/1.1, \"h2c://\" is HTTP/2"));
    }
    if upstream.has("resolve") && !servers.iter().any(UpstreamServer::is_named) {
        upstream.refuse("resolve", &[], Fault::new("is of no use: no server has a name to look up"));
    }
}

fn queue(upstream: &mut Section<'_, '_>, bounded: bool) -> Queue {
    if upstream.has("queue") && !bounded {
        let fault = Fault::new("is of no use: without `max_connections` no request waits");
        upstream.refuse("queue", &["max_connections"], fault);
    }
    upstream.table("queue", |queue| Queue {
        size: queue.get("size", integer(0..=100_000)).unwrap_or(100),
        timeout: queue.get("timeout", limit()).unwrap_or(Duration::from_secs(1)),
    })
}

fn retries(upstream: &mut Section<'_, '_>) -> Retries {
    upstream.table("retries", |retries| {
        let attempts = retries.get("attempts", integer(1..=10)).unwrap_or(2);
        let budget = retries.get("budget", number(0.001..=1.0));
        if attempts == 1 && retries.has("budget") {
            let fault = Fault::new("is of no use: with one attempt there is no retry");
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
        let timeout = health.get("timeout", limit()).unwrap_or(Duration::from_secs(2).min(interval));
        if timeout > interval {
            let fault = Fault::new("is longer than `interval`");
            health.refuse_or("timeout", "interval", &["interval"], fault);
        }
        let healthy = health.get("healthy", integer(1..=100)).unwrap_or(2);
        let unhealthy = health.get("unhealthy", integer(1..=100)).unwrap_or(3);
        let status = health.get("status", text(status::read)).unwrap_or_else(StatusRanges::good);
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
                let fault = Fault::new("is of no use: with `failures = 0` no server is put out");
                ejection.refuse(key, &[], fault);
            }
            return None;
        }
        Some(Ejection { failures, period: period.unwrap_or(Duration::from_secs(10)), status })
    })
}

/// A request's target: a path, perhaps with a query.
fn path(text: &str) -> Result<String, Fault> {
    let target = text.parse::<http::uri::PathAndQuery>().ok();
    let sound = text.starts_with('/') && !text.contains('#') && target.is_some();
    if sound { Ok(text.to_owned()) } else { Err(Fault::new("must be a path").hint("such as \"/healthz\"")) }
}

fn host(text: &str) -> Result<String, Fault> {
    let authority = text.parse::<http::uri::Authority>().ok().filter(|_| !text.contains('@'));
    let fault = || Fault::new("must be a host, perhaps with a port").hint("such as \"app.internal\"");
    authority.map(|_| text.to_owned()).ok_or_else(fault)
}
