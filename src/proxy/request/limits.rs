//! The route's limits: the request rate per client, and the size of the body.

use std::sync::Arc;

use super::inbound::Sanitized;
use super::rate_limit;
use super::routing::Routed;
use crate::config::Destination;
use crate::proxy::model::Route;
use crate::proxy::refusal::Refusal;
use crate::time::Now;

/// A request within its route's limits. Only [`LimitsChecked::check`] makes one.
#[derive(Debug)]
pub struct LimitsChecked<'g> {
    request: Sanitized,
    route: &'g Arc<Route>,
}

impl<'g> LimitsChecked<'g> {
    /// Counts a request against the route's rate limit, and checks the announced size of its body. A body without an
    /// announced size is measured while it is sent.
    ///
    /// # Errors
    /// Returns [`Refusal::TooMany`] or [`Refusal::BodyTooLarge`].
    pub fn check(routed: Routed<'g>, now: Now) -> Result<Self, Refusal> {
        let (request, route) = routed.into_parts();
        rate_limit::count(route.rate.as_ref(), &request, now)?;
        check_body(&route.destination, &request)?;
        Ok(Self { request, route })
    }

    pub(super) fn into_parts(self) -> (Sanitized, &'g Arc<Route>) {
        (self.request, self.route)
    }
}

fn check_body(destination: &Destination, request: &Sanitized) -> Result<(), Refusal> {
    let Destination::Upstream(forwarding) = destination else { return Ok(()) };
    match forwarding.max_body {
        Some(max) if request.announced_size() > max => Err(Refusal::BodyTooLarge),
        Some(_) | None => Ok(()),
    }
}
