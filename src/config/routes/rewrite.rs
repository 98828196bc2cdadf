//! How a route changes what it forwards: the path, by one cut and one paste that are constant, and the Host.
//!
//! The rule: both ends of what is cut and pasted are segment boundaries, and what is cut stands at the beginning of every
//! path that the route takes. So the path that the upstream gets is the judged one but for text of the operator's.

use toml::de::DeValue;

use super::pattern;
use crate::config::HostPattern;
use crate::config::section::Section;
use crate::config::value::{Fault, boolean, text, wrong_type};

/// What becomes of a path on its way to the upstream. Each part is empty, or begins with `/` and does not end with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// What is cut off its beginning.
    pub strip: String,
    /// What is put in front of the rest.
    pub prefix: String,
    /// Whether Location and the like, and the paths of cookies, are changed back in answers.
    pub answers: bool,
}

/// The Host that the upstream gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The client's.
    #[default]
    Preserve,
    /// The host and port of the server that the request goes to.
    Server,
    /// This one.
    Name(String),
}

/// Reads `strip_prefix`, `prefix`, `rewrite_location` and `upstream_host` of a route that takes the paths below `path`.
pub(super) fn read(section: &mut Section<'_, '_>, path: Option<&str>) -> (Rewrite, UpstreamHost) {
    let strip = section.get("strip_prefix", |value| strip(value, path)).unwrap_or_default();
    let prefix = section.get("prefix", text(bare)).unwrap_or_default();
    let host = section.get("upstream_host", text(host)).unwrap_or(UpstreamHost::Preserve);
    if strip == prefix && !strip.is_empty() {
        section.refuse("prefix", &[], Fault::new("is what `strip_prefix` takes off"));
    }
    let changes = !strip.is_empty() || !prefix.is_empty() || host != UpstreamHost::Preserve;
    let answers = section.get("rewrite_location", boolean);
    if answers == Some(true) && !changes && !section.has("strip_prefix") && !section.has("prefix") {
        let fault = Fault::new("has no effect: the route changes neither path nor host");
        let fault = fault.hint("it undoes `strip_prefix`, `prefix` and `upstream_host`");
        section.refuse("rewrite_location", &["strip_prefix", "prefix", "upstream_host"], fault);
    }
    (Rewrite { strip, prefix, answers: answers.unwrap_or(changes) && changes }, host)
}

/// `true`, or a path at or above the route's.
fn strip(value: &DeValue<'_>, path: Option<&str>) -> Result<String, Fault> {
    let strip = match value {
        DeValue::Boolean(false) => return Ok(String::new()),
        DeValue::Boolean(true) => path.unwrap_or("/?").to_owned(),
        DeValue::String(_) => text(bare)(value)?,
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => return Err(wrong_type(value, "a path, or `true` for the route's")),
    };
    match path {
        Some("/") => Err(Fault::new("has nothing to take off: the route's path is `/`")),
        Some(path) if !crate::path::is_prefix(&strip, path) => {
            let fault = Fault::new("is not at the beginning of every path that the route takes");
            Err(fault.hint(format!("it can be \"{path}\", or a path above it")))
        }
        Some(_) | None => Ok(strip),
    }
}

/// A path with something in it.
fn bare(text: &str) -> Result<String, Fault> {
    match pattern::path(text)?.as_str() {
        "/" => Err(Fault::new("must be more than `/`").hint("leave it out")),
        path => Ok(path.to_owned()),
    }
}

fn host(text: &str) -> Result<UpstreamHost, Fault> {
    match text {
        "preserve" => Ok(UpstreamHost::Preserve),
        "upstream" => Ok(UpstreamHost::Server),
        name => authority(name).map(UpstreamHost::Name).map_err(|fault| {
            fault.hint("\"preserve\" for the client's, \"upstream\" for the server's, or a host such as \"app.internal\"")
        }),
    }
}

/// A host with or without a port.
pub(super) fn authority(text: &str) -> Result<String, Fault> {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if is_port(port) => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    match pattern::host(host)? {
        HostPattern::Exact(host) => Ok(port.map_or(host.clone(), |port| format!("{host}:{port}"))),
        HostPattern::Below(_) => Err(Fault::new("must be one host")),
    }
}
