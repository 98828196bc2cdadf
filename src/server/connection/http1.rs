//! HTTP/1.1 on a connection.
//!
//! A connection that stays idle is parked: hyper's state and buffers are given up, and taken up again with the next
//! byte. A client that comes and goes pays for that nothing; one that comes back after a while, a few allocations.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderValue, Request, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::ext::ReasonPhrase;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::activity::{Activity, Deadline, TrackedBody, Wait};
use super::close::{MAX_DISCARD, SHUTDOWN_TIMEOUT, close, close_lingering};
use super::context::ConnectionContext;
use super::first_bytes::{FirstBytes, LAST_REQUEST, read_first_bytes};
use super::request_line::encode_query;
use super::tracked_io::TrackedIo;
use crate::proxy::{Upgrade, handle};
use crate::upstream::ClientBody;

/// What is read ahead of a body, and written ahead of a client, at most; heads have a bound of their own.
const MAX_BUFFER: usize = 64 * 1024;
/// hyper's own bound of header lines, for which it has room on the stack.
const USUAL_HEADERS: usize = 100;
/// How long an idle connection keeps its buffers.
const PARK: Duration = Duration::from_secs(1);
/// What a client gets whose head does not come to an end.
const SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// How a connection came out of hyper.
enum End {
    /// It is over.
    Closed,
    /// The client was waited for in vain.
    Expired(Wait),
    /// It was to end, and no further request has come.
    Dismissed,
    /// The query of the next request has to be encoded before hyper reads it.
    Unencoded,
}

/// Serves `stream`, which begins with the bytes `first`.
pub(super) async fn serve<S>(
    mut stream: S,
    mut first: Bytes,
    context: &ConnectionContext,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = context.limits;
    let mut builder = Builder::new();
    builder.header_read_timeout(None).max_header_size(limits.header_bytes);
    builder.max_buf_size(limits.header_bytes.max(MAX_BUFFER));
    if limits.headers != USUAL_HEADERS {
        builder.max_headers(limits.headers);
    }
    loop {
        // Boxed, so that a parked connection is not as large as one at work.
        let talk = Box::pin(talk(&builder, stream, first, context, &mut stopped)).await;
        stream = talk.stream;
        if let Some(upgrade) = talk.upgrade {
            // The rest is between the client and whoever asked for it.
            return upgrade.complete(TrackedIo::new(stream, talk.ahead, Rc::default()), ());
        }
        match talk.end {
            End::Closed if talk.is_unheard => {
                return Box::pin(close_lingering(&mut stream, context.timeouts.body.min(MAX_DISCARD))).await;
            }
            // What could not be written in time is not waited for again.
            End::Closed | End::Expired(Wait::ClientRead | Wait::Nothing) => return,
            End::Dismissed => return close(&mut stream).await,
            End::Expired(Wait::Head) => return Box::pin(refuse_slow(&mut stream)).await,
            End::Unencoded => {
                first = encode_query(&talk.ahead).into();
                continue;
            }
            End::Expired(Wait::Request) => {}
        }
        // The beginning of a request that came along with the last one.
        first = talk.ahead;
        if first.is_empty() {
            tracing::debug!("an idle connection is parked");
            // Empty, it still holds the buffer that it is a part of.
            drop(first);
            let rest = context.timeouts.idle.saturating_sub(PARK);
            first = match read_first_bytes(&mut stream, &[], rest, &mut stopped).await {
                FirstBytes::Bytes(bytes) => bytes,
                FirstBytes::None | FirstBytes::Partial => return close(&mut stream).await,
            };
        }
    }
}

/// What is left of a stretch of requests.
struct Talk<S> {
    end: End,
    stream: S,
    /// What was read and not looked at.
    ahead: Bytes,
    /// Who gets the connection.
    upgrade: Option<Box<Upgrade>>,
    /// Whether the client was answered before it had said all.
    is_unheard: bool,
}

/// Has hyper serve `stream`, which begins with `first`, until it is over or idle.
async fn talk<S>(
    builder: &Builder,
    stream: S,
    first: Bytes,
    context: &ConnectionContext,
    stopped: &mut watch::Receiver<bool>,
) -> Talk<S>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let activity = Rc::new(Activity::default());
    let upgrade = Rc::new(RefCell::default());
    let last = Rc::new(Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let exchange = activity.begin_request(!request.body().is_end_stream(), None);
        let (context, upgrade, last) = (context.clone(), Rc::clone(&upgrade), Rc::clone(&last));
        let sending = Rc::clone(activity.sending());
        async move {
            let request = request.map(|body| ClientBody::tracked(body, sending));
            let mut response = handle(&context.worker, &context.peer, request).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgrade.replace(response.body_mut().take_upgrade());
            } else if last.get() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if response.status().canonical_reason().is_none()
                && response.extensions().get::<ReasonPhrase>().is_none()
            {
                // hyper would write one of its own.
                response.extensions_mut().insert(ReasonPhrase::from_static(b""));
            }
            Ok::<_, Infallible>(response.map(|body| exchange.track(body)))
        }
    });
    let wire = TrackedIo::of_requests(stream, first, Rc::clone(&activity));
    let mut connection = builder.serve_connection(TokioIo::new(wire), service);
    let end = drive(&mut connection, &activity, context, &last, stopped).await;
    let parts = connection.into_parts();
    let (stream, given_back) = parts.io.into_inner().into_parts();
    let mut ahead = parts.read_buf;
    if !given_back.is_empty() {
        ahead = BytesMut::from_iter(ahead.iter().chain(&given_back)).freeze();
    }
    Talk { end, stream, ahead, upgrade: upgrade.take(), is_unheard: activity.needs_lingering_close() }
}

/// Answers a client whose head does not come to an end, and ends its connection.
pub(super) async fn refuse_slow<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) {
    if matches!(tokio::time::timeout(SHUTDOWN_TIMEOUT, stream.write_all(SLOW)).await, Ok(Ok(()))) {
        close_lingering(stream, SHUTDOWN_TIMEOUT).await;
    }
}

/// Runs hyper until the connection is over, or has been idle for long enough to be parked, or its client for too long.
async fn drive<S, H>(
    connection: &mut Connection<TokioIo<TrackedIo<S>>, H>,
    activity: &Activity,
    context: &ConnectionContext,
    last: &Cell<bool>,
    stopped: &mut watch::Receiver<bool>,
) -> End
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: HttpService<Incoming, ResBody = TrackedBody>,
    H::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let timeouts = context.timeouts;
    let mut deadline = Deadline::default();
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    poll_fn(|cx| {
        if let Poll::Ready(served) = Pin::new(&mut *connection).poll(cx) {
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended");
            }
            return Poll::Ready(End::Closed);
        }
        if activity.is_line_withheld() {
            return Poll::Ready(End::Unencoded);
        }
        if !last.get() && stop.as_mut().poll(cx).is_ready() {
            // The next answer says that it is the last.
            last.set(true);
            deadline = Deadline::default();
        }
        let wait = activity.wait();
        let limit = match wait.0 {
            Wait::Nothing => None,
            Wait::Request if last.get() => Some(timeouts.idle.min(LAST_REQUEST)),
            Wait::Request => Some(timeouts.idle.min(PARK)),
            Wait::Head => Some(timeouts.header),
            Wait::ClientRead => Some(timeouts.send),
        };
        ready!(deadline.poll(cx, wait, limit));
        let dismissed = last.get() && wait.0 == Wait::Request;
        Poll::Ready(if dismissed { End::Dismissed } else { End::Expired(wait.0) })
    })
    .await
}
