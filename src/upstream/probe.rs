//! Tests whether a server accepts connections, for `check --connect`.

use tokio::net::lookup_host;

use super::endpoint::{Address, ServerLocation, ServerProtocol};
use super::stream::{Offer, ServerStream, Version};
use crate::config::{UpstreamConfig, UpstreamServer};

/// Connects to the addresses of `server` in turn, TLS handshake included, until one accepts. Returns a message for the
/// operator.
///
/// # Errors
/// Returns a message if no address accepts.
pub(crate) async fn try_connect(
    upstream: &UpstreamConfig,
    server: &UpstreamServer,
) -> Result<String, String> {
    let only_this = UpstreamConfig { servers: vec![server.clone()], ..upstream.clone() };
    let endpoints = super::endpoints(&only_this, &[]).map_err(|error| error.to_string())?;
    let Some(endpoint) = endpoints.first() else {
        return Ok("the demo app is part of the gateway".to_owned());
    };
    let label = &endpoint.label;
    let limit = upstream.connect_timeout;
    let timed_out = || format!("{label} does not respond within {}", humantime::format_duration(limit));
    let addresses = match &endpoint.location {
        ServerLocation::Fixed(address) => vec![address.clone()],
        ServerLocation::Name { host, port } => {
            let looked_up = tokio::time::timeout(limit, lookup_host((host.as_str(), *port))).await;
            let addresses = looked_up.map_err(|_| timed_out())?;
            let unknown = |error| format!("cannot connect to {label}: {error}");
            addresses.map_err(unknown)?.map(Address::Tcp).collect()
        }
    };
    let mut failure = format!("cannot connect to {label}: it has no address");
    for address in addresses {
        match tokio::time::timeout(limit, ServerStream::open(endpoint, &address, limit, Offer::All)).await {
            Ok(Ok((_, version))) => {
                let protocol = match (&endpoint.protocol, version) {
                    (ServerProtocol::Http1 | ServerProtocol::Http2, _) => "",
                    (ServerProtocol::Tls(_), Version::Http1) => ", over TLS, and speaks HTTP/1.1",
                    (ServerProtocol::Tls(_), Version::Http2) => ", over TLS, and speaks HTTP/2",
                };
                return Ok(format!("{label} accepts connections{protocol}"));
            }
            Ok(Err(reason)) => failure = format!("cannot connect to {label}: {reason}"),
            Err(_) => failure = timed_out(),
        }
    }
    Err(failure)
}
