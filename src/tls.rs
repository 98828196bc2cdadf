//! TLS as values: certificates with their keys, the authorities of clients, the names that choose among them, and what
//! a client's certificate says. Pure: from bytes to values, or to what is wrong with them. Files and sockets are
//! others' business.

mod client;
mod identity;
mod names;

pub use client::ClientCertificate;
pub use identity::{Identity, PemError, authorities};
pub use names::HostNames;
