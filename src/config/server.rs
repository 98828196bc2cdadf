//! `[server]`

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::environment::Environment;
use super::limits::{self, Limits};
use super::section::Section;
use super::value::{Fault, boolean, duration, integer, one_of, size, string};

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Number of worker threads; at least 1.
    pub workers: usize,
    /// The format of the log.
    pub log: LogFormat,
    /// The destination of the access log.
    pub access_log: AccessLogTarget,
    /// How requests without a usable `traceparent` are handled.
    pub traces: Traces,
    /// Maximum size of the headers that are injected from claims, of those from the client's certificate, and of
    /// `X-Session-Flash`, each: the sum of their names and values.
    pub max_header_bytes: usize,
    /// How client headers with unusual names are handled.
    pub odd_headers: OddHeaders,
    /// Timeouts for clients.
    pub timeouts: Timeouts,
    /// `[server.limits]`
    pub limits: Limits,
    /// Whether a change of the configuration's files triggers a reload.
    pub watch: bool,
    /// How long new requests are accepted after SIGTERM, while the readiness check already fails.
    pub drain_delay: Duration,
    /// Timeout for requests in flight to finish after `drain_delay`.
    pub drain: Duration,
}

/// Timeouts for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout for receiving a whole request head, from its first byte, or from the start of the connection.
    pub header: Duration,
    /// Timeout for the next request of a connection.
    pub idle: Duration,
    /// Timeout for the next piece of a request body.
    pub body: Duration,
    /// Minimum rate of a request body, in bytes per second. It applies once the gateway has waited for the body for a total
    /// of `body`. 0 turns it off.
    pub body_rate: usize,
    /// Timeout for a client that does not read its response.
    pub send: Duration,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// The destination of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// No access log.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error, together with the log.
    Stderr,
    /// A file, to which lines are appended.
    File(PathBuf),
}

/// How requests without a usable `traceparent` are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traces {
    /// Start a new trace with the `sampled` flag.
    Sampled,
    /// Start a new trace without the `sampled` flag.
    Unsampled,
    /// Start no trace, and pass on a `traceparent` unchanged.
    Pass,
}

/// How client headers with names that contain anything but letters, digits and `-` are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddHeaders {
    /// Remove them.
    Drop,
    /// Pass them on, unless an upstream could mistake one for a header that the gateway injects or removes, or for one
    /// that servers act on, such as `Content-Length`.
    Pass,
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> ServerConfig {
    root.table("server", |server| {
        let workers = server.get("workers", integer(0..=1024)).filter(|workers| *workers > 0);
        let log = one_of(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
        let odd_headers = one_of(&[("drop", OddHeaders::Drop), ("pass", OddHeaders::Pass)]);
        let traces =
            one_of(&[("sampled", Traces::Sampled), ("unsampled", Traces::Unsampled), ("pass", Traces::Pass)]);
        let drain = || duration(Duration::ZERO..=Duration::from_hours(24));
        ServerConfig {
            workers: workers.unwrap_or_else(|| environment.cores().max(1)),
            log: server.get("log", log).unwrap_or(LogFormat::Text),
            access_log: server
                .get("access_log", |value| access_log(value, directory))
                .unwrap_or(AccessLogTarget::Stdout),
            traces: server.get("traces", traces).unwrap_or(Traces::Sampled),
            max_header_bytes: server.get("max_header_bytes", size(256..=64 * 1024)).unwrap_or(8 * 1024),
            odd_headers: server.get("odd_headers", odd_headers).unwrap_or(OddHeaders::Drop),
            timeouts: timeouts(server),
            limits: limits::read(server),
            watch: server.get("watch", boolean).unwrap_or(true),
            drain_delay: server.get("drain_delay", drain()).unwrap_or(Duration::ZERO),
            drain: server.get("drain", drain()).unwrap_or(Duration::from_secs(30)),
        }
    })
}

fn timeouts(server: &mut Section<'_, '_>) -> Timeouts {
    let mut wait = |key, default| {
        let limit = duration(Duration::from_millis(100)..=Duration::from_hours(1));
        server.get(key, limit).unwrap_or(Duration::from_secs(default))
    };
    Timeouts {
        header: wait("header_timeout", 15),
        idle: wait("idle_timeout", 60),
        body: wait("body_timeout", 30),
        send: wait("send_timeout", 30),
        body_rate: server.get("body_rate", size(0..=1024 * 1024)).unwrap_or(500),
    }
}

/// Parses `true`, `false`, `"stdout"`, `"stderr"` or `{ file = "path" }`.
fn access_log(value: &DeValue<'_>, directory: &Path) -> Result<AccessLogTarget, Fault> {
    let fault = || Fault::new("must be `true`, `false`, `\"stdout\"`, `\"stderr\"` or `{ file = \"path\" }`");
    match value {
        DeValue::Boolean(true) => Ok(AccessLogTarget::Stdout),
        DeValue::Boolean(false) => Ok(AccessLogTarget::Off),
        DeValue::String(text) if text == "stdout" => Ok(AccessLogTarget::Stdout),
        DeValue::String(text) if text == "stderr" => Ok(AccessLogTarget::Stderr),
        DeValue::Table(table) => {
            let mut entries = table.iter();
            match (entries.next(), entries.next()) {
                (Some((key, path)), None) if key.get_ref() == "file" => {
                    Ok(AccessLogTarget::File(directory.join(string(path.get_ref())?)))
                }
                _ => Err(fault()),
            }
        }
        DeValue::String(_) => Err(fault().hint("write `{ file = \"access.log\" }` for a file")),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => Err(fault()),
    }
}
