//! The reason why a request gets no connection to a server.

use std::sync::Arc;

/// Error of getting a connection for a request.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No connection could be opened.
    #[error("upstream `{upstream}`: {server}: {reason}")]
    Failed {
        /// The upstream.
        upstream: String,
        /// The last server that was tried.
        server: Arc<str>,
        /// The reason of its failure.
        reason: String,
    },
    /// No server is healthy, no server's name has an address, or the request needs HTTP/1.1 and every server is h2c.
    #[error("upstream `{0}`: no usable server")]
    NoServer(String),
    /// Every server (with `sticky`, the chosen one) has its maximum of requests in flight, and the queue is full or the
    /// wait timed out.
    #[error("upstream `{upstream}` is busy: {reason}")]
    Busy {
        /// The upstream.
        upstream: String,
        /// The reason why the request does not wait longer.
        reason: &'static str,
    },
}
