//! `[server.limits]`: how much clients may take of what the gateway has.

use super::section::Section;
use super::value::{Fault, integer, one_of, size};
use crate::rate::Rate;

/// How many client connections there may be if nobody says.
pub const USUAL_CONNECTIONS: usize = 20_000;

/// `[server.limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections of all listeners at a time; none: [`USUAL_CONNECTIONS`], or as many of them as the system's
    /// limit of open files allows for.
    pub connections: Option<usize>,
    /// Connections of one address at a time; none: no bound.
    pub connections_per_address: Option<usize>,
    /// Requests under way on one HTTP/2 connection.
    pub streams: u32,
    /// Streams of one HTTP/2 connection that were reset and are still accounted for; one more ends the connection.
    pub resets: usize,
    /// Streams of one address that end before their responses; beyond that, its connections are read when there is a
    /// token again.
    pub reset_rate: Option<Rate>,
    /// A request's head, all of it.
    pub header_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// A request's target.
    pub uri: usize,
    /// A request's body, where the route does not say.
    pub max_body: Option<u64>,
    /// Requests of one address.
    pub rate: Option<Rate>,
    /// Reads for cookies of one address that name no session.
    pub misses: Option<Rate>,
}

pub(super) fn read(server: &mut Section<'_, '_>) -> Limits {
    server.table("limits", |limits| {
        let read = Limits {
            connections: limits.get("connections", integer(1..=10_000_000)),
            connections_per_address: limits
                .get("connections_per_address", integer(0..=10_000_000))
                .filter(|bound| *bound > 0),
            streams: limits.get("streams", integer(1..=10_000)).unwrap_or(100),
            resets: limits.get("resets", integer(1..=10_000)).unwrap_or(20),
            reset_rate: unless_off(limits, "reset_rate", Rate { per_second: 100, burst: 500 }),
            header_bytes: limits.get("header_bytes", size(4096..=1024 * 1024)).unwrap_or(64 * 1024),
            headers: limits.get("headers", integer(10..=10_000)).unwrap_or(100),
            uri: limits.get("uri", size(256..=64 * 1024 - 2)).unwrap_or(16 * 1024),
            max_body: limits.get("max_body", size(0..=1 << 40)).map(|size| size as u64),
            rate: rate(limits, "rate"),
            misses: unless_off(limits, "misses", Rate { per_second: 10, burst: 20 }),
        };
        if read.uri > read.header_bytes {
            let fault = Fault::new("must not be above `header_bytes`, which holds it");
            limits.refuse_or("uri", "header_bytes", &["uri", "header_bytes"], fault);
        }
        let connections = read.connections.unwrap_or(USUAL_CONNECTIONS);
        if read.connections_per_address.is_some_and(|bound| bound >= connections) {
            let fault = Fault::new("has no effect: no address could have so many");
            let fault = fault.hint("it must be below `connections`");
            limits.refuse("connections_per_address", &["connections"], fault);
        }
        read
    })
}

/// `{ per_second = 10, burst = 20 }`; none: as often as anybody likes.
pub(super) fn rate(section: &mut Section<'_, '_>, key: &'static str) -> Option<Rate> {
    section.table(key, |rate| {
        let per_second = rate.require("per_second", integer(1..=1_000_000));
        let burst = rate.get("burst", integer(1..=1_000_000));
        let per_second = per_second?;
        Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
    })
}

/// The same, but `usual` unless it is turned off.
fn unless_off(limits: &mut Section<'_, '_>, key: &'static str, usual: Rate) -> Option<Rate> {
    let is_off = limits.get(key, |value| match value.as_table() {
        Some(_) => Ok(false),
        None => one_of(&[("unlimited", true)])(value),
    });
    match is_off {
        None if !limits.has(key) => Some(usual),
        None | Some(true) => None,
        Some(false) => rate(limits, key),
    }
}
