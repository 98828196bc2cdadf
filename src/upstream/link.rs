//! An open connection and what is spoken over it: HTTP/1.1, one request at a time, or HTTP/2, many.
//!
//! A request is made for either only when it is known over which it goes: HTTP/1.1 has Host and says how the body is
//! framed, HTTP/2 has `:scheme` and `:authority` and says neither.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::header::{HOST, TE, TRANSFER_ENCODING};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::AbortOnDropHandle;

use super::body::{Attempt, RequestBody};
use super::endpoint::{Endpoint, Speech};
use super::gateway_headers::GatewayHeaders;
use super::stream::{ServerStream, Version};
use super::target::Target;
use super::wire::Http1Connection;
use crate::time::{Alarm, Clock};

/// What is taken in of one response before it is passed on, and of all of a connection: enough for every stream of it
/// to be full, so that a client that does not read holds up nobody else's.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Requests under way over one HTTP/2 connection, where the server allows as many.
const STREAMS: usize = 100;
/// What the headers of a response may take over HTTP/2.
const HEADER_LIST: u32 = 64 * 1024;
/// A server that is asked for a sign of life while requests are under way, and how long it may take to give one.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// An HTTP/1.1 connection. It is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) wire: Http1Connection<ServerStream, RequestBody>,
    /// When it was last put back.
    pub(super) since: Instant,
    /// For responses that do not come.
    pub(super) alarm: Alarm,
    _open: Open,
}

/// An HTTP/2 connection. It is closed when nobody holds it.
#[derive(Debug)]
pub(super) struct Http2Link {
    sender: http2::SendRequest<RequestBody>,
    streams: Cell<usize>,
    /// What the server allows.
    allowed: Rc<Cell<usize>>,
    /// When its last stream ended.
    since: Cell<Instant>,
    _task: AbortOnDropHandle<()>,
    _open: Open,
}

/// One stream of an HTTP/2 connection.
#[derive(Debug)]
pub(super) struct StreamOf {
    link: Rc<Http2Link>,
    /// The request's body, which is let go of with the stream.
    body: Option<Attempt>,
}

/// A connection, of either kind.
#[derive(Debug)]
pub(super) enum Link {
    Http1(Http1),
    Http2(Rc<Http2Link>),
}

/// Counts a connection as long as it is open.
#[derive(Debug)]
struct Open(Arc<Target>);

/// Runs a connection's tasks on the worker that it belongs to.
#[derive(Clone, Copy, Debug)]
struct OnWorker;

impl Link {
    /// Speaks HTTP over `stream`.
    ///
    /// # Errors
    /// If the server is gone already.
    pub(super) async fn new(
        target: &Arc<Target>,
        stream: ServerStream,
        version: Version,
    ) -> Result<Self, hyper::Error> {
        let since = Clock.mono();
        target.connections.fetch_add(1, Relaxed);
        let _open = Open(Arc::clone(target));
        match version {
            Version::Http1 => Ok(Self::Http1(Http1 {
                wire: Http1Connection::new(stream),
                since,
                alarm: Alarm::default(),
                _open,
            })),
            Version::Http2 => {
                let (sender, mut connection) = http2::Builder::new(OnWorker)
                    .timer(TokioTimer::new())
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .initial_max_send_streams(STREAMS)
                    .max_header_list_size(HEADER_LIST)
                    .keep_alive_interval(PING)
                    .keep_alive_timeout(PONG)
                    .handshake(TokioIo::new(stream))
                    .await?;
                let allowed = Rc::new(Cell::new(STREAMS));
                let seen = Rc::clone(&allowed);
                let _task = spawn(async move {
                    let ended = poll_fn(|cx| {
                        let polled = Pin::new(&mut connection).poll(cx);
                        seen.set(connection.current_max_send_streams().min(STREAMS));
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
                    since: Cell::new(since),
                    _task,
                    _open,
                };
                Ok(Self::Http2(Rc::new(link)))
            }
        }
    }
}

impl Http2Link {
    /// A stream more, if the connection is open and has one to give.
    pub(super) fn stream(self: &Rc<Self>) -> Option<StreamOf> {
        let free = !self.sender.is_closed() && self.streams.get() < self.allowed.get();
        free.then(|| {
            self.streams.set(self.streams.get() + 1);
            StreamOf { link: Rc::clone(self), body: None }
        })
    }

    /// Whether it is worth keeping.
    pub(super) fn is_live(&self, now: Instant, idle_timeout: Duration) -> bool {
        let idle = self.streams.get() == 0 && now.saturating_duration_since(self.since.get()) > idle_timeout;
        !idle && !self.sender.is_closed()
    }
}

impl StreamOf {
    pub(super) fn is_of(&self, link: &Rc<Http2Link>) -> bool {
        Rc::ptr_eq(&self.link, link)
    }

    /// What sends the request, made for HTTP/2.
    pub(super) fn sender(
        &mut self,
        request: &mut Request<RequestBody>,
        added: &GatewayHeaders,
        endpoint: &Endpoint,
    ) -> http2::SendRequest<RequestBody> {
        self.body = Some(request.body_mut().of_http2());
        for_http2(request, added, endpoint);
        self.link.sender.clone()
    }
}

impl Drop for StreamOf {
    fn drop(&mut self) {
        if let Some(body) = &self.body {
            body.abandon();
        }
        let left = self.link.streams.get().saturating_sub(1);
        self.link.streams.set(left);
        if left == 0 {
            self.link.since.set(Clock.mono());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for OnWorker {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

fn spawn(task: impl Future<Output = ()> + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::task::spawn_local(task))
}

/// Makes a request one of HTTP/1.1, whatever it was made for before. What is `added` goes beside its headers.
pub(super) fn for_http1(request: &mut Request<RequestBody>, added: &GatewayHeaders) {
    *request.version_mut() = http::Version::HTTP_11;
    request.body_mut().of_http1();
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.unwrap_or(PathAndQuery::from_static("/")).into();
        added.clear(request.headers_mut());
        // No trailer is passed on.
        request.headers_mut().remove(TE);
    }
}

fn for_http2(request: &mut Request<RequestBody>, added: &GatewayHeaders, endpoint: &Endpoint) {
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().remove(TRANSFER_ENCODING);
    added.write(request.headers_mut());
    // Trailers are taken here; whether the client takes them is asked when they come.
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    request.headers_mut().remove(HOST);
    let Some(host) = added.host() else { return };
    let authority = Authority::try_from(host.as_bytes()).unwrap_or_else(|_| endpoint.authority.clone());
    let scheme = match endpoint.speech {
        Speech::Tls(_) => Scheme::HTTPS,
        Speech::Http1 | Speech::Http2 => Scheme::HTTP,
    };
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    // These are parts of URIs, so they make one.
    if let Ok(uri) = uri {
        *request.uri_mut() = uri;
    }
}
