//! `trusted_proxies`: the proxies whose information about the client is trusted.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::config::section::Section;
use crate::config::value::{Fault, text};

/// The proxies that a listener trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// The networks of trusted proxies.
    pub networks: Vec<IpNet>,
    /// Whether every client of the listener's Unix socket is trusted.
    pub unix: bool,
}

impl TrustedProxies {
    /// Returns whether a peer is trusted. `address` is `None` for clients of a Unix socket.
    pub fn contains(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) => self.networks.iter().any(|network| network.contains(&address)),
            None => self.unix,
        }
    }
}

pub(super) fn read(listener: &mut Section<'_, '_>) -> TrustedProxies {
    let listed = listener.list("trusted_proxies", text(trusted)).unwrap_or_default();
    let unix = listed.iter().any(Option::is_none);
    TrustedProxies { networks: listed.into_iter().flatten().collect(), unix }
}

/// Parses a network or an address. Returns `None` for `unix:`.
fn trusted(text: &str) -> Result<Option<IpNet>, Fault> {
    if text == "unix:" {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(address.to_canonical().into()));
    }
    let network: IpNet = text.parse().map_err(|_| {
        Fault::new("must be an address or a network").hint("for example \"10.0.0.7\" or \"10.0.0.0/8\"")
    })?;
    // `10.1.2.3/8` could mean one address or sixteen million; a trust boundary must not be guessed.
    if network.addr() != network.network() {
        let (whole, one) = (network.trunc(), network.addr());
        return Err(Fault::new("has address bits beyond its prefix length")
            .hint(format!("write \"{whole}\" for the network, or \"{one}\" for the address")));
    }
    Ok(Some(canonical(network)))
}

/// Returns the IPv4 network of a network of IPv4-mapped addresses (`::ffff:10.0.0.0/104`): a listener sees its clients'
/// addresses as IPv4.
fn canonical(network: IpNet) -> IpNet {
    let length = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), length) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, length).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}
