//! To the upstream and back to the response's head.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::ResponseBody;
use super::inject::Outbound;
use super::refusal::{Malformed, Refusal};
use crate::upstream::{ConnectError, Connection, Pool, Progress};

/// An upstream's response, its body still coming.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response<ResponseBody>,
    /// Which server gave it.
    pub(super) server: Arc<str>,
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
        /// What hyper says.
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
            Self::Connect(_) => Refusal::Unreachable,
            Self::Broken { .. } | Self::Malformed { .. } => Refusal::BadAnswer,
            Self::Timeout { .. } => Refusal::Timeout,
            Self::ClientStalled => Refusal::BodyTimeout,
            Self::ClientBroken => Refusal::Malformed(Malformed::Framing),
        }
    }
}

/// Sends `outbound` over a connection of `pool`.
///
/// A pooled connection may have been closed by the server while it was idle. As long as nothing of the request has
/// been written it goes over the next one; after that it is not repeated, since the server may have acted on it.
///
/// # Errors
/// See [`ForwardError`].
pub(super) async fn forward(pool: &Rc<Pool>, outbound: Outbound) -> Result<Answer, ForwardError> {
    let limit = pool.upstream().response_timeout;
    let mut request = outbound.request;
    let progress = request.body().progress();
    loop {
        let mut connection = pool.connect().await?;
        let sending = connection.sender().try_send_request(request);
        let Some(sent) = within(limit, &progress, sending).await else {
            let server = connection.server();
            // An upstream that does not read keeps the client from sending.
            let stalled = progress.is_waiting();
            return Err(if stalled {
                ForwardError::ClientStalled
            } else {
                ForwardError::Timeout { server, limit }
            });
        };
        match sent {
            Ok(response) => return answer(response, connection, &progress, limit),
            Err(mut failed) => match failed.take_message() {
                Some(unsent) if connection.is_reused() => request = unsent,
                _ if progress.is_slow() => return Err(ForwardError::ClientStalled),
                _ if progress.is_broken() => return Err(ForwardError::ClientBroken),
                _ => {
                    let server = connection.server();
                    return Err(ForwardError::Broken { server, error: failed.error().to_string() });
                }
            },
        }
    }
}

/// Waits for the response's head: as long as the body is still being sent, `limit` is that of its next piece.
/// Who stops waiting drops the request, which closes the connection.
async fn within<F: Future>(limit: Duration, progress: &Progress, sending: F) -> Option<F::Output> {
    let mut sending = std::pin::pin!(sending);
    loop {
        let frames = progress.frames();
        match tokio::time::timeout(limit, sending.as_mut()).await {
            Ok(sent) => return Some(sent),
            Err(_) if progress.frames() == frames => return None,
            Err(_) => {}
        }
    }
}

fn answer(
    response: Response<Incoming>,
    connection: Connection,
    progress: &Rc<Progress>,
    limit: Duration,
) -> Result<Answer, ForwardError> {
    let server = connection.server();
    let headers = response.headers();
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let what = match (encodings.next(), encodings.next()) {
        _ if response.status() == StatusCode::SWITCHING_PROTOCOLS => "switches protocols unasked",
        (Some(_), _) if headers.contains_key(CONTENT_LENGTH) => "has two framings",
        // hyper takes any coding off whose last is chunked; the rest would go on undeclared.
        (Some(coding), more) if more.is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            "has a transfer coding other than chunked"
        }
        _ => {
            let progress = Rc::clone(progress);
            let mut response = response
                .map(|incoming| ResponseBody::upstream(incoming, connection.into_lease(), progress, limit));
            // That of the connection to the client, whatever the upstream speaks (RFC 9110, 2.5).
            *response.version_mut() = Version::HTTP_11;
            return Ok(Answer { response, server });
        }
    };
    Err(ForwardError::Malformed { server, what })
}
