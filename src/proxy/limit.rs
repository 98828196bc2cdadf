//! How much and how often a client may ask, decided before anything is asked on its behalf.

use std::net::Ipv4Addr;

use super::inbound::Sanitized;
use super::refusal::Refusal;
use crate::config::Destination;
use crate::rate::{Limiter, Meter};
use crate::time::Now;

/// `limiter` as it is about the one who sent `request`.
pub(super) fn meter<'l>(limiter: Option<&'l Limiter>, request: &Sanitized) -> Meter<'l> {
    match request.origin().client {
        Some(client) => Meter::new(limiter, client),
        // Whoever came by a unix socket has no address to be measured by.
        None => Meter::new(None, Ipv4Addr::UNSPECIFIED.into()),
    }
}

/// Counts `request` against what its client may send.
///
/// # Errors
/// If that is too much.
pub(super) fn rate(limiter: Option<&Limiter>, request: &Sanitized, now: Now) -> Result<(), Refusal> {
    meter(limiter, request).take(now.mono).map_err(Refusal::TooMany)
}

/// Whether the body that `request` announces is one that its destination takes. What announces no length is measured on
/// its way.
///
/// # Errors
/// If it is too large.
pub(super) fn body(destination: &Destination, request: &Sanitized) -> Result<(), Refusal> {
    let Destination::Upstream(forwarding) = destination else { return Ok(()) };
    match forwarding.max_body {
        Some(most) if request.announced_size() > most => Err(Refusal::BodyTooLarge),
        Some(_) | None => Ok(()),
    }
}
