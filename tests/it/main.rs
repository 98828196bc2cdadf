//! Integration tests: most run the gateway as a process and send it requests over sockets. They are one binary, because each
//! binary links the whole AWS SDK. `cargo test --test it access::` runs one module.

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

mod access;
mod access_log;
mod admin;
mod body_limits;
mod canary;
mod changes;
mod chaos;
mod cli;
mod config;
mod connections;
mod demo;
mod django;

mod early_responses;
mod edits;
mod expect;
mod framing;
mod full_disk;
mod fuzzing;
mod grpc;
mod harness;
mod http2;
mod legacy_servers;
mod log_outs;
mod metrics;
mod outage;
mod packaging;
mod parsers;
mod paths;
mod proxy_protocol;
mod purge;
mod quick_start;
mod races;
mod rates;
mod rechecks;
mod redirects;
mod reload;
mod requests;
mod resets;
mod responses;
mod restart;
mod rewriting;
mod scrub;
mod sessions;
mod slow;
mod store;
mod streams;
mod targets;
mod tidy;
mod tls;
mod trace;
mod tunnels;
mod upstreams;
mod vectors;
mod websocket;
mod writers;
