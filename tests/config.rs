//! The configuration: what a file means, and what is said about one that is wrong.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "in a test, a failure is a panic"
)]

#[path = "config/admin.rs"]
mod admin;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "support/certificates.rs"]
mod certificates;
#[path = "config/edge.rs"]
mod edge;
#[path = "config/fixture.rs"]
mod fixture;
#[path = "config/layouts.rs"]
mod layouts;
#[path = "config/properties.rs"]
mod properties;
#[cfg(feature = "embedded")]
#[path = "config/reference.rs"]
mod reference;
#[path = "config/refusals.rs"]
mod refusals;
#[path = "config/reports.rs"]
mod reports;
#[path = "config/secrets.rs"]
mod secrets;
#[path = "config/single_errors.rs"]
mod single_errors;
#[path = "config/streams.rs"]
mod streams;
#[path = "config/values.rs"]
mod values;
