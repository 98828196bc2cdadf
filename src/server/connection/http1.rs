//! HTTP/1.1 on a client connection.
//!
//! A connection that stays idle is parked: the state for serving requests is dropped, and created again when the next
//! byte arrives. An idle connection has no read buffer, since heads are read into a buffer that all connections of a
//! thread share ([`scratch`](super::scratch)).

mod encode;
mod io;
mod requests;

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use self::io::ConnectionIo;
use super::close::{MAX_DISCARD, SHUTDOWN_TIMEOUT, close, close_lingering};
use super::context::ConnectionContext;
use super::first_bytes::{FirstBytes, read_first_bytes};
use super::tracked_io::TrackedIo;
use crate::proxy::Upgrade;
use crate::server::transport::ResetOnClose;

/// Idle time after which a connection is parked.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// The response to a client that does not complete a request head before the timeout.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The reason why serving requests ended.
enum Outcome {
    /// Nothing is in flight, and the connection is to be closed.
    Closed,
    /// The connection is to be closed, and the client may still be sending.
    MayBeSending,
    /// The connection is broken, or its response is incomplete.
    Broken,
    /// A request head was not complete before the timeout.
    SlowHead,
    /// No request arrived for [`PARK_AFTER`].
    Idle,
    /// The connection becomes a tunnel.
    Upgraded(Box<Upgrade>),
}

/// Serves `stream`, from which `first` has already been read.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, which idle connections pay for"
)]
pub(super) fn serve<S>(
    mut stream: S,
    mut first: Bytes,
    context: &ConnectionContext,
    mut stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + ResetOnClose + Unpin + Debug + 'static,
{
    async move {
        loop {
            let io = Rc::new(RefCell::new(ConnectionIo::new(stream, first)));
            // Boxed, so that a parked connection is small.
            let outcome = Box::pin(requests::serve_requests(&io, context, &mut stopped)).await;
            // Bodies hold weak references only.
            let Some(io) = Rc::into_inner(io) else { return };
            let ahead;
            (stream, ahead) = io.into_inner().into_parts();
            match outcome {
                Outcome::Idle => {}
                Outcome::Closed => return close(&mut stream).await,
                Outcome::MayBeSending => {
                    return Box::pin(close_lingering(&mut stream, context.timeouts.body.min(MAX_DISCARD)))
                        .await;
                }
                Outcome::Broken => return,
                Outcome::SlowHead => return Box::pin(refuse_slow(&mut stream)).await,
                Outcome::Upgraded(upgrade) => {
                    return upgrade.complete(TrackedIo::new(stream, ahead, Rc::default()), ());
                }
            }
            tracing::debug!("an idle connection is parked");
            let rest = context.timeouts.idle.saturating_sub(PARK_AFTER);
            first = match read_first_bytes(&mut stream, &[], rest, &mut stopped).await {
                FirstBytes::Bytes(bytes) => bytes,
                FirstBytes::None | FirstBytes::Partial => return close(&mut stream).await,
            };
        }
    }
}

/// Responds to a client that does not complete a request head before the timeout, and closes its connection.
pub(super) async fn refuse_slow<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    if matches!(tokio::time::timeout(SHUTDOWN_TIMEOUT, stream.write_all(REQUEST_TIMEOUT)).await, Ok(Ok(()))) {
        close_lingering(stream, SHUTDOWN_TIMEOUT).await;
    }
}
