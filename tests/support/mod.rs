//! The test harness: it runs the built gateway as a process of its own. The peers of the gateway run in the test's process:
//! clients, upstreams, and a table that counts every operation and fails on demand.
//!
//! Its rules: only loopback addresses and port 0; no sleep as synchronisation (a test waits for an event or opens a
//! [`gate::Gate`]); and every wait has a deadline, so that a defect makes a test fail and never hang.
#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails, and what is printed is shown with it"
)]

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod engine;
pub(crate) mod gate;
pub(crate) mod gateway;
pub(crate) mod http1;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod ministack;
pub(crate) mod packages;
pub(crate) mod program;
pub(crate) mod raw_http2;
pub(crate) mod request_streams;
pub(crate) mod script;
pub(crate) mod scripted_response;
pub(crate) mod server;
pub(crate) mod session_commands;
pub(crate) mod table;
pub(crate) mod tls;
pub(crate) mod upstream;
pub(crate) mod websocket;

use std::future::Future;
use std::time::Duration;

/// Timeout for each wait of a test. It is long because the machine may be busy; a passing test never waits for it to pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits `future`, and fails the test if it takes longer than [`DEADLINE`].
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took longer than {DEADLINE:?}"),
    }
}

/// Evaluates `condition` until it holds, and fails the test if that takes longer than [`DEADLINE`]. For changes of the
/// gateway that it does not announce. It yields to other tasks between evaluations and does not sleep.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    within(what, async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
