//! Tests of the gateway with apps of real frameworks, whose sessions both the app and the gateway read and write.
//!
//! `scenario.rs` has the steps of all frameworks. The file of a framework has its description (`framework.rs`) and its own
//! steps.

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
mod parsers;
mod pyramid;
mod scenario;
mod site;
mod websocket;
