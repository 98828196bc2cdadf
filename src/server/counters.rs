//! Counters of events on client connections below HTTP requests. Events that hostile clients can cause are logged at
//! debug level only, so that they cannot flood the log; the counters show them.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of client connections since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Accepted connections.
    pub accepted: Count,
    /// Connections closed because their address had reached `connections_per_address`.
    pub over_share: Count,
    /// Connections closed because `proxy_protocol` requires a valid PROXY header from a trusted proxy.
    pub bad_proxy_headers: Count,
    /// Completed TLS handshakes.
    pub handshakes: Count,
    /// TLS handshakes that failed or timed out.
    pub failed_handshakes: Count,
    /// Plain HTTP connections to a TLS listener.
    pub plain_at_tls: Count,
    /// HTTP/2 streams that their clients ended before the response was complete.
    pub resets: Count,
    /// Times that a connection was paused because its address had no reset token left.
    pub pauses: Count,
    /// HTTP/2 connections closed because the client violated the protocol or exceeded a limit.
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
