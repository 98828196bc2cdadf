//! The first bytes of a connection, which distinguish HTTP/2 from HTTP/1.1.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncRead;
use tokio::sync::watch;

use super::scratch;

/// The connection preface of HTTP/2 clients (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Timeout for a last request on a connection that is about to close. A request may already be in transit, and would fail
/// if the connection were closed at once. Its response has `Connection: close`.
pub(super) const LAST_REQUEST: Duration = Duration::from_secs(2);

/// The first bytes of a connection.
pub(super) enum FirstBytes {
    /// The client sent nothing before the timeout, or the connection ended.
    None,
    /// The client sent only a part of the preface before the timeout.
    Partial,
    /// Bytes that begin with the preface, or at least one byte of something else.
    Bytes(Bytes),
}

/// Reads at least one byte, and continues until it is known whether the client sends `preface`.
pub(super) async fn read_first_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    preface: &[u8],
    timeout: Duration,
    stopped: &mut watch::Receiver<bool>,
) -> FirstBytes {
    let mut bytes = BytesMut::new();
    let read = async {
        loop {
            let read = poll_fn(|cx| {
                scratch::poll_read(stream, cx, |read| {
                    bytes.extend_from_slice(read);
                    !read.is_empty()
                })
            });
            if !matches!(read.await, Ok(true)) {
                return false;
            }
            if bytes.len() >= preface.len() || !preface.starts_with(&bytes) {
                return true;
            }
        }
    };
    let read = {
        let mut read = pin!(read);
        tokio::select! {
            read = tokio::time::timeout(timeout, read.as_mut()) => read,
            // An accepted client may have sent a request that has not arrived yet.
            _ = stopped.wait_for(|stopped| *stopped) => {
                tokio::time::timeout(LAST_REQUEST.min(timeout), read).await
            }
        }
    };
    match read {
        Ok(true) => FirstBytes::Bytes(bytes.freeze()),
        Err(_) if !bytes.is_empty() => FirstBytes::Partial,
        Ok(false) | Err(_) => FirstBytes::None,
    }
}
