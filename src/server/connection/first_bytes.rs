//! The first bytes of a connection, which distinguish HTTP/2 from HTTP/1.1.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;

/// The connection preface of HTTP/2 clients (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Timeout for a last request on a connection that is about to close. A request may already be on its way, and closing at
/// once would fail it. The response to a request within this time says `Connection: close`.
pub(super) const LAST_REQUEST: Duration = Duration::from_secs(2);

/// The first bytes of a connection.
pub(super) enum FirstBytes {
    /// The client sent nothing before the timeout, or the connection ended.
    None,
    /// The client sent only a part of the preface before the timeout.
    Partial,
    /// The preface, or at least one byte of something else.
    Bytes(Bytes),
}

/// Reads at least one byte, and on until it is known whether the client sends `preface`.
pub(super) async fn read_first_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    preface: &[u8],
    timeout: Duration,
    stopped: &mut watch::Receiver<bool>,
) -> FirstBytes {
    let mut buffer = [0; PREFACE.len()];
    let mut length = 0;
    let read = async {
        loop {
            let Some(free) = buffer.get_mut(length..) else { break true };
            match stream.read(free).await {
                Ok(0) | Err(_) => break false,
                Ok(count) => length += count,
            }
            let so_far = buffer.get(..length).unwrap_or_default();
            if length >= preface.len() || !preface.starts_with(so_far) {
                break true;
            }
        }
    };
    let mut read = pin!(read);
    let read = tokio::select! {
        read = tokio::time::timeout(timeout, read.as_mut()) => read,
        // The client may have sent a request that has not arrived yet.
        _ = stopped.wait_for(|stopped| *stopped) => tokio::time::timeout(LAST_REQUEST.min(timeout), read).await,
    };
    match read {
        Ok(true) => FirstBytes::Bytes(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())),
        Err(_) if length > 0 => FirstBytes::Partial,
        Ok(false) | Err(_) => FirstBytes::None,
    }
}
