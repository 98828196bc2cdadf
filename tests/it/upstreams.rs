//! Upstreams of several servers: load balancing, failures, connection limits, and each kind of server.

mod balance;
mod bounds;
mod failure;
mod kinds;
mod multiplexed;

use crate::support::gateway::{Builder, Gateway};
use crate::support::upstream::Upstream;

/// Returns a gateway with one route to these servers and further lines of the upstream.
fn gateway(servers: &[String], lines: &str) -> Builder {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let upstream = format!("[upstreams.app]\nservers = [{}]\n{lines}", servers.join(", "));
    Gateway::builder().toml(&upstream).route("/", "public", "")
}

fn url(upstream: &Upstream) -> String {
    format!("http://{}", upstream.address())
}
