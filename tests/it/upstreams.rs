//! Several servers behind one name: which one a request goes to, what happens when one fails, and how each kind of
//! server is reached.

mod balance;
mod bounds;
mod failure;
mod kinds;
mod multiplexed;

use crate::support::gateway::{Builder, Gateway};
use crate::support::upstream::Upstream;

/// A gateway whose one route leads to these servers, with further lines for the upstream.
fn gateway(servers: &[String], lines: &str) -> Builder {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let upstream = format!("[upstreams.app]\nservers = [{}]\n{lines}", servers.join(", "));
    Gateway::builder().toml(&upstream).route("/", "public", "")
}

fn url(upstream: &Upstream) -> String {
    format!("http://{}", upstream.address())
}
