//! To the upstream and back to the response's head.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::body::ResponseBody;
use super::inject::Outbound;
use super::refusal::{Malformed, Refusal};
use super::upgrade;
use crate::upstream::{ConnectError, Connection, Incoming, Lease, Pool, Progress, RequestBody, SendError};

/// An upstream's response, its body still coming.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<ResponseBody>,
    /// Which server gave it.
    pub(super) server: Arc<str>,
    /// Its host and port.
    pub(super) authority: Authority,
    /// Its end of the tunnel, if it switches protocols as it was asked to.
    pub(super) far: Option<Lease>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    /// No server took the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or what came is not HTTP.
    #[error("{server}: {error}")]
    Broken {
        /// Which server.
        server: Arc<str>,
        /// What was wrong.
        error: String,
    },
    /// The response's framing could be read in two ways, or it switches to a protocol that nobody asked for.
    #[error("{server}: the response {what}")]
    Malformed {
        /// Which server.
        server: Arc<str>,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No response in time.
    #[error("{server}: no response within {limit:?}")]
    Timeout {
        /// Which server.
        server: Arc<str>,
        /// The limit.
        limit: Duration,
    },
    /// The request's body turned out to be larger than it may be.
    #[error("the request's body is larger than `max_body`")]
    BodyTooLarge,
    /// The client stopped sending its request's body.
    #[error("the client stopped sending")]
    ClientStalled,
    /// The client broke off, or sent what is no body.
    #[error("the request's body broke off, or its framing is wrong")]
    ClientBroken,
}

impl ForwardError {
    /// What the client is told.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(ConnectError::Failed { .. }) => Refusal::Unreachable,
            Self::Connect(ConnectError::NoServer(_)) => Refusal::NoServer,
            Self::Connect(ConnectError::Busy { .. }) => Refusal::Busy,
            Self::Broken { .. } | Self::Malformed { .. } => Refusal::BadAnswer,
            Self::Timeout { .. } => Refusal::Timeout,
            Self::BodyTooLarge => Refusal::BodyTooLarge,
            Self::ClientStalled => Refusal::BodyTimeout,
            Self::ClientBroken => Refusal::Malformed(Malformed::Framing),
        }
    }
}

/// Sends `outbound` to a server of `pool`. `affinity` is what sessions stick to servers by.
///
/// What is sent twice:
///
/// 1. A request of which nothing was written, whatever it is: to another server if the connection could not be had, over
///    another connection if it was closed while it was idle.
/// 2. A request that the server says it has not looked at (HTTP/2's REFUSED_STREAM, and GOAWAY in order).
/// 3. A request with an idempotent method (RFC 9110, 9.2.2) whose connection broke before any of the response came.
///
/// The last two only if nothing of the body was taken from the client, at most `attempts` times, and within the
/// upstream's budget. No response, and so no order of the session, has been seen by then. Everything else the server
/// may have acted on, and it is not repeated.
///
/// # Errors
/// See [`ForwardError`].
pub(super) async fn forward(
    pool: &Rc<Pool>,
    outbound: Outbound,
    affinity: impl FnOnce() -> u64,
) -> Result<Answer, ForwardError> {
    let upstream = pool.upstream();
    let limit = outbound.response_timeout.unwrap_or(upstream.config().response_timeout);
    let mut attempts_left = upstream.config().retries.attempts.saturating_sub(1);
    upstream.count_request();
    let (mut request, mut said) = (outbound.request, outbound.said);
    let progress = request.body().progress();
    let mut choice = pool.choose(affinity);
    if request.headers().contains_key(UPGRADE) {
        choice.only_http1();
    }
    loop {
        let mut connection = choice.connect().await?;
        if outbound.host_is_server
            && let Ok(host) = HeaderValue::from_str(connection.authority().as_str())
        {
            said.set_host(host);
        }
        // HTTP/1.1 gives the head back by itself.
        let mut spare = (attempts_left > 0 && connection.is_http2()).then(|| Spare::of(&request));
        let Some(sent) = connection.send(request, &said, limit).await else {
            let server = connection.server();
            // An upstream that does not read keeps the client from sending.
            let stalled = progress.is_waiting();
            if stalled {
                return Err(ForwardError::ClientStalled);
            }
            connection.fail("no response in time");
            return Err(ForwardError::Timeout { server, limit });
        };
        let SendError { parts, unsent, cause } = match sent {
            Ok(response) => {
                connection.answered(response.status());
                progress.answered();
                return answer(response, connection, &progress, limit, outbound.accept.as_deref());
            }
            Err(failed) => failed,
        };
        spare = parts.map(Spare::from).or_else(|| spare.take());
        let error = cause.to_string();
        if unsent
            && let Some(again) =
                spare.take_if(|_| progress.is_whole()).and_then(|spare| spare.request(&progress))
        {
            let reused = connection.is_reused();
            let failed = if reused { connection.give_up() } else { connection.fail(&error) };
            if reused {
                choice.unsent();
            } else if !choice.again(&failed, error.clone()) {
                return Err(ForwardError::Broken { server: failed.server, error });
            }
            request = again;
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
        let again = spare.filter(|spare| attempts_left > 0 && (refused || is_idempotent(&spare.method)));
        let again = again.and_then(|spare| spare.request(&progress));
        let failed = if refused { connection.give_up() } else { connection.fail(&error) };
        match again {
            Some(again) if choice.again(&failed, error.clone()) && upstream.allows_retry() => {
                tracing::debug!(server = %failed.server, %error, "sent again");
                attempts_left = attempts_left.saturating_sub(1);
                request = again;
            }
            Some(_) | None => return Err(ForwardError::Broken { server: failed.server, error }),
        }
    }
}

/// What a request is made of but for its body, kept so that it can be sent again.
#[derive(Debug)]
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        Self { method, uri, headers: request.headers().clone() }
    }

    /// The request, if its body is still whole.
    fn request(self, progress: &Rc<Progress>) -> Option<Request<RequestBody>> {
        let mut request = Request::new(progress.again()?);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

impl From<Parts> for Spare {
    fn from(parts: Parts) -> Self {
        Self { method: parts.method, uri: parts.uri, headers: parts.headers }
    }
}

fn is_idempotent(method: &Method) -> bool {
    // Not `Method::is_idempotent`, which would take in whatever is added to it.
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    )
}

fn answer(
    response: Response<Incoming>,
    connection: Connection,
    progress: &Rc<Progress>,
    limit: Duration,
    accept: Option<&str>,
) -> Result<Answer, ForwardError> {
    let (server, authority) = (connection.server(), connection.authority().clone());
    if let Some(accept) = accept.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        upgrade::check_agreement(response.headers(), accept)
            .map_err(|what| ForwardError::Malformed { server: Arc::clone(&server), what })?;
        return Ok(Answer {
            response: response.map(|_| ResponseBody::full(Bytes::new())),
            server,
            authority,
            far: Some(connection.into_lease()),
        });
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ForwardError::Malformed { server, what: "switches protocols unasked" });
    }
    let progress = Rc::clone(progress);
    let mut response =
        response.map(|incoming| ResponseBody::upstream(incoming, connection.into_lease(), progress, limit));
    // That of the connection to the client, whatever the upstream speaks (RFC 9110, 2.5).
    *response.version_mut() = Version::HTTP_11;
    Ok(Answer { response, server, authority, far: None })
}
