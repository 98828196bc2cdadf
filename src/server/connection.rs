//! One client connection, from accept to close.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http::HeaderValue;
use http::header::CONNECTION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::proxy::{Peer, Worker, handle};

/// The bound of a request's head, and of what is read ahead of a body.
const MAX_BUFFER: usize = 64 * 1024;

/// How long a connection that is to end may stay idle. Closing it at once could meet a request that is on its way; the
/// answer to one that comes within this time tells the client that it is the last.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection is held to, from its beginning to its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a request's head to arrive, and for idling between requests.
    pub(super) header_timeout: Duration,
}

/// Serves HTTP/1.1 on `stream` until either side has had enough.
pub(super) async fn serve<S>(
    stream: S,
    peer: Peer,
    worker: Rc<Worker>,
    mut stopped: watch::Receiver<bool>,
    limits: Limits,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let peer = Rc::new(peer);
    let last = Rc::new(Cell::new(false));
    let is_last = Rc::clone(&last);
    let service = service_fn(move |request| {
        let (worker, peer, last) = (Rc::clone(&worker), Rc::clone(&peer), Rc::clone(&is_last));
        async move {
            let mut response = handle(&worker, &peer, request).await;
            if last.get() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        biased;
        served = connection.as_mut() => served,
        _ = stopped.wait_for(|stopped| *stopped) => {
            last.set(true);
            tokio::select! {
                biased;
                served = connection.as_mut() => served,
                // The request under way is finished, and with it the connection.
                () = tokio::time::sleep(LINGER) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
