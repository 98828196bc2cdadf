//! The one harness: it runs the built gateway as its own process, and around it, in the test's process, the things the
//! gateway talks to: clients, upstreams, and a table whose every operation is counted and can be made to fail.
//!
//! Its rules: loopback and port 0 only, no sleep as synchronisation (a test waits for an event or opens a [`gate::Gate`]), and
//! every wait has a deadline, so that a defect is a failed test and never a hung one.
#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, and what is printed is shown with it"
)]

pub(crate) mod answer;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod engine;
pub(crate) mod frames;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod ministack;
pub(crate) mod packages;
pub(crate) mod program;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod table;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod websocket;
pub(crate) mod wire;

use std::future::Future;
use std::time::Duration;

/// How long anything may take before the test fails. Long, since the machine may be busy; nothing waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits `future`, and fails the test if it takes longer than [`DEADLINE`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took longer than {DEADLINE:?}"),
    }
}

/// Tries until `condition` holds, and fails the test if that takes longer than [`DEADLINE`]. For what the gateway does in
/// its own time and tells nobody; the tries are real requests, so there is nothing to wait for between them.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    within(what, async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
