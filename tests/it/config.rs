//! Parsing of configuration files: resolved values, errors and warnings.

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
