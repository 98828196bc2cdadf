//! Rewriting of the path, by removing and adding constant prefixes, and of the Host.
//!
//! Both prefixes end on segment boundaries, and every path that the route matches begins with the removed prefix. So the
//! path for the upstream differs from the checked path only by text from the configuration.

use toml::de::DeValue;

use super::pattern;
use crate::config::HostPattern;
use crate::config::section::Section;
use crate::config::value::{Fault, boolean, text, wrong_type};

/// The rewriting of a path. Each prefix is empty, or begins with `/` and does not end with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The prefix that is removed.
    pub strip: String,
    /// The prefix that is added to the rest.
    pub prefix: String,
    /// Whether the rewriting is reverted in the Location, Refresh and cookie paths of responses.
    pub rewrite_location: bool,
}

/// The Host of forwarded requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The client's Host.
    #[default]
    Preserve,
    /// The host and port of the server.
    Server,
    /// A constant.
    Name(String),
}

/// Reads `strip_prefix`, `prefix`, `rewrite_location` and `upstream_host` of the route with this `path`.
pub(super) fn read(section: &mut Section<'_, '_>, path: Option<&str>) -> (Rewrite, UpstreamHost) {
    let strip = section.get("strip_prefix", |value| strip(value, path)).unwrap_or_default();
    let prefix = section.get("prefix", text(bare)).unwrap_or_default();
    let host = section.get("upstream_host", text(host)).unwrap_or(UpstreamHost::Preserve);
    if strip == prefix && !strip.is_empty() {
        section.refuse("prefix", &[], Fault::new("is the same as `strip_prefix`"));
    }
    let changes = !strip.is_empty() || !prefix.is_empty() || host != UpstreamHost::Preserve;
    let rewrite_location = section.get("rewrite_location", boolean);
    if rewrite_location == Some(true) && !changes && !section.has("strip_prefix") && !section.has("prefix") {
        let fault = Fault::new("has no effect: the route changes neither path nor host");
        let fault = fault.hint("it reverts `strip_prefix`, `prefix` and `upstream_host` in responses");
        section.refuse("rewrite_location", &["strip_prefix", "prefix", "upstream_host"], fault);
    }
    (Rewrite { strip, prefix, rewrite_location: rewrite_location.unwrap_or(changes) && changes }, host)
}

/// Parses `true`, or a path prefix of the route's path.
fn strip(value: &DeValue<'_>, path: Option<&str>) -> Result<String, Fault> {
    let strip = match value {
        DeValue::Boolean(false) => return Ok(String::new()),
        DeValue::Boolean(true) => path.unwrap_or("/?").to_owned(),
        DeValue::String(_) => text(bare)(value)?,
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return Err(wrong_type(value, "a path, or `true` for the route's path")),
    };
    match path {
        Some("/") => Err(Fault::new("has no effect: the route's path is `/`")),
        Some(path) if !crate::path::is_prefix(&strip, path) => {
            let fault = Fault::new("is not a prefix of the route's path");
            Err(fault.hint(format!("use \"{path}\", or a prefix of it")))
        }
        Some(_) | None => Ok(strip),
    }
}

/// Parses a path other than `/`.
fn bare(text: &str) -> Result<String, Fault> {
    match pattern::path(text)?.as_str() {
        "/" => Err(Fault::new("must not be `/`").hint("omit it instead")),
        path => Ok(path.to_owned()),
    }
}

fn host(text: &str) -> Result<UpstreamHost, Fault> {
    match text {
        "preserve" => Ok(UpstreamHost::Preserve),
        "upstream" => Ok(UpstreamHost::Server),
        name => authority(name)
            .map(UpstreamHost::Name)
            .map_err(|fault| fault.hint("use \"preserve\", \"upstream\" or a host such as \"app.internal\"")),
    }
}

/// Parses a host with an optional port.
pub(super) fn authority(text: &str) -> Result<String, Fault> {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_port = |port: &str| is_digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if is_port(port) => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    match pattern::host(host)? {
        HostPattern::Exact(host) => Ok(port.map_or(host.clone(), |port| format!("{host}:{port}"))),
        HostPattern::Subdomains(_) => Err(Fault::new("must be a single host")),
    }
}
