//! The gateway's request rate limit, per client, which is checked before routing and before the session lookup.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::inbound::Sanitized;
use crate::proxy::refusal::Refusal;
use crate::rate::{ClientLimiter, Limiter};
use crate::time::Now;

/// A request of a client that is within the gateway's rate limit. Only [`RateChecked::check`] makes one.
#[derive(Debug)]
pub struct RateChecked(Sanitized);

impl RateChecked {
    /// Counts `request` against the gateway's rate limit for its client.
    ///
    /// # Errors
    /// Returns [`Refusal::TooMany`] if the client exceeds the limit.
    pub fn check(request: Sanitized, limiter: Option<&Limiter>, now: Now) -> Result<Self, Refusal> {
        count(limiter, &request, now)?;
        Ok(Self(request))
    }

    pub(super) fn into_request(self) -> Sanitized {
        self.0
    }
}

/// Counts `request` against the limit of its client.
///
/// # Errors
/// Returns [`Refusal::TooMany`] if the client exceeds the limit.
pub(super) fn count(limiter: Option<&Limiter>, request: &Sanitized, now: Now) -> Result<(), Refusal> {
    // A client on a Unix socket has no address, and is not limited.
    let Some((limiter, client)) = limiter.zip(request.origin().client) else { return Ok(()) };
    limiter.try_acquire(client, now.mono).map_err(Refusal::TooMany)
}

/// Returns `limiter` for the client that sent `request`.
pub(super) fn client_limiter<'l>(
    limiter: Option<&'l Arc<Limiter>>,
    request: &Sanitized,
) -> ClientLimiter<'l> {
    match request.origin().client {
        Some(client) => ClientLimiter::new(limiter, client),
        // A client on a Unix socket has no address, and is not limited.
        None => ClientLimiter::new(None, Ipv4Addr::UNSPECIFIED.into()),
    }
}
