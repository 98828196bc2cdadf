//! Counters of events on client connections before there is a request. What hostile clients can cause is logged at
//! debug level only, so that they cannot flood the log; it shows here.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of client connections since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: Count,
    /// Connections that were closed because their address had as many as `connections_per_address` allows.
    pub over_share: Count,
    /// Connections without a valid PROXY header, or from no trusted proxy, where `proxy_protocol` requires one.
    pub bad_proxy_headers: Count,
    /// TLS handshakes that were completed.
    pub handshakes: Count,
    /// TLS handshakes that failed or timed out.
    pub failed_handshakes: Count,
    /// Plain HTTP connections to a TLS listener.
    pub plain_at_tls: Count,
    /// HTTP/2 streams that their clients ended before the response was complete.
    pub resets: Count,
    /// How often a connection was paused because its address had spent its reset budget.
    pub pauses: Count,
    /// HTTP/2 connections that were closed because the client violated the protocol or exceeded its limits.
    pub abusive_connections: Count,
    /// Certificate reloads after a file had changed.
    pub reloaded_certificates: Count,
    /// Failed certificate reloads; the previous certificates stay in use.
    pub failed_reloads: Count,
}

/// A counter, which only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
