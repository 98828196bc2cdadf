//! The engine's API over HTTP, so that apps on this machine can use their own SDK: boto3 with `endpoint_url` and any
//! credentials.
//!
//! 1. It is served on loopback addresses only, since nothing is authenticated.
//! 2. No browser is answered: a page from anywhere can send requests to this machine, but not without `Origin`, and a
//!    page whose own name was made to lead here, which sends none, asks in that name.
//! 3. Connections, the bytes of bodies being read, and the time for a head and a body are bounded.

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
use crate::host::names_this_machine;
use crate::store::StoreOpenError;

/// DynamoDB takes requests of 16 MB.
const MAX_BODY: usize = 17 * 1024 * 1024;
/// The bytes of all the bodies being read and answered.
const MAX_BODIES: u32 = 8 * 17 * 1024 * 1024;
const MAX_CONNECTIONS: usize = 512;
/// For a request's head, and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// After an accept that failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// As DynamoDB writes errors, so that SDKs show the message.
const FOREIGN_HOST: &[u8] = br#"{"__type":"com.amazon.coral.service#AccessDeniedException","message":"the embedded store takes requests to 127.0.0.1, [::1] or localhost, by that name"}"#;

/// Listens on a loopback address.
///
/// # Errors
/// If it is not one, or is taken.
pub(in crate::store) async fn bind(address: SocketAddr) -> Result<TcpListener, StoreOpenError> {
    if !address.ip().is_loopback() {
        return Err(StoreOpenError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| StoreOpenError::Listen { address, source })
}

impl Engine {
    /// Serves the engine's API for as long as it is polled; dropping it ends every connection. A
    /// connection to an address that is not loopback is not answered, whatever the listener is bound to.
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
                    tracing::warn!(%error, "the embedded engine's port accepts no connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !stream.local_addr().is_ok_and(|address| address.ip().is_loopback()) {
                continue;
            }
            let port = Port { engine: self.clone(), bodies: bodies.clone() };
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let port = port.clone();
                    async move { Ok::<_, io::Error>(port.answer(request).await) }
                });
                // A connection that breaks off is the client's affair.
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
struct Port {
    engine: Engine,
    bodies: Arc<Semaphore>,
}

impl Port {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.headers().contains_key(ORIGIN) {
            return respond(StatusCode::FORBIDDEN, Bytes::new());
        }
        if !names_this_machine(request.headers()) {
            return respond(StatusCode::MISDIRECTED_REQUEST, Bytes::from_static(FOREIGN_HOST));
        }
        if request.method() != Method::POST {
            return respond(StatusCode::NOT_FOUND, Bytes::from_static(b"<UnknownOperationException/>\n"));
        }
        let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
        let target = target.unwrap_or_default().to_owned();

        // Taken for the whole body at once: piece by piece, bodies could wait for each other.
        let share = match declared_length(&request) {
            Some(length) if length > MAX_BODY => return hang_up(StatusCode::PAYLOAD_TOO_LARGE),
            Some(length) => length,
            None => MAX_BODY,
        };
        let share = u32::try_from(share).unwrap_or(MAX_BODIES);
        let Ok(_share) = self.bodies.acquire_many(share).await else {
            return hang_up(StatusCode::SERVICE_UNAVAILABLE);
        };
        let body = Limited::new(request.into_body(), MAX_BODY).collect();
        let body = match timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return hang_up(StatusCode::PAYLOAD_TOO_LARGE);
            }
            Ok(Err(_)) => return hang_up(StatusCode::BAD_REQUEST),
            Err(_) => return hang_up(StatusCode::REQUEST_TIMEOUT),
        };
        let answer = self.engine.dispatch(&target, body).await;
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        respond(status, answer.body)
    }
}

fn declared_length(request: &Request<Incoming>) -> Option<usize> {
    request.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// With the headers that SDKs look at: some check the sum, and all of them log the id.
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

/// The rest of the body was not read, so the connection is of no more use.
fn hang_up(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = respond(status, Bytes::new());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// 52 letters and digits, as DynamoDB's.
fn request_id() -> String {
    let mut bytes = [0; 26];
    // Without the system's randomness all ids are alike, which harms nobody.
    let _ = getrandom::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
