//! HTTP over an open connection: HTTP/1.1 with one request at a time, or HTTP/2 with many.
//!
//! A request is prepared for its HTTP version when its connection is known: HTTP/1.1 has Host and headers for the framing
//! of the body, HTTP/2 has `:scheme` and `:authority` instead.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::{Duration, Instant};

use http::header::{HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::AbortOnDropHandle;

use super::body::{Attempt, RequestBody};
use super::endpoint::{Endpoint, ServerProtocol};
use super::gateway_headers::GatewayHeaders;
use super::http1::Http1Connection;
use super::stream::{ServerStream, Version};
use super::target::Target;
use crate::message::RequestHead;
use crate::time::{Alarm, Clock};

/// HTTP/2 flow-control window of a stream for the response.
const STREAM_WINDOW: u32 = 128 * 1024;
/// HTTP/2 flow-control window of a connection: more than the windows of all streams together, so that clients that do not
/// read their responses do not block the other streams.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Limit on concurrent streams of one connection; the server may allow fewer.
const MAX_STREAMS: usize = 100;
/// Limit on the headers of an HTTP/2 response.
const MAX_HEADER_LIST: u32 = 64 * 1024;
/// Interval of HTTP/2 PING frames while requests are in flight.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Timeout for the reply to a PING frame.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// An HTTP/1.1 connection, closed when dropped.
#[derive(Debug)]
pub(super) struct Http1Link {
    pub(super) connection: Http1Connection<ServerStream, RequestBody>,
    /// When the connection became idle.
    pub(super) idle_since: Instant,
    /// The timer for response heads, reused by all requests.
    pub(super) alarm: Alarm,
    _count: ConnectionCount,
}

/// An HTTP/2 connection, closed when the pool and all streams have dropped it.
#[derive(Debug)]
pub(super) struct Http2Link {
    sender: http2::SendRequest<RequestBody>,
    streams: Cell<usize>,
    /// Limit on streams: the smaller of [`MAX_STREAMS`] and the server's setting. The connection's task updates it.
    allowed: Rc<Cell<usize>>,
    /// Wakes the connection's task, until the first response: the server's settings have been received by then, but do
    /// not wake it.
    settings: Rc<RefCell<Option<Waker>>>,
    /// When the last stream ended.
    idle_since: Cell<Instant>,
    _task: AbortOnDropHandle<()>,
    _count: ConnectionCount,
}

/// A stream of an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct Http2Stream {
    link: Rc<Http2Link>,
    /// Drops the request body with the stream.
    body: Option<Attempt>,
}

/// A connection of either HTTP version.
#[derive(Debug)]
pub(super) enum Link {
    Http1(Http1Link),
    Http2(Rc<Http2Link>),
}

/// Counts a connection as open until dropped.
#[derive(Debug)]
struct ConnectionCount(Arc<Target>);

/// Runs a connection's tasks on its worker's thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl Link {
    /// Starts HTTP on `stream`.
    ///
    /// # Errors
    /// Returns an error if the server has closed the connection.
    pub(super) async fn new(
        target: &Arc<Target>,
        stream: ServerStream,
        version: Version,
    ) -> Result<Self, hyper::Error> {
        let idle_since = Clock.mono();
        target.connections.fetch_add(1, Relaxed);
        let _count = ConnectionCount(Arc::clone(target));
        match version {
            Version::Http1 => Ok(Self::Http1(Http1Link {
                connection: Http1Connection::new(stream),
                idle_since,
                alarm: Alarm::default(),
                _count,
            })),
            Version::Http2 => {
                let (sender, mut connection) = http2::Builder::new(LocalExecutor)
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .initial_max_send_streams(MAX_STREAMS)
                    .max_header_list_size(MAX_HEADER_LIST)
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .handshake(TokioIo::new(stream))
                    .await?;
                let allowed = Rc::new(Cell::new(MAX_STREAMS));
                let settings: Rc<RefCell<Option<Waker>>> = Rc::default();
                let (current, waker) = (Rc::clone(&allowed), Rc::clone(&settings));
                let _task = spawn(async move {
                    let mut is_first = true;
                    let ended = poll_fn(|cx| {
                        if std::mem::take(&mut is_first) {
                            waker.replace(Some(cx.waker().clone()));
                        }
                        let polled = Pin::new(&mut connection).poll(cx);
                        current.set(connection.current_max_send_streams().min(MAX_STREAMS));
                        polled
                    });
                    if let Err(error) = ended.await {
                        tracing::debug!(%error, "an upstream connection ended");
                    }
                });
                let link = Http2Link {
                    sender,
                    streams: Cell::new(0),
                    allowed,
                    settings,
                    idle_since: Cell::new(idle_since),
                    _task,
                    _count,
                };
                Ok(Self::Http2(Rc::new(link)))
            }
        }
    }
}

impl Http2Link {
    /// Returns a new stream, if the connection is open and below its limit on streams.
    pub(super) fn stream(self: &Rc<Self>) -> Option<Http2Stream> {
        let free = !self.sender.is_closed() && self.streams.get() < self.allowed.get();
        free.then(|| {
            self.streams.set(self.streams.get() + 1);
            Http2Stream { link: Rc::clone(self), body: None }
        })
    }

    /// Returns whether the connection is open and has not been idle for longer than `idle_timeout`.
    pub(super) fn is_live(&self, now: Instant, idle_timeout: Duration) -> bool {
        let idle =
            self.streams.get() == 0 && now.saturating_duration_since(self.idle_since.get()) > idle_timeout;
        !idle && !self.sender.is_closed()
    }
}

impl Http2Stream {
    /// Records that the response has begun.
    pub(super) fn response_started(&self) {
        self.link.settings.take().into_iter().for_each(Waker::wake);
    }

    /// Returns whether this is a stream of `link`.
    pub(super) fn belongs_to(&self, link: &Rc<Http2Link>) -> bool {
        Rc::ptr_eq(&self.link, link)
    }

    /// Returns the HTTP/2 request with `head`, `body` and `gateway_headers`, and the handle to send it with.
    pub(super) fn prepare(
        &mut self,
        head: RequestHead,
        mut body: RequestBody,
        gateway_headers: &GatewayHeaders,
        endpoint: &Endpoint,
    ) -> (http2::SendRequest<RequestBody>, http::Request<RequestBody>) {
        self.body = Some(body.use_http2());
        (self.link.sender.clone(), http2_request(head, body, gateway_headers, endpoint))
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            body.abandon();
        }
        let left = self.link.streams.get().saturating_sub(1);
        self.link.streams.set(left);
        if left == 0 {
            self.link.idle_since.set(Clock.mono());
        }
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn spawn(task: impl Future<Output = ()> + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::task::spawn_local(task))
}

fn http2_request(
    head: RequestHead,
    body: RequestBody,
    gateway_headers: &GatewayHeaders,
    endpoint: &Endpoint,
) -> http::Request<RequestBody> {
    let RequestHead { method, uri, fields, .. } = head;
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    *headers = fields.into_map();
    headers.remove(TRANSFER_ENCODING);
    gateway_headers.insert_into(headers);
    // The gateway accepts trailers, and forwards them to clients that accept them.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.remove(HOST);
    let host = gateway_headers.host().map(HeaderValue::as_bytes).unwrap_or_default();
    let authority = Authority::try_from(host).unwrap_or_else(|_| endpoint.authority.clone());
    let scheme = match endpoint.protocol {
        ServerProtocol::Tls(_) => Scheme::HTTPS,
        ServerProtocol::Http1 | ServerProtocol::Http2 => Scheme::HTTP,
    };
    let path = uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/"));
    // The parts come from valid URIs, so this does not fail.
    if let Ok(uri) = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build() {
        *request.uri_mut() = uri;
    }
    request
}
