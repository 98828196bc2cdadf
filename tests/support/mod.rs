//! What the integration tests stand on: real servers on free loopback ports, started by the tests and ended with them.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

pub mod ministack;
pub mod python;
