//! The engine's API over HTTP, for apps on this machine with an SDK of their own, such as boto3 with `endpoint_url` and any
//! credentials.
//!
//! 1. It is served on loopback addresses only, since requests are not authenticated.
//! 2. Requests of browsers are refused. A page of another site sends `Origin`. After DNS rebinding, a page may send none,
//!    but its `Host` is the page's own.
//! 3. The number of connections, the memory for bodies, and the time for a head and a body are limited.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Engine;
use crate::host::is_loopback_host;
use crate::store::StoreOpenError;

/// Maximum size of a body. DynamoDB's own limit is 16 MB.
const MAX_BODY: usize = 17 * 1024 * 1024;
/// Maximum size of all bodies in memory.
const MAX_BODIES: u32 = 8 * 17 * 1024 * 1024;
/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 512;
/// Timeout for a request's head, and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed `accept`, whose usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The error for a wrong `Host`, in DynamoDB's form, so that SDKs show the message.
const WRONG_HOST: &[u8] = br#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"the embedded store accepts requests for the hosts 127.0.0.1, [::1] and localhost only"}"#;

/// Binds a loopback address.
///
/// # Errors
/// Returns an error if the address is not a loopback address or cannot be bound.
pub(in crate::store) async fn bind(address: SocketAddr) -> Result<TcpListener, StoreOpenError> {
    if !address.ip().is_loopback() {
        return Err(StoreOpenError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| StoreOpenError::Listen { address, source })
}

impl Engine {
    /// Serves the engine's API for as long as the future is polled. Dropping it closes all connections. Connections to an
    /// address that is not a loopback address are closed, whatever the listener is bound to.
    pub async fn serve(&self, listener: &TcpListener) {
        let bodies = Arc::new(Semaphore::new(MAX_BODIES as usize));
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= MAX_CONNECTIONS {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the embedded store could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !stream.local_addr().is_ok_and(|address| address.ip().is_loopback()) {
                continue;
            }
            let api = Api { engine: self.clone(), bodies: bodies.clone() };
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let api = api.clone();
                    async move { Ok::<_, io::Error>(api.handle(request).await) }
                });
                // The client notices a failed connection itself.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(64 * 1024)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    }
}

#[derive(Clone)]
struct Api {
    engine: Engine,
    /// The bytes of [`MAX_BODIES`] that are free.
    bodies: Arc<Semaphore>,
}

impl Api {
    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.headers().contains_key(ORIGIN) {
            return respond(StatusCode::FORBIDDEN, Bytes::new());
        }
        if !is_loopback_host(request.headers()) {
            return respond(StatusCode::MISDIRECTED_REQUEST, Bytes::from_static(WRONG_HOST));
        }
        if request.method() != Method::POST {
            return respond(StatusCode::NOT_FOUND, Bytes::from_static(b"<UnknownOperationException/>\n"));
        }
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
        let target = target.unwrap_or_default().to_owned();

        // Reserve the whole body at once: bodies that are reserved in parts could wait for each other.
        let length = match content_length(&request) {
            Some(length) if length > MAX_BODY => return respond_and_close(StatusCode::PAYLOAD_TOO_LARGE),
            Some(length) => length,
            None => MAX_BODY,
        };
        let length = u32::try_from(length).unwrap_or(MAX_BODIES);
        let Ok(_reservation) = self.bodies.acquire_many(length).await else {
            return respond_and_close(StatusCode::SERVICE_UNAVAILABLE);
        };
        let body = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = match timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return respond_and_close(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Ok(Err(_)) => return respond_and_close(StatusCode::BAD_REQUEST),
            Err(_) => return respond_and_close(StatusCode::REQUEST_TIMEOUT),
        };
        let response = self.engine.dispatch(&target, body).await;
        let status = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        respond(status, response.body)
    }
}

fn content_length(request: &Request<Incoming>) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns a response with the headers that SDKs read: the checksum, and the request id, which they log.
fn respond(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let sum = crc32fast::hash(&body);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
    headers.insert("x-amz-crc32", sum.into());
    if let Ok(id) = HeaderValue::from_str(&request_id()) {
        headers.insert("x-amzn-requestid", id);
    }
    response
}

/// Returns a response that closes the connection, since the request's body was not read to its end.
fn respond_and_close(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = respond(status, Bytes::new());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Returns a request id of 52 characters, like DynamoDB's.
fn request_id() -> String {
    let mut bytes = [0; 26];
    // If the operating system has no random bytes, all ids are the same, which does no harm.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
