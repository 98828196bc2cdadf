//! Parsers for what a route matches: host, path prefix, methods. Each returns the normalized form that requests are
//! compared with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Method;

use crate::config::HostPattern;
use crate::config::value::Fault;

/// Parses `a.b`, `*.a.b` or an IP address. An IPv6 address has brackets.
pub(super) fn host(text: &str) -> Result<HostPattern, Fault> {
    if text == "*" {
        return Err(
            Fault::new("must not be `*`").hint("omit `host` to match the hosts that no other route names")
        );
    }
    let bare = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Some(address) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| Fault::new("is not an IPv6 address"))?;
        return Ok(HostPattern::Exact(format!("[{address}]")));
    }
    match bare.parse() {
        Ok(IpAddr::V4(address)) => return Ok(HostPattern::Exact(address.to_string())),
        Ok(IpAddr::V6(address)) => {
            return Err(
                Fault::new("is an IPv6 address without brackets").hint(format!("write \"[{address}]\""))
            );
        }
        Err(_) => {}
    }
    if let Some((host, port)) = bare.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Err(
            Fault::new("must not have a port").hint(format!("write \"{host}\", which matches every port"))
        );
    }
    let (name, pattern): (&str, fn(String) -> HostPattern) = match bare.strip_prefix("*.") {
        Some(below) => (below, HostPattern::Subdomains),
        None => (&bare, HostPattern::Exact),
    };
    // Browsers parse a name whose last label is a number as an IPv4 address, and send it in a different form.
    let is_name = name.len() <= 253 && name.split('.').all(is_label) && !ends_in_number(name);
    if is_name {
        return Ok(pattern(name.to_owned()));
    }
    Err(Fault::new("is not a valid host")
        .hint("for example \"app.example.com\", or \"*.example.com\" for every subdomain"))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.parse::<u128>().is_ok() || name.parse::<Ipv4Addr>().is_ok()
}

/// Parses a path prefix. Rejects the paths that the gateway rejects in requests, because servers interpret them differently.
pub(super) fn path(text: &str) -> Result<String, Fault> {
    if !text.starts_with('/') {
        return Err(Fault::new("must begin with `/`"));
    }
    if text.contains('*') {
        return Err(Fault::new("must not contain `*`")
            .hint("a path is a prefix: `/app` also matches every path below it"));
    }
    let forbidden = |c: &char| !c.is_ascii_graphic() || matches!(c, '%' | '?' | '#' | ';' | '\\');
    if let Some(c) = text.chars().find(forbidden) {
        return Err(Fault::new(format!("must not contain `{}`", c.escape_debug())));
    }
    if text.contains("//") {
        return Err(Fault::new("must not contain `//`"));
    }
    if text.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Fault::new("must not contain the segments `.` and `..`"));
    }
    let bare = text.strip_suffix('/').unwrap_or(text);
    Ok(if bare.is_empty() { "/" } else { bare }.to_owned())
}

/// Parses a method. It must be in upper case, since methods are case-sensitive.
pub(super) fn method(text: &str) -> Result<Method, Fault> {
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| Fault::new("is not a valid method"))?;
    let upper = text.to_ascii_uppercase();
    if upper != text {
        return Err(Fault::new("must be in upper case").hint(format!("write \"{upper}\"")));
    }
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(Fault::new("must not be CONNECT or TRACE, which sessiongate does not forward"));
    }
    Ok(method)
}

/// Formats the pattern as in the configuration.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Subdomains(host) => write!(f, "*.{host}"),
        }
    }
}
