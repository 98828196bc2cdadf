//! An element of `servers`: a URL, or a table with a URL and a weight.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use rustls::pki_types::ServerName;
use toml::de::DeValue;

use crate::config::value::{Fault, integer, string, wrong_type};

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// The server's address and protocol.
    pub address: ServerAddress,
    /// The server's weight in load balancing.
    pub weight: u32,
}

/// The address and protocol of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// `scheme://host:port`
    Tcp {
        /// The protocol.
        scheme: Scheme,
        /// A host name or an IP address, without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// `unix:/path`
    Unix(PathBuf),
    /// `builtin:demo`: the demo app, which the gateway runs on a loopback port.
    Demo,
}

/// A protocol over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP/1.1
    Http,
    /// HTTP over TLS
    Https,
    /// HTTP/2 without TLS, with prior knowledge
    H2c,
}

impl UpstreamServer {
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.address, ServerAddress::Tcp { scheme: Scheme::Https, .. })
    }

    /// Returns whether the URL allows more than one protocol.
    pub(super) fn has_protocol_choice(&self) -> bool {
        self.is_tls() || matches!(self.address, ServerAddress::Unix(_))
    }

    /// Returns whether the host is a name that DNS resolves.
    pub(crate) fn has_host_name(&self) -> bool {
        matches!(&self.address, ServerAddress::Tcp { host, .. } if host.parse::<IpAddr>().is_err())
    }
}

pub(super) fn read(value: &DeValue<'_>) -> Result<UpstreamServer, Fault> {
    let shape = "a URL, or `{ url = \"…\", weight = 1 }`";
    match value {
        DeValue::String(_) => Ok(UpstreamServer { address: address(&string(value)?)?, weight: 1 }),
        DeValue::Table(table) => {
            let (mut url, mut weight) = (None, 1);
            for (key, value) in table {
                match &**key.get_ref() {
                    "url" => url = Some(string(value.get_ref())?),
                    "weight" => {
                        let prefix = |fault: Fault| Fault {
                            message: format!("has an invalid weight: it {}", fault.message),
                            ..fault
                        };
                        weight = integer(1..=1000)(value.get_ref()).map_err(prefix)?;
                    }
                    _ => return Err(Fault::new(format!("must be {shape}"))),
                }
            }
            let url = url.ok_or_else(|| Fault::new(format!("must be {shape}")))?;
            Ok(UpstreamServer { address: address(&url)?, weight })
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => Err(wrong_type(value, shape)),
    }
}

fn address(text: &str) -> Result<ServerAddress, Fault> {
    let fault = || Fault::new("must be a server URL").hint("for example \"http://127.0.0.1:8000\"");
    if text == "builtin:demo" {
        return Ok(ServerAddress::Demo);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    let schemes =
        [("http://", Scheme::Http, 80), ("https://", Scheme::Https, 443), ("h2c://", Scheme::H2c, 80)];
    let known = schemes.iter().find_map(|(prefix, scheme, port)| {
        text.strip_prefix(prefix).map(|authority| (prefix, authority, *scheme, *port))
    });
    let (prefix, authority, scheme, default) = known.ok_or_else(fault)?;
    if authority.contains('@') {
        return Err(Fault::new("must not contain a user or password"));
    }
    if authority.contains(['/', '?', '#']) {
        let bare = authority.split(['/', '?', '#']).next().unwrap_or_default();
        return Err(Fault::new("must not have a path or query: requests are forwarded with their own")
            .hint(format!("write \"{prefix}{bare}\"")));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(fault)?;
            host.parse::<Ipv6Addr>().map_err(|_| fault())?;
            (host, port)
        }
        None => {
            let colon = authority.find(':').unwrap_or(authority.len());
            let (host, port) = authority.split_at_checked(colon).ok_or_else(fault)?;
            if !is_host(host) {
                return Err(fault());
            }
            (host, port)
        }
    };
    // A trailing dot is not part of the name in a certificate.
    if scheme == Scheme::Https && ServerName::try_from(host.trim_end_matches('.')).is_err() {
        return Err(
            Fault::new("has a host that no certificate can have").hint("it must be a DNS name or an address")
        );
    }
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => default,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).ok_or_else(fault)?
        }
        Some(_) | None => return Err(fault()),
    };
    Ok(ServerAddress::Tcp { scheme, host: host.to_ascii_lowercase(), port })
}

fn unix(path: &str) -> Result<ServerAddress, Fault> {
    /// Maximum length of a Unix socket's path in bytes (`sun_path`).
    const MAX_SOCKET_PATH: usize = 107;

    if !path.starts_with('/') || path.starts_with("//") {
        return Err(
            Fault::new("must have an absolute path after `unix:`").hint("for example \"unix:/run/app.sock\"")
        );
    }
    if path.len() > MAX_SOCKET_PATH {
        let limit = format!("has a path longer than {MAX_SOCKET_PATH} bytes, the limit for Unix sockets");
        return Err(Fault::new(limit));
    }
    Ok(ServerAddress::Unix(path.into()))
}

/// Returns whether the text is a host name or an IPv4 address. Names of containers and services often contain `_`.
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}
