//! `[server]`

use std::time::Duration;

use super::environment::Environment;
use super::section::Section;
use super::value::{boolean, duration, integer, one_of, size};

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Worker threads; never 0 once resolved.
    pub workers: usize,
    /// How log lines are written.
    pub log: LogFormat,
    /// Whether each request writes a line.
    pub access_log: bool,
    /// The budget of all injected headers of a request: the sum of names and values.
    pub max_header_bytes: usize,
    /// What happens to client headers whose names a CGI-like server might read as another name.
    pub odd_headers: OddHeaders,
    /// How long a connection may take to send a request's head, and may stay idle between requests.
    pub header_timeout: Duration,
    /// Whether a change of the configuration's files is a reload.
    pub watch: bool,
    /// How long requests are taken still after SIGTERM, though readiness is gone.
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish after that.
    pub drain: Duration,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Client headers whose names hold anything but letters, digits and `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddHeaders {
    /// They are dropped.
    Drop,
    /// They pass, unless they could be read as one of ours.
    Pass,
}

pub(super) fn read(root: &mut Section<'_, '_>, environment: &dyn Environment) -> ServerConfig {
    root.table("server", |server| {
        let workers = server.get("workers", integer(0..=1024)).filter(|workers| *workers > 0);
        let log = one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let odd_headers = one_of(&[("drop", OddHeaders::Drop), ("pass", OddHeaders::Pass)]);
        let header_timeout = duration(Duration::from_millis(100)..=Duration::from_hours(1));
        let drain = || duration(Duration::ZERO..=Duration::from_hours(24));
        ServerConfig {
            workers: workers.unwrap_or_else(|| environment.cores().max(1)),
            log: server.get("log", log).unwrap_or(LogFormat::Text),
            access_log: server.get("access_log", boolean).unwrap_or(true),
            max_header_bytes: server.get("max_header_bytes", size(256..=64 * 1024)).unwrap_or(8 * 1024),
            odd_headers: server.get("odd_headers", odd_headers).unwrap_or(OddHeaders::Drop),
            header_timeout: server.get("header_timeout", header_timeout).unwrap_or(Duration::from_secs(15)),
            watch: server.get("watch", boolean).unwrap_or(true),
            drain_delay: server.get("drain_delay", drain()).unwrap_or(Duration::ZERO),
            drain: server.get("drain", drain()).unwrap_or(Duration::from_secs(30)),
        }
    })
}
