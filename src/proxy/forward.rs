//! Forwarding: sends the request to a server of its upstream, and returns the response once its head has arrived.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::uri::Authority;
use http::{HeaderValue, Method, StatusCode};

use super::refusal::{Malformed, Refusal};
use super::request::{Outbound, OutboundParts, check_switch};
use super::response::ResponseBody;
use crate::message::{Request, Response};
use crate::upstream::{BodyProgress, ConnectError, Connection, Incoming, Lease, Pool, SendError};

/// An upstream's response. Its body has not been read yet.
#[derive(Debug)]
pub(super) struct UpstreamResponse {
    pub(super) response: Response<ResponseBody>,
    /// The server that sent it.
    pub(super) server: Arc<str>,
    /// The server's host and port.
    pub(super) authority: Authority,
    /// The upstream's end of the tunnel, if the response switches protocols.
    pub(super) upgraded: Option<Lease>,
}

/// The reason why forwarding failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    /// No connection to a server could be obtained.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or the response is not valid HTTP.
    #[error("{server}: {error}")]
    Broken {
        /// The server.
        server: Arc<str>,
        /// The error.
        error: String,
    },
    /// The response switches protocols in an invalid way, or without a request to do so.
    #[error("{server}: the response {what}")]
    Malformed {
        /// The server.
        server: Arc<str>,
        /// The fault of the response, for the message.
        what: &'static str,
    },
    /// No response arrived before the timeout.
    #[error("{server}: no response within {limit:?}")]
    Timeout {
        /// The server.
        server: Arc<str>,
        /// The timeout.
        limit: Duration,
    },
    /// The request's body is larger than the route's limit.
    #[error("the request's body is larger than `max_body`")]
    BodyTooLarge,
    /// The client sent its request's body too slowly.
    #[error("the client sent the request's body too slowly")]
    ClientStalled,
    /// The client disconnected, or its body has invalid framing.
    #[error("the request's body ended early, or has invalid framing")]
    ClientBroken,
}

impl ForwardError {
    /// Returns the refusal for the client.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(ConnectError::Failed { .. }) => Refusal::Unreachable,
            Self::Connect(ConnectError::NoServer(_)) => Refusal::NoServer,
            Self::Connect(ConnectError::Busy { .. }) => Refusal::Busy,
            Self::Broken { .. } | Self::Malformed { .. } => Refusal::BadResponse,
            Self::Timeout { .. } => Refusal::Timeout,
            Self::BodyTooLarge => Refusal::BodyTooLarge,
            Self::ClientStalled => Refusal::BodyTimeout,
            Self::ClientBroken => Refusal::Malformed(Malformed::Framing),
        }
    }
}

/// Sends `outbound` to a server of `pool`. `affinity` returns the hash that keeps a session on one server.
///
/// A request is retried in three cases:
///
/// 1. No byte of the request was sent, whatever its method. It is sent to another server if the connection could not be
///    opened, and over another connection if an idle one was closed.
/// 2. The server states that it has not processed the request (REFUSED_STREAM or GOAWAY in HTTP/2).
/// 3. The method is idempotent (RFC 9110, 9.2.2), and the connection or HTTP/2 stream broke before any byte of the
///    response arrived.
///
/// Cases 2 and 3 also require that no part of the body was read from the client. They are limited to `attempts` and to
/// the upstream's retry budget. In all cases, no response and so no session command has been received. Other requests
/// are not retried, because a server may have acted on them.
///
/// # Errors
/// See [`ForwardError`].
pub(super) async fn forward(
    pool: &Rc<Pool>,
    outbound: Outbound,
    affinity: impl FnOnce() -> u64,
) -> Result<UpstreamResponse, ForwardError> {
    let OutboundParts { request, added, host_is_server, response_timeout, accept } = outbound.into_parts();
    let (mut request, mut added) = (request, added);
    let upstream = pool.upstream();
    let limit = response_timeout.unwrap_or(upstream.config().response_timeout);
    let mut attempts_left = upstream.config().retries.attempts.saturating_sub(1);
    upstream.count_request();
    let progress = request.body.progress();
    let mut choice = pool.choose(affinity);
    if request.head.fields.contains(&UPGRADE) {
        choice.only_http1();
    }
    loop {
        let mut connection = choice.connect().await?;
        if host_is_server && let Ok(host) = HeaderValue::from_str(connection.authority().as_str()) {
            added.set_host(host);
        }
        let Some(sent) = connection.send(request, &added, limit).await else {
            let server = connection.server();
            // The timeout is the client's fault only if the upstream waits for its body.
            let stalled = progress.is_waiting();
            if stalled {
                return Err(ForwardError::ClientStalled);
            }
            connection.record_failure("no response in time");
            return Err(ForwardError::Timeout { server, limit });
        };
        let SendError { mut head, unsent, cause } = match sent {
            Ok(response) => {
                progress.response_started();
                return upstream_response(response, connection, &progress, limit, accept.as_deref());
            }
            Err(failed) => failed,
        };
        let error = cause.to_string();
        if unsent
            && let Some(head) = head.take_if(|_| progress.is_whole())
            && let Some(body) = progress.retry()
        {
            let reused = connection.is_reused();
            let failed = if reused { connection.discard() } else { connection.record_failure(&error) };
            if reused {
                choice.require_new_connection();
            } else if !choice.retry(&failed, error.clone()) {
                return Err(ForwardError::Broken { server: failed.server, error });
            }
            request = Request { head, body };
            continue;
        }
        if progress.is_too_large() {
            return Err(ForwardError::BodyTooLarge);
        }
        if progress.is_slow() {
            return Err(ForwardError::ClientStalled);
        }
        if progress.is_broken() {
            return Err(ForwardError::ClientBroken);
        }
        let refused = cause.is_refused();
        let head = head.filter(|head| attempts_left > 0 && (refused || is_idempotent(&head.method)));
        let retry = head.and_then(|head| Some(Request { head, body: progress.retry()? }));
        let failed = if refused { connection.discard() } else { connection.record_failure(&error) };
        match retry {
            Some(retry) if choice.retry(&failed, error.clone()) && upstream.allows_retry() => {
                tracing::debug!(server = %failed.server, %error, "retried");
                attempts_left = attempts_left.saturating_sub(1);
                request = retry;
            }
            Some(_) | None => return Err(ForwardError::Broken { server: failed.server, error }),
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    // `Method::is_idempotent` is not used, because later versions of the crate may add methods to it.
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

/// Checks a response that switches protocols, and wraps the body of any other response. Records whether the server has
/// failed.
fn upstream_response(
    response: Response<Incoming>,
    connection: Connection,
    progress: &Rc<BodyProgress>,
    limit: Duration,
    accept: Option<&str>,
) -> Result<UpstreamResponse, ForwardError> {
    let (server, authority) = (connection.server(), connection.authority().clone());
    if let Some(accept) = accept.filter(|_| response.status == StatusCode::SWITCHING_PROTOCOLS) {
        if let Err(what) = check_switch(&response.fields, accept) {
            connection.record_failure(what);
            return Err(ForwardError::Malformed { server, what });
        }
        connection.record_response(response.status);
        return Ok(UpstreamResponse {
            response: response.map(|_| ResponseBody::full(Bytes::new())),
            server,
            authority,
            upgraded: Some(connection.into_lease()),
        });
    }
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let what = "switches protocols without a request to do so";
        connection.record_failure(what);
        return Err(ForwardError::Malformed { server, what });
    }
    connection.record_response(response.status);
    let progress = Rc::clone(progress);
    let response =
        response.map(|incoming| ResponseBody::upstream(incoming, connection.into_lease(), progress, limit));
    Ok(UpstreamResponse { response, server, authority, upgraded: None })
}
