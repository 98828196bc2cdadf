//! Several servers behind one name: which one a request goes to, what happens when one fails, and how each kind of
//! server is reached.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "in a test, a failure is a panic")]

mod support;

#[path = "upstreams/balance.rs"]
mod balance;
#[path = "upstreams/bounds.rs"]
mod bounds;
#[path = "upstreams/failure.rs"]
mod failure;
#[path = "upstreams/kinds.rs"]
mod kinds;
#[path = "upstreams/multiplexed.rs"]
mod multiplexed;

use support::gateway::{Builder, Gateway};
use support::upstream::Upstream;

/// A gateway whose one route leads to these servers, with further lines for the upstream.
fn gateway(servers: &[String], lines: &str) -> Builder {
    let servers: Vec<_> = servers.iter().map(|server| format!("\"{server}\"")).collect();
    let upstream = format!("[upstreams.app]\nservers = [{}]\n{lines}", servers.join(", "));
    Gateway::builder().toml(&upstream).route("/", "public", "")
}

fn url(upstream: &Upstream) -> String {
    format!("http://{}", upstream.address())
}
