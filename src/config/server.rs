//! `[server]`

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::environment::Environment;
use super::section::Section;
use super::value::{Fault, duration, integer, one_of, size, string};

/// `[server]`
#[derive(Clone, Debug)]
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
    /// How long a connection may take to send a request's head, and may stay idle between requests.
    pub header_timeout: Duration,
    /// How long requests in flight may take to finish after SIGTERM.
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
        let header_timeout = duration(Duration::from_millis(100)..=Duration::from_hours(1));
        let drain = duration(Duration::ZERO..=Duration::from_hours(24));
        ServerConfig {
            workers: workers.unwrap_or_else(|| environment.cores().max(1)),
            log: server.get("log", log).unwrap_or(LogFormat::Text),
            access_log: server
                .get("access_log", |value| access_log(value, directory))
                .unwrap_or(AccessLogTarget::Stdout),
            traces: server.get("traces", traces).unwrap_or(Traces::Sampled),
            max_header_bytes: server.get("max_header_bytes", size(256..=64 * 1024)).unwrap_or(8 * 1024),
            odd_headers: server.get("odd_headers", odd_headers).unwrap_or(OddHeaders::Drop),
            header_timeout: server.get("header_timeout", header_timeout).unwrap_or(Duration::from_secs(15)),
            drain: server.get("drain", drain).unwrap_or(Duration::from_secs(30)),
        }
    })
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
