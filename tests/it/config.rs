//! The configuration: what a file means, and what is said about one that is wrong.

mod admin;
mod edge;
mod fixture;
mod layouts;
mod properties;
#[cfg(feature = "embedded")]
mod reference;
mod refusals;
mod reports;
mod secrets;
mod single_errors;
mod streams;
mod values;
