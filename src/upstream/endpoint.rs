//! A server as the configuration names it: where it is, what is spoken to it, and how its certificate is verified.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use http::uri::Authority;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::config::{Scheme, ServerAddress, UpstreamConfig, UpstreamProtocol, UpstreamServer};

/// A server.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) location: ServerLocation,
    pub(super) speech: Speech,
    pub(super) weight: u32,
    /// For requests that name no host.
    pub(super) authority: Authority,
    /// How it is called in logs.
    pub(super) label: Arc<str>,
}

/// Where a server is.
#[derive(Debug)]
pub(super) enum ServerLocation {
    /// At every address that this name has.
    Name { host: String, port: u16 },
    /// There.
    Fixed(Address),
}

/// What can be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What is spoken to a server.
#[derive(Debug)]
pub(super) enum Speech {
    Http1,
    /// HTTP/2, known to be spoken without being asked.
    Http2,
    /// What the two agree upon, over TLS.
    Tls(Secure),
}

/// TLS to a server.
#[derive(Debug)]
pub(super) struct Secure {
    pub(super) name: ServerName<'static>,
    /// Offers what the configuration allows.
    pub(super) config: Arc<ClientConfig>,
    /// Offers HTTP/1.1 alone, for what HTTP/2 cannot carry.
    pub(super) http1: Arc<ClientConfig>,
    pub(super) allows_http2: bool,
}

impl Endpoint {
    /// `server` of `upstream`; none: the demo app, of which only who runs it knows where it is. `tls` is there if any
    /// server of the upstream is reached over TLS.
    pub(super) fn new(
        upstream: &UpstreamConfig,
        server: &UpstreamServer,
        demo: Option<SocketAddr>,
        tls: Option<&ClientConfig>,
    ) -> Option<Self> {
        let weight = server.weight;
        let fallback = Authority::from_static("localhost");
        match &server.address {
            ServerAddress::Demo => {
                let address = demo?;
                let label = address.to_string();
                let authority = label.parse().unwrap_or(fallback);
                let location = ServerLocation::Fixed(Address::Tcp(address));
                Some(Self { location, speech: Speech::Http1, weight, authority, label: label.into() })
            }
            ServerAddress::Unix(path) => {
                let speech = match upstream.protocol {
                    UpstreamProtocol::Auto | UpstreamProtocol::Http1 => Speech::Http1,
                    UpstreamProtocol::Http2 => Speech::Http2,
                };
                let label = format!("unix:{}", path.display()).into();
                let location = ServerLocation::Fixed(Address::Unix(path.clone()));
                Some(Self { location, speech, weight, authority: fallback, label })
            }
            ServerAddress::Tcp { scheme, host, port } => {
                let label =
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                let location = match host.parse::<IpAddr>() {
                    Ok(address) => ServerLocation::Fixed(Address::Tcp(SocketAddr::new(address, *port))),
                    Err(_) => ServerLocation::Name { host: host.clone(), port: *port },
                };
                let speech = match scheme {
                    Scheme::Http => Speech::Http1,
                    Scheme::H2c => Speech::Http2,
                    Scheme::Https => Speech::Tls(Secure::new(upstream, host, tls?)?),
                };
                let authority = label.parse().unwrap_or(fallback);
                Some(Self { location, speech, weight, authority, label: label.into() })
            }
        }
    }

    /// How the target at `address` is called in logs.
    pub(super) fn label_of(&self, address: &Address) -> Arc<str> {
        match (&self.location, address) {
            (ServerLocation::Name { .. }, Address::Tcp(address)) => {
                format!("{} ({})", self.label, address.ip()).into()
            }
            (ServerLocation::Name { .. } | ServerLocation::Fixed(_), _) => Arc::clone(&self.label),
        }
    }
}

impl Secure {
    fn new(upstream: &UpstreamConfig, host: &str, tls: &ClientConfig) -> Option<Self> {
        let named = upstream.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let name = named.or_else(|| {
            // The dot that ends a name is no part of what certificates are for.
            ServerName::try_from(host.trim_end_matches('.').to_owned()).ok()
        })?;
        let offering = |protocols: &[&[u8]]| {
            let mut config = tls.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        let http1 = offering(&[b"http/1.1"]);
        let config = match upstream.protocol {
            UpstreamProtocol::Auto => offering(&[b"h2", b"http/1.1"]),
            UpstreamProtocol::Http1 => Arc::clone(&http1),
            UpstreamProtocol::Http2 => offering(&[b"h2"]),
        };
        Some(Self { name, config, http1, allows_http2: upstream.protocol != UpstreamProtocol::Http1 })
    }
}
