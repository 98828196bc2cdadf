//! Parsing for TLS: server certificates with their keys, client CAs, selection of a certificate by host name, and the
//! fields of client certificates. It does no IO.

mod client;
mod identity;
mod names;

pub use client::ClientCertificate;
pub use identity::{Identity, PemError, authorities};
pub use names::HostNames;
