//! One client connection, from accept to close.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::proxy::{Peer, Worker, handle};

/// The bound of a request's head, and of what is read ahead of a body.
const MAX_BUFFER: usize = 64 * 1024;

/// Serves HTTP/1.1 on `stream` until either side has had enough.
pub(super) async fn serve<S>(
    stream: S,
    peer: Peer,
    worker: Rc<Worker>,
    mut stopped: watch::Receiver<bool>,
    header_timeout: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Rc::new(peer);
    let service = service_fn(move |request| {
        let (worker, peer) = (Rc::clone(&worker), Rc::clone(&peer));
        async move { Ok::<_, Infallible>(handle(&worker, &peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        // The request under way is finished, and with it the connection.
        _ = stopped.wait_for(|stopped| *stopped) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
