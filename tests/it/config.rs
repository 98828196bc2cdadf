//! Parsing of configuration files: resolved values, errors and warnings.

mod admin;
mod fixture;
mod invalid;
mod layouts;
mod properties;
#[cfg(feature = "embedded")]
mod reference;
mod reports;
mod secrets;
mod single_errors;
mod streams;
mod values;
