//! `[[listeners]]`
//!
//! Who comes in where, and whom the gateway believes there: a setting that has no effect on a listener is an error, since
//! whoever wrote it believes in a protection that is not there.

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

/// The longest path of a unix socket, in bytes (`sun_path`).
const LONGEST_PATH: usize = 107;
/// Who may write to a socket may send requests, so not everybody on the machine.
const MODE: u32 = 0o660;

/// One of `[[listeners]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where to listen.
    pub address: ListenerAddress,
    /// Of a unix socket: who may connect, as the permissions of the file.
    pub mode: u32,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether every connection begins with a PROXY protocol header, and comes from a trusted proxy.
    pub proxy_protocol: bool,
    /// TLS; none: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// Where requests that did not come over TLS are sent.
    pub redirect_to_https: Option<HttpsRedirect>,
    /// The Strict-Transport-Security of every response. Only with TLS.
    pub hsts: Option<Hsts>,
    /// Whether HTTP/2 is served beside HTTP/1.1.
    pub http2: bool,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAddress {
    /// An address and a port; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl ListenerConfig {
    /// Whether it asks any of its clients for a certificate.
    pub fn asks_clients(&self) -> bool {
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
        let missing = Diagnostic::error("there is no `[[listeners]]`");
        let missing = missing.hint("add one: `[[listeners]]` with `address = \"127.0.0.1:8080\"`");
        root.report_given(&["listeners"], missing, None);
    }
    let mut seen: Vec<(ListenerConfig, Option<Range<usize>>)> = Vec::new();
    root.tables("listeners", |section| {
        let listener = listener(section, directory, environment)?;
        let span = section.span("address");
        let same = seen.iter().find(|(other, _)| is_same(&other.address, &listener.address));
        if let Some((_, first)) = same {
            let again = Diagnostic::error(format!("two listeners have the address {}", listener.address));
            let again = first.iter().fold(again, |again, first| again.related(first.clone(), "the first"));
            section.report(again, span.clone());
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
    let address = section.require("address", text(|text| place(text, directory)));
    if section.has("tls") && section.has("redirect_to_https") {
        let fault = Fault::new("has no effect: the listener has `tls`");
        section.refuse("redirect_to_https", &[], fault);
    }
    if section.has("hsts") && !section.has("tls") {
        let fault = Fault::new("has no effect without `tls`");
        let fault = fault.hint("browsers take it over TLS only (RFC 6797, 7.2)");
        section.refuse("hsts", &["tls"], fault);
    }
    if proxy_protocol && !section.has("trusted_proxies") {
        let fault = Fault::new("needs `trusted_proxies`: anybody could claim any address");
        let fault = fault.hint("list the proxies that connect to this listener");
        section.refuse("proxy_protocol", &["trusted_proxies"], fault);
    }
    let address = address?;
    match &address {
        ListenerAddress::Tcp(_) => {
            if section.has("mode") {
                section.refuse("mode", &[], Fault::new("is only for unix sockets"));
            }
            if trusted_proxies.unix {
                let fault = Fault::new("names `unix:`, which nobody is who comes to this address");
                section.refuse("trusted_proxies", &[], fault);
            }
        }
        ListenerAddress::Unix(_) => {
            if !trusted_proxies.networks.is_empty() && !trusted_proxies.unix {
                let fault = Fault::new("has no effect: whoever comes to a unix socket has no address");
                let fault = fault.hint("`unix:` stands for who connects to the socket");
                section.refuse("trusted_proxies", &[], fault);
            }
        }
    }
    let mode = mode.unwrap_or(MODE);
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

/// Port 0 is another port each time.
fn is_same(one: &ListenerAddress, other: &ListenerAddress) -> bool {
    match (one, other) {
        (ListenerAddress::Tcp(one), ListenerAddress::Tcp(other)) => one == other && one.port() != 0,
        (ListenerAddress::Unix(one), ListenerAddress::Unix(other)) => one == other,
        (ListenerAddress::Tcp(_), ListenerAddress::Unix(_))
        | (ListenerAddress::Unix(_), ListenerAddress::Tcp(_)) => false,
    }
}

fn place(text: &str, directory: &Path) -> Result<ListenerAddress, Fault> {
    let Some(path) = text.strip_prefix("unix:") else { return Ok(ListenerAddress::Tcp(address(text)?)) };
    if path.is_empty() || path.ends_with('/') {
        return Err(Fault::new("names no socket").hint("such as \"unix:/run/sessiongate/http.sock\""));
    }
    let path = directory.join(path);
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(Fault::new(format!("is longer than the {LONGEST_PATH} bytes of a unix socket's path")));
    }
    Ok(ListenerAddress::Unix(path))
}

fn mode(text: &str) -> Result<u32, Fault> {
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| Fault::new("must be a file's permissions").hint("in octal digits, such as \"0660\""))
}
