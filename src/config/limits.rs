//! `[server.limits]`: limits on the resources that clients can use.

use super::section::Section;
use super::value::{Fault, integer, one_of, size};
use crate::rate::Rate;

/// The default of `connections`.
pub const DEFAULT_CONNECTIONS: usize = 20_000;

/// `[server.limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum concurrent client connections of all listeners. `None` means [`DEFAULT_CONNECTIONS`], or fewer if the limit
    /// on open files requires it.
    pub connections: Option<usize>,
    /// Maximum concurrent connections of one client address. `None` means no limit.
    pub connections_per_address: Option<usize>,
    /// Maximum concurrent streams of one HTTP/2 connection.
    pub streams: u32,
    /// Maximum number of streams of one HTTP/2 connection that the client has reset before the gateway accepted them.
    /// One more closes the connection.
    pub resets: usize,
    /// Limit on the streams of one client address that end before the response is complete. Beyond it, reads from the
    /// address's connections are throttled.
    pub reset_rate: Option<Rate>,
    /// Maximum size of a request head.
    pub header_bytes: usize,
    /// Maximum number of header fields of a request.
    pub headers: usize,
    /// Maximum length of a request target.
    pub uri: usize,
    /// Maximum size of a request body, on routes that do not set their own.
    pub max_body: Option<u64>,
    /// Limit on the requests of one client address.
    pub rate: Option<Rate>,
    /// Limit on the lookups of unknown session ids by one client address.
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
            reset_rate: rate_or_default(limits, "reset_rate", Rate { per_second: 100, burst: 500 }),
            header_bytes: limits.get("header_bytes", size(4096..=1024 * 1024)).unwrap_or(64 * 1024),
            headers: limits.get("headers", integer(10..=10_000)).unwrap_or(100),
            uri: limits.get("uri", size(256..=64 * 1024 - 2)).unwrap_or(16 * 1024),
            max_body: limits.get("max_body", size(0..=1 << 40)).map(|size| size as u64),
            rate: rate(limits, "rate"),
            misses: rate_or_default(limits, "misses", Rate { per_second: 10, burst: 100 }),
        };
        if read.uri > read.header_bytes {
            let fault = Fault::new("must not exceed `header_bytes`, which includes it");
            limits.refuse_or("uri", "header_bytes", &["uri", "header_bytes"], fault);
        }
        let connections = read.connections.unwrap_or(DEFAULT_CONNECTIONS);
        if read.connections_per_address.is_some_and(|bound| bound >= connections) {
            let fault = Fault::new("has no effect unless it is below `connections`");
            limits.refuse("connections_per_address", &["connections"], fault);
        }
        read
    })
}

/// Reads `{ per_second = 10, burst = 20 }`. Returns `None`, for no limit, if the key is absent.
pub(super) fn rate(section: &mut Section<'_, '_>, key: &'static str) -> Option<Rate> {
    section.table(key, |rate| {
        let per_second = rate.require("per_second", integer(1..=1_000_000));
        let burst = rate.get("burst", integer(1..=1_000_000));
        let per_second = per_second?;
        Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
    })
}

/// Reads a rate. Returns `default` if the key is absent, and `None` if it is `"unlimited"`.
fn rate_or_default(limits: &mut Section<'_, '_>, key: &'static str, default: Rate) -> Option<Rate> {
    let is_off = limits.get(key, |value| match value.as_table() {
        Some(_) => Ok(false),
        None => one_of(&[("unlimited", true)])(value).map_err(|fault| Fault {
            message: "must be `unlimited`, or a table such as `{ per_second = 10 }`".to_owned(),
            ..fault
        }),
    });
    match is_off {
        None if !limits.has(key) => Some(default),
        None | Some(true) => None,
        Some(false) => rate(limits, key),
    }
}
