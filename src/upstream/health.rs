//! Active health checks: a GET request to every target, over a new connection with the protocol that requests use. The
//! checks run on the control runtime until the upstream is dropped.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::MissedTickBehavior;

use super::endpoint::ServerProtocol;
use super::resolve::Targets;
use super::stream::{Offer, ServerStream, Version};
use super::target::Target;
use crate::config::Health;
use crate::http1::MAX_RESPONSE_LINES;

const USER_AGENT_VALUE: HeaderValue =
    HeaderValue::from_static(concat!("sessiongate/", env!("CARGO_PKG_VERSION")));

/// The upstream's settings for health checks.
#[derive(Debug)]
pub(super) struct HealthCheck {
    /// The upstream's name, for the log.
    pub(super) upstream: String,
    pub(super) connect_timeout: Duration,
    pub(super) health: Health,
}

/// Checks all targets every `interval` of the configuration, until the upstream is dropped.
pub(super) async fn run(targets: Weak<Targets>, check: HealthCheck) {
    let health = &check.health;
    let mut tick = tokio::time::interval(health.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(targets) = targets.upgrade() else { return };
        let current = targets.current();
        let checks = current.iter().map(|target| async {
            let checked = tokio::time::timeout(health.timeout, check.send(target)).await;
            let timed_out =
                || Err(format!("no response within {}", humantime::format_duration(health.timeout)));
            target.checked(&check.upstream, health, checked.unwrap_or_else(|_| timed_out()));
        });
        join_all(checks).await;
    }
}

impl HealthCheck {
    /// Sends a health check to one target. The caller limits the time to `health.timeout`.
    async fn send(&self, target: &Arc<Target>) -> Result<(), String> {
        let health = &self.health;
        let endpoint = &target.endpoint;
        let limit = self.connect_timeout.min(health.timeout);
        let (stream, version) = ServerStream::open(endpoint, &target.address, limit, Offer::All).await?;
        let authority = health.host.as_ref().and_then(|host| Authority::try_from(host.as_str()).ok());
        let authority = authority.unwrap_or_else(|| endpoint.authority.clone());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = Method::GET;
        request.headers_mut().insert(USER_AGENT, USER_AGENT_VALUE);
        let failed = |error: hyper::Error| error.to_string();
        let status = match version {
            Version::Http1 => {
                *request.uri_mut() = health.path.parse().map_err(|_| "invalid health check path")?;
                let host =
                    HeaderValue::from_str(authority.as_str()).map_err(|_| "invalid health check host")?;
                request.headers_mut().insert(HOST, host);
                request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                // Tolerates most of the faults that are repaired in responses to requests (`http1/repair.rs`).
                let handshake = http1::Builder::new()
                    .allow_spaces_after_header_name_in_responses(true)
                    .allow_obsolete_multiline_headers_in_responses(true)
                    .ignore_invalid_headers_in_responses(true)
                    .max_headers(MAX_RESPONSE_LINES)
                    .handshake(TokioIo::new(stream));
                let (mut sender, connection) = handshake.await.map_err(failed)?;
                let sending = async { sender.send_request(request).await.map(|response| response.status()) };
                drive(connection, sending).await
            }
            Version::Http2 => {
                let scheme =
                    if matches!(endpoint.protocol, ServerProtocol::Tls(_)) { "https" } else { "http" };
                let uri =
                    Uri::builder().scheme(scheme).authority(authority).path_and_query(&*health.path).build();
                *request.uri_mut() = uri.map_err(|_| "invalid health check path")?;
                *request.version_mut() = http::Version::HTTP_2;
                let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
                let (mut sender, connection) = handshake.await.map_err(failed)?;
                let sending = async { sender.send_request(request).await.map(|response| response.status()) };
                drive(connection, sending).await
            }
        };
        let status = status?;
        if health.status.contains(status) { Ok(()) } else { Err(format!("status {}", status.as_u16())) }
    }
}

/// Drives the connection until the response head is received.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    sending: impl Future<Output = hyper::Result<http::StatusCode>>,
) -> Result<http::StatusCode, String> {
    let mut connection = std::pin::pin!(connection);
    let mut sending = std::pin::pin!(sending);
    tokio::select! {
        biased;
        sent = sending.as_mut() => return sent.map_err(|error| error.to_string()),
        // The connection may end at the same time as the response head is received.
        _ = connection.as_mut() => {}
    }
    sending.await.map_err(|error| error.to_string())
}
