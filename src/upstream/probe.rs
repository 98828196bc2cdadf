//! One look at a server: can it be reached, and what does it speak?

use tokio::net::lookup_host;

use super::endpoint::{Address, ServerLocation, Speech};
use super::stream::{Offer, ServerStream, Version};
use crate::config::{UpstreamConfig, UpstreamServer};

/// Connects to every address of `server`, TLS included. What there is to say of it.
///
/// # Errors
/// What is wrong with it.
pub(crate) async fn reach(upstream: &UpstreamConfig, server: &UpstreamServer) -> Result<String, String> {
    let alone = UpstreamConfig { servers: vec![server.clone()], ..upstream.clone() };
    let endpoints = super::endpoints(&alone, &[]).map_err(|error| error.to_string())?;
    let Some(endpoint) = endpoints.first() else {
        return Ok("the demo app is part of the gateway".to_owned());
    };
    let label = &endpoint.label;
    let limit = upstream.connect_timeout;
    let late = || format!("{label} does not answer within {}", humantime::format_duration(limit));
    let addresses = match &endpoint.location {
        ServerLocation::Fixed(address) => vec![address.clone()],
        ServerLocation::Name { host, port } => {
            let looked_up = tokio::time::timeout(limit, lookup_host((host.as_str(), *port))).await;
            let addresses = looked_up.map_err(|_| late())?;
            let unknown = |error| format!("cannot connect to {label}: {error}");
            addresses.map_err(unknown)?.map(Address::Tcp).collect()
        }
    };
    let mut failure = format!("cannot connect to {label}: it has no address");
    for address in addresses {
        match tokio::time::timeout(limit, ServerStream::open(endpoint, &address, limit, Offer::All)).await {
            Ok(Ok((_, version))) => {
                let spoken = match (&endpoint.speech, version) {
                    (Speech::Http1 | Speech::Http2, _) => "",
                    (Speech::Tls(_), Version::Http1) => ", over TLS, and speaks HTTP/1.1",
                    (Speech::Tls(_), Version::Http2) => ", over TLS, and speaks HTTP/2",
                };
                return Ok(format!("{label} accepts connections{spoken}"));
            }
            Ok(Err(reason)) => failure = format!("cannot connect to {label}: {reason}"),
            Err(_) => failure = late(),
        }
    }
    Err(failure)
}
