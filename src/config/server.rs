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
    /// Worker threads; never 0 once resolved.
    pub workers: usize,
    /// How log lines are written.
    pub log: LogFormat,
    /// Where each request writes a line.
    pub access_log: AccessLogTarget,
    /// What becomes of requests that belong to no trace.
    pub traces: Traces,
    /// The budget of all injected headers of a request: the sum of names and values.
    pub max_header_bytes: usize,
    /// What happens to client headers whose names a CGI-like server might read as another name.
    pub odd_headers: OddHeaders,
    /// How long clients are waited for.
    pub timeouts: Timeouts,
    /// `[server.limits]`
    pub limits: Limits,
    /// Whether a change of the configuration's files is a reload.
    pub watch: bool,
    /// How long requests are taken still after SIGTERM, though readiness is gone.
    pub drain_delay: Duration,
    /// How long requests in flight may take to finish after that.
    pub drain: Duration,
}

/// How long clients are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the whole head of a request, from the first byte of it, and for that of a connection's first.
    pub header: Duration,
    /// For the next request of a connection, once the last one has been answered.
    pub idle: Duration,
    /// For the next piece of a request's body.
    pub body: Duration,
    /// Bytes a second of a request's body that a client sends at least once `body` has been waited in all; 0: any.
    pub body_rate: usize,
    /// For a client that has left off reading its response.
    pub send: Duration,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// The standard output.
    Stdout,
    /// The standard error, among everything else that is logged.
    Stderr,
    /// A file, which is appended to.
    File(PathBuf),
}

/// What a request without a usable `traceparent` gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traces {
    /// A new trace, marked as recorded: apps that record what they are told to will.
    Sampled,
    /// A new trace, marked as not recorded.
    Unsampled,
    /// None; and one that comes is passed on as it is.
    Pass,
}

/// Client headers whose names hold anything but letters, digits and `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddHeaders {
    /// They are dropped.
    Drop,
    /// They pass, unless they could be read as one of ours.
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

/// `true`, `false`, `"stdout"`, `"stderr"` or `{ file = "path" }`.
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
        DeValue::String(_) => Err(fault().hint("a file is written `{ file = \"access.log\" }`")),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) => Err(fault()),
    }
}
