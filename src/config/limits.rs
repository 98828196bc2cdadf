//! `[server.limits]`: how much clients may take of what the gateway has.

use super::section::Section;
use super::value::{Fault, integer};

/// `[server.limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections of all listeners at a time.
    pub connections: usize,
    /// Connections of one address at a time; none: no bound.
    pub connections_per_address: Option<usize>,
}

pub(super) fn read(server: &mut Section<'_, '_>) -> Limits {
    server.table("limits", |limits| {
        let connections = limits.get("connections", integer(1..=10_000_000)).unwrap_or(20_000);
        let per_address = limits.get("connections_per_address", integer(0..=10_000_000));
        let per_address = per_address.filter(|bound| *bound > 0);
        if per_address.is_some_and(|bound| bound >= connections) {
            let fault = Fault::new("has no effect: no address could have so many");
            limits.refuse("connections_per_address", fault.hint("it must be below `connections`"));
        }
        Limits { connections, connections_per_address: per_address }
    })
}
