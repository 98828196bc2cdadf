//! Closing client connections.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Timeout for shutting a connection down, TLS close_notify included.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit on how long the rest of a request body is read and discarded after the response. Some clients read the response
/// only after sending the whole request, and a reset could make a client lose the response.
pub(super) const MAX_DISCARD: Duration = Duration::from_secs(10);

/// Closes a connection on which nothing is in flight.
pub(super) async fn close<S: AsyncWrite + Unpin>(stream: &mut S) {
    // If the client does not read the close_notify, the connection is closed without it.
    let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, stream.shutdown()).await;
}

/// Closes a connection whose client may still be sending: shuts down writing and discards what the client sends, for up
/// to `limit`. Closing at once would reset the connection, and the client's kernel would drop the response that the
/// client has not read yet (RFC 9112, 9.6).
pub(super) async fn close_lingering<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, limit: Duration) {
    let discard = async {
        stream.shutdown().await?;
        let mut buffer = [0; 8 * 1024];
        while stream.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection is closed in any case.
    let _ = tokio::time::timeout(limit, discard).await;
}
