//! The gateway before real frameworks: each writes its own sessions, and the gateway reads and writes them too.
//!
//! A framework's file describes it (`framework.rs`) and has the steps that only it has; `scenario.rs` has those of all.

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

mod app;
mod django;
mod express;
mod flask;
mod framework;
mod pyramid;
mod scenario;
mod site;
mod websocket;
