//! `[[listeners]]`
//!
//! A setting without effect is an error here: its author would rely on a protection that does not exist.

mod https;
mod tls;
mod trust;

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use self::https::{Hsts, HttpsRedirect};
pub use self::tls::{CertificateConfig, ClientRule, TlsConfig, TlsVersion};
pub use self::trust::TrustedProxies;
use super::diagnostic::Diagnostic;
use super::environment::Environment;
use super::section::Section;
use super::value::{Fault, address, boolean, text};

/// Maximum length of a Unix socket's path in bytes (`sun_path`).
const MAX_SOCKET_PATH: usize = 107;
/// The default permissions of a Unix socket: owner and group, since any user who can write to it can send requests.
const DEFAULT_MODE: u32 = 0o660;

/// One of `[[listeners]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// The address to listen on.
    pub address: ListenerAddress,
    /// File permissions of a Unix socket.
    pub mode: u32,
    /// The proxies whose `X-Forwarded-*` and `Forwarded` are trusted.
    pub trusted_proxies: TrustedProxies,
    /// Whether every connection must begin with a PROXY protocol header and come from a trusted proxy.
    pub proxy_protocol: bool,
    /// TLS. `None` serves plain HTTP.
    pub tls: Option<TlsConfig>,
    /// The redirect to https for requests without TLS.
    pub redirect_to_https: Option<HttpsRedirect>,
    /// The Strict-Transport-Security header of every response. Only with TLS.
    pub hsts: Option<Hsts>,
    /// Whether HTTP/2 is served in addition to HTTP/1.1.
    pub http2: bool,
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAddress {
    /// An IP address and a port. With port 0 the system chooses one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenerConfig {
    /// Returns whether the listener requests certificates from any of its clients.
    pub fn requests_client_certificates(&self) -> bool {
        let certificates = self.tls.iter().flat_map(|tls| &tls.certificates);
        certificates.into_iter().any(|certificate| certificate.clients.is_some())
    }
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

pub(super) fn read(
    root: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Vec<ListenerConfig> {
    if root.is_empty("listeners") {
        let missing = Diagnostic::error("no `[[listeners]]` is configured");
        let missing = missing.hint("add `[[listeners]]` with `address = \"127.0.0.1:8080\"`");
        root.report_unless_broken(&["listeners"], missing, None);
    }
    let mut seen: Vec<(ListenerConfig, Option<Range<usize>>)> = Vec::new();
    root.tables("listeners", |section| {
        let listener = listener(section, directory, environment)?;
        let span = section.span("address");
        let same = seen.iter().find(|(other, _)| is_same(&other.address, &listener.address));
        if let Some((_, first)) = same {
            let twice = Diagnostic::error(format!("two listeners have the address {}", listener.address));
            let twice = first.iter().fold(twice, |twice, first| twice.related(first.clone(), "the first"));
            section.report(twice, span.clone());
        }
        seen.push((listener, span));
        Some(())
    });
    seen.into_iter().map(|(listener, _)| listener).collect()
}

fn listener(
    section: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Option<ListenerConfig> {
    let trusted_proxies = trust::read(section);
    let proxy_protocol = section.get("proxy_protocol", boolean).unwrap_or(false);
    let http2 = section.get("http2", boolean).unwrap_or(true);
    let tls = tls::read(section, directory, environment);
    let redirect_to_https = https::redirect(section);
    let hsts = https::hsts(section);
    let mode = section.get("mode", text(mode));
    let address = section.require("address", text(|text| listener_address(text, directory)));
    if section.has("tls") && section.has("redirect_to_https") {
        let fault = Fault::new("has no effect: the listener has `tls`");
        section.refuse("redirect_to_https", &[], fault);
    }
    if section.has("hsts") && !section.has("tls") {
        let fault = Fault::new("has no effect without `tls`");
        let fault = fault.hint("browsers ignore it without TLS (RFC 6797, 8.1)");
        section.refuse("hsts", &["tls"], fault);
    }
    if proxy_protocol && section.is_empty("trusted_proxies") {
        let fault = Fault::new("needs `trusted_proxies`: without it any client could claim any address");
        let fault = fault.hint("list the proxies that connect to this listener");
        section.refuse("proxy_protocol", &["trusted_proxies"], fault);
    }
    let address = address?;
    match &address {
        ListenerAddress::Tcp(_) => {
            if section.has("mode") {
                section.refuse("mode", &[], Fault::new("is only for Unix sockets"));
            }
            if trusted_proxies.unix {
                let fault = Fault::new("contains `unix:`, but the listener is not a Unix socket");
                section.refuse("trusted_proxies", &[], fault);
            }
        }
        ListenerAddress::Unix(_) => {
            if !trusted_proxies.networks.is_empty() && !trusted_proxies.unix {
                let fault = Fault::new("has no effect: clients of a Unix socket have no address");
                let fault = fault.hint("use `unix:` to trust every client of the socket");
                section.refuse("trusted_proxies", &[], fault);
            }
        }
    }
    let mode = mode.unwrap_or(DEFAULT_MODE);
    Some(ListenerConfig {
        address,
        mode,
        trusted_proxies,
        http2,
        proxy_protocol,
        tls,
        redirect_to_https,
        hsts,
    })
}

/// Returns whether two addresses are the same. Port 0 is a different port each time.
fn is_same(one: &ListenerAddress, other: &ListenerAddress) -> bool {
    match (one, other) {
        (ListenerAddress::Tcp(one), ListenerAddress::Tcp(other)) => one == other && one.port() != 0,
        (ListenerAddress::Unix(one), ListenerAddress::Unix(other)) => one == other,
        (ListenerAddress::Tcp(_), ListenerAddress::Unix(_))
        | (ListenerAddress::Unix(_), ListenerAddress::Tcp(_)) => false,
    }
}

fn listener_address(text: &str, directory: &Path) -> Result<ListenerAddress, Fault> {
    let Some(path) = text.strip_prefix("unix:") else { return Ok(ListenerAddress::Tcp(address(text)?)) };
    if path.is_empty() || path.ends_with('/') {
        return Err(Fault::new("has no socket path").hint("for example \"unix:/run/sessiongate/http.sock\""));
    }
    let path = directory.join(path);
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(Fault::new(format!(
            "is longer than {MAX_SOCKET_PATH} bytes, the limit for Unix sockets"
        )));
    }
    Ok(ListenerAddress::Unix(path))
}

fn mode(text: &str) -> Result<u32, Fault> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| Fault::new("must be file permissions").hint("write octal digits, such as \"0660\""))
}
