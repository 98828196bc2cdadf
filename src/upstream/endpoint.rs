//! A configured server: its location, its protocol, and its TLS settings.

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
    pub(super) protocol: ServerProtocol,
    pub(super) weight: u32,
    /// The host and port, for requests without Host and for `upstream_host`.
    pub(super) authority: Authority,
    /// The server's name in logs and metrics.
    pub(super) label: Arc<str>,
}

/// The location of a server.
#[derive(Debug)]
pub(super) enum ServerLocation {
    /// All addresses of a DNS name.
    Name { host: String, port: u16 },
    /// One address.
    Fixed(Address),
}

/// An address to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The protocol of a server.
#[derive(Debug)]
pub(super) enum ServerProtocol {
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    Http2,
    /// Negotiated by ALPN.
    Tls(ServerTls),
}

/// TLS settings for connections to a server.
#[derive(Debug)]
pub(super) struct ServerTls {
    pub(super) name: ServerName<'static>,
    /// Client configuration that offers the protocols that the gateway's configuration allows.
    pub(super) config: Arc<ClientConfig>,
    /// Client configuration that offers only HTTP/1.1, for requests that HTTP/2 cannot carry.
    pub(super) http1: Arc<ClientConfig>,
    pub(super) allows_http2: bool,
}

impl Endpoint {
    /// Returns the endpoint of `server`, or `None` for a demo app if its address `demo` is missing. `tls` is present if
    /// any server of the upstream uses TLS.
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
                Some(Self {
                    location,
                    protocol: ServerProtocol::Http1,
                    weight,
                    authority,
                    label: label.into(),
                })
            }
            ServerAddress::Unix(path) => {
                let protocol = match upstream.protocol {
                    UpstreamProtocol::Auto | UpstreamProtocol::Http1 => ServerProtocol::Http1,
                    UpstreamProtocol::Http2 => ServerProtocol::Http2,
                };
                let label = format!("unix:{}", path.display()).into();
                let location = ServerLocation::Fixed(Address::Unix(path.clone()));
                Some(Self { location, protocol, weight, authority: fallback, label })
            }
            ServerAddress::Tcp { scheme, host, port } => {
                let label =
                    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                let location = match host.parse::<IpAddr>() {
                    Ok(address) => ServerLocation::Fixed(Address::Tcp(SocketAddr::new(address, *port))),
                    Err(_) => ServerLocation::Name { host: host.clone(), port: *port },
                };
                let protocol = match scheme {
                    Scheme::Http => ServerProtocol::Http1,
                    Scheme::H2c => ServerProtocol::Http2,
                    Scheme::Https => ServerProtocol::Tls(ServerTls::new(upstream, host, tls?)?),
                };
                let authority = label.parse().unwrap_or(fallback);
                Some(Self { location, protocol, weight, authority, label: label.into() })
            }
        }
    }

    /// Returns the name of the target at `address` in logs and metrics.
    pub(super) fn label_of(&self, address: &Address) -> Arc<str> {
        match (&self.location, address) {
            (ServerLocation::Name { .. }, Address::Tcp(address)) => {
                format!("{} ({})", self.label, address.ip()).into()
            }
            (ServerLocation::Name { .. } | ServerLocation::Fixed(_), _) => Arc::clone(&self.label),
        }
    }
}

impl ServerTls {
    fn new(upstream: &UpstreamConfig, host: &str, tls: &ClientConfig) -> Option<Self> {
        let named = upstream.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let name = named.or_else(|| {
            // Names in certificates have no trailing dot.
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
