//! `[server.limits]`: the most that a client may ask for at once.

use super::section::Section;
use super::value::{Fault, integer, size};

/// `[server.limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way on one HTTP/2 connection.
    pub streams: u32,
    /// Streams of one HTTP/2 connection that were reset and are still accounted for; one more ends the connection.
    pub resets: usize,
    /// A request's head, all of it.
    pub header_bytes: usize,
    /// Header lines of a request.
    pub headers: usize,
    /// A request's target.
    pub uri: usize,
}

pub(super) fn read(server: &mut Section<'_, '_>) -> Limits {
    server.table("limits", |limits| {
        let read = Limits {
            streams: limits.get("streams", integer(1..=10_000)).unwrap_or(100),
            resets: limits.get("resets", integer(1..=10_000)).unwrap_or(20),
            header_bytes: limits.get("header_bytes", size(4096..=1024 * 1024)).unwrap_or(64 * 1024),
            headers: limits.get("headers", integer(10..=10_000)).unwrap_or(100),
            uri: limits.get("uri", size(256..=64 * 1024 - 2)).unwrap_or(16 * 1024),
        };
        if read.uri > read.header_bytes {
            let fault = Fault::new("must not be above `header_bytes`, which holds it");
            limits.refuse_or("uri", "header_bytes", fault);
        }
        read
    })
}
