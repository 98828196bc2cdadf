//! One client connection, from its first byte to its last.
//!
//! 1. A connection that has not sent anything costs no HTTP state, unless ALPN has negotiated HTTP/2.
//! 2. Every wait for the client has a timeout ([`activity`]). The upstream's slowness never counts against the client.
//! 3. A client that gets its response before it has sent the whole request can still read the response: the rest of the
//!    request is discarded for a while before the connection or the stream is closed.
//!
//! Requests are passed to [`handle`](crate::proxy::handle).

mod activity;
mod close;
mod context;
mod first_bytes;
mod http1;
mod http2;
mod scratch;
mod throttled_reader;
mod tracked_io;
mod trailers;
mod write_through;

use std::fmt::Debug;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use self::close::close;
use self::context::ConnectionContext;
use self::first_bytes::{FirstBytes, PREFACE, read_first_bytes};
use super::reset_budget::ResetBudget;
use super::transport::ResetOnClose;
use crate::proxy::{Peer, Worker};

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2, as negotiated by ALPN.
    Http2,
    /// HTTP/2 if the client begins with the connection preface, else HTTP/1.1.
    Unknown,
}

/// Serves `stream` until the connection ends.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, which idle connections pay for"
)]
pub(super) fn serve<S>(
    mut stream: S,
    protocol: ClientProtocol,
    peer: Rc<Peer>,
    worker: Rc<Worker>,
    budget: ResetBudget,
    mut stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()>
where
    S: AsyncRead + AsyncWrite + ResetOnClose + Unpin + Debug + 'static,
{
    async move {
        let snapshot = worker.snapshot();
        let (limits, timeouts) = (Rc::clone(&snapshot.limits), Rc::clone(&snapshot.timeouts));
        drop(snapshot);
        let header_timeout = timeouts.header;
        let context = ConnectionContext { peer, worker, limits, timeouts };
        let first = match protocol {
            ClientProtocol::Http2 => {
                return Box::pin(http2::serve(stream, Bytes::new(), &context, budget, stopped)).await;
            }
            ClientProtocol::Http1 => read_first_bytes(&mut stream, &[], header_timeout, &mut stopped).await,
            ClientProtocol::Unknown => {
                read_first_bytes(&mut stream, PREFACE, header_timeout, &mut stopped).await
            }
        };
        match first {
            FirstBytes::None => close(&mut stream).await,
            FirstBytes::Partial => Box::pin(http1::refuse_slow(&mut stream)).await,
            FirstBytes::Bytes(bytes) if protocol == ClientProtocol::Unknown && bytes.starts_with(PREFACE) => {
                Box::pin(http2::serve(stream, bytes, &context, budget, stopped)).await;
            }
            FirstBytes::Bytes(bytes) => http1::serve(stream, bytes, &context, stopped).await,
        }
    }
}
