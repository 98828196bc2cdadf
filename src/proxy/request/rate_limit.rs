//! The gateway's request rate, per client, checked before anything is done for the client.

use std::net::Ipv4Addr;

use super::inbound::Sanitized;
use crate::proxy::refusal::Refusal;
use crate::rate::{ClientLimiter, Limiter};
use crate::time::Now;

/// A request of a client that is within the gateway's request rate. Only [`RateChecked::check`] makes one.
#[derive(Debug)]
pub struct RateChecked(Sanitized);

impl RateChecked {
    /// Counts `request` against the gateway's rate of its client.
    ///
    /// # Errors
    /// Returns [`Refusal::TooMany`] if the client is over it.
    pub fn check(request: Sanitized, limiter: Option<&Limiter>, now: Now) -> Result<Self, Refusal> {
        count(limiter, &request, now)?;
        Ok(Self(request))
    }

    pub(super) fn into_request(self) -> Sanitized {
        self.0
    }
}

/// Counts `request` against what `limiter` allows its client.
///
/// # Errors
/// Returns [`Refusal::TooMany`] if the client is over the limit.
pub(super) fn count(limiter: Option<&Limiter>, request: &Sanitized, now: Now) -> Result<(), Refusal> {
    client_limiter(limiter, request).try_acquire(now.mono).map_err(Refusal::TooMany)
}

/// Returns `limiter` for the client that sent `request`.
pub(super) fn client_limiter<'l>(limiter: Option<&'l Limiter>, request: &Sanitized) -> ClientLimiter<'l> {
    match request.origin().client {
        Some(client) => ClientLimiter::new(limiter, client),
        // A client on a unix socket has no address to be limited by.
        None => ClientLimiter::new(None, Ipv4Addr::UNSPECIFIED.into()),
    }
}
