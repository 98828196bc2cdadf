//! `trusted_proxies`: whom a listener believes about where requests come from.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::config::section::Section;
use crate::config::value::{Fault, text};

/// Whom a listener believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Whoever has one of these addresses.
    pub networks: Vec<IpNet>,
    /// Whoever connects to the listener's unix socket.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether a peer at `address` is believed; none: it came by a unix socket.
    pub fn believe(&self, address: Option<IpAddr>) -> bool {
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

/// A network, or one address; none: `unix:`.
fn trusted(text: &str) -> Result<Option<IpNet>, Fault> {
    if text == "unix:" {
        return Ok(None);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(address.into()));
    }
    let network: IpNet = text.parse().map_err(|_| {
        Fault::new("must be an address or a network").hint("such as \"10.0.0.7\" or \"10.0.0.0/8\"")
    })?;
    // `10.1.2.3/8` may mean the one address or the sixteen million: trust is nothing to guess about.
    if network.addr() != network.network() {
        let (whole, one) = (network.trunc(), network.addr());
        return Err(Fault::new("has address bits beyond its prefix length")
            .hint(format!("the network is \"{whole}\", the one address \"{one}\"")));
    }
    Ok(Some(network))
}
