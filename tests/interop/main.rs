//! The gateway before real apps: each framework writes its own sessions, and the gateway reads and writes them too.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod django;
mod express;
mod flask;
mod pyramid;
mod websocket;
