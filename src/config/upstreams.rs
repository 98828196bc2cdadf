//! `[upstreams.NAME]`

use std::net::Ipv6Addr;
use std::time::Duration;

use super::section::Section;
use super::value::{Fault, duration, integer, text};

/// `[upstreams.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// Its name.
    pub name: String,
    /// At least one.
    pub servers: Vec<Server>,
    /// The limit of opening a connection.
    pub connect_timeout: Duration,
    /// The limit from sending a request's head to receiving the response's.
    pub response_timeout: Duration,
    /// Idle connections kept to each server, by each worker.
    pub keep_alive: usize,
    /// How long one is kept idle.
    pub idle_timeout: Duration,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// `http://host:port`: the host and port to connect to.
    Http {
        /// A name or an address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `builtin:demo`: the demo app, run by the gateway itself on a loopback port.
    Demo,
}

pub(super) fn read(root: &mut Section<'_, '_>) -> Vec<UpstreamConfig> {
    root.named("upstreams", |name, upstream| {
        let limit = || duration(Duration::from_millis(1)..=Duration::from_hours(24));
        let connect_timeout = upstream.get("connect_timeout", limit());
        let response_timeout = upstream.get("response_timeout", limit());
        let keep_alive = upstream.get("keep_alive", integer(0..=4096));
        let idle_timeout = upstream.get("idle_timeout", limit());
        if !upstream.has("servers") {
            upstream.refuse("servers", Fault::new("is missing"));
        }
        let servers = upstream.list("servers", text(server))?;
        if servers.is_empty() {
            upstream.refuse("servers", Fault::new("must name at least one server"));
        }
        Some(UpstreamConfig {
            name: name.to_owned(),
            servers,
            connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(2)),
            response_timeout: response_timeout.unwrap_or(Duration::from_secs(60)),
            keep_alive: keep_alive.unwrap_or(64),
            // Below the 5 s after which the usual app servers close, so that they do not close under a request.
            idle_timeout: idle_timeout.unwrap_or(Duration::from_secs(4)),
        })
    })
}

fn server(text: &str) -> Result<Server, Fault> {
    let fault = || Fault::new("must be a server's URL").hint("such as \"http://127.0.0.1:8000\"");
    if text == "builtin:demo" {
        return Ok(Server::Demo);
    }
    if text.starts_with("https://") || text.starts_with("unix:") {
        return Err(Fault::new("is of a kind that sessiongate does not support yet")
            .hint("servers are reached over plain HTTP: \"http://host:port\""));
    }
    let authority = text.strip_prefix("http://").ok_or_else(fault)?;
    if authority.contains('@') {
        return Err(Fault::new("must not hold a user or a password"));
    }
    if authority.contains(['/', '?', '#']) {
        let bare = authority.split(['/', '?', '#']).next().unwrap_or_default();
        return Err(Fault::new("must not have a path or a query: requests are forwarded with their own")
            .hint(format!("write \"http://{bare}\"")));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(fault)?;
            host.parse::<Ipv6Addr>().map_err(|_| fault())?;
            (host, port)
        }
        None => {
            let colon = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(colon).ok_or_else(fault)?;
            if !is_host(host) {
                return Err(fault());
            }
            (host, port)
        }
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 80,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or_else(fault)?
        }
        Some(_) | None => return Err(fault()),
    };
    Ok(Server::Http { host: host.to_ascii_lowercase(), port })
}

/// A name or an IPv4 address. Names of containers and services often hold `_`.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}
