//! What became of those who arrived: counts of what happens before there is a request. Hostile clients make no noise in
//! the log, so this is where they are seen.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were accepted.
    pub accepted: Count,
    /// Connections that were closed because their address had its share.
    pub over_share: Count,
    /// Connections that ended for want of a good PROXY header, or of a trusted proxy to send it.
    pub bad_proxy_headers: Count,
    /// TLS handshakes that came to their end.
    pub handshakes: Count,
    /// TLS handshakes that failed, or took too long.
    pub failed_handshakes: Count,
    /// Connections that began with plain HTTP where TLS is spoken.
    pub plain_at_tls: Count,
    /// Streams of HTTP/2 that ended before their responses, for which their clients are to blame.
    pub resets: Count,
    /// How often reading a connection was put off because its address had reset too much.
    pub pauses: Count,
    /// Connections that were ended because their clients broke the protocol of HTTP/2 or its bounds.
    pub ended: Count,
    /// Certificates that were read again because a file had changed.
    pub reloaded_certificates: Count,
    /// Changes of files that did not make a certificate, so that the one before stays.
    pub failed_reloads: Count,
}

/// A number that grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
