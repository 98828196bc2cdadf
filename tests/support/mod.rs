//! What the integration tests stand on: real servers on free loopback ports, started by the tests and ended with them.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that fails fails its test"
)]

pub(crate) mod ministack;
pub(crate) mod python;
