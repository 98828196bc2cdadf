//! `[[listeners]]`

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use ipnet::IpNet;

use super::diagnostic::Diagnostic;
use super::section::Section;
use super::value::{Fault, address, boolean, text};

/// One of `[[listeners]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where to listen; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether HTTP/2 is served beside HTTP/1.1.
    pub http2: bool,
}

pub(super) fn read(root: &mut Section<'_, '_>) -> Vec<ListenerConfig> {
    if root.is_empty("listeners") {
        let missing = Diagnostic::error("there is no `[[listeners]]`");
        root.report(missing.hint("add one: `[[listeners]]` with `address = \"127.0.0.1:8080\"`"), None);
    }
    let mut seen: Vec<(ListenerConfig, Option<Range<usize>>)> = Vec::new();
    root.tables("listeners", |listener| {
        let trusted_proxies = listener.list("trusted_proxies", text(network)).unwrap_or_default();
        let http2 = listener.get("http2", boolean).unwrap_or(true);
        let address = listener.require("address", text(address))?;
        let span = listener.span("address");
        let same = seen.iter().find(|(other, _)| other.address == address && address.port() != 0);
        if let Some((_, first)) = same {
            let again = Diagnostic::error(format!("two listeners have the address {address}"));
            let again = first.iter().fold(again, |again, first| again.related(first.clone(), "the first"));
            listener.report(again, span.clone());
        }
        seen.push((ListenerConfig { address, trusted_proxies, http2 }, span));
        Some(())
    });
    seen.into_iter().map(|(listener, _)| listener).collect()
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, Fault> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
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
    Ok(network)
}
