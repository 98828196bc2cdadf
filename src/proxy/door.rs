//! What a listener asks of every request that comes in by it, before a route is looked for.
//!
//! 1. Where only TLS is wanted, a request that did not come over TLS is sent there.
//! 2. Where hosts differ in what they ask of clients' certificates, a request is for a host of the rule under which its
//!    connection was made (RFC 9110, 7.4): or a client without a certificate could open a connection to one host, and ask
//!    for another.
//! 3. A response over TLS says that the site is to be visited over TLS only, if the listener is configured so.

use std::sync::Arc;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderValue};

use super::inbound::Sanitized;
use super::peer::Peer;
use super::refusal::{Malformed, Refusal};
use crate::config::{HttpsRedirect, ListenerConfig, TrustedProxies};
use crate::tls::{ClientCertificate, Names};

/// What holds for everyone who comes in by one listener.
#[derive(Debug)]
pub struct Door {
    proxies: TrustedProxies,
    redirect: Option<HttpsRedirect>,
    hsts: Option<HeaderValue>,
}

/// What TLS says of a connection.
#[derive(Debug)]
pub struct Secured {
    /// The client's certificate, if it showed one.
    pub certificate: Option<ClientCertificate>,
    /// Under which rule the connection was made; none: all hosts have the same.
    pub rule: Option<Rule>,
}

/// What the listener asks of clients' certificates, host by host, and what it asked of this one.
#[derive(Debug)]
pub struct Rule {
    /// From hosts to rules. A host that has no name here has rule 0.
    pub hosts: Arc<Names>,
    /// The connection's.
    pub number: usize,
}

impl Door {
    /// The door of a listener.
    pub fn new(listener: &ListenerConfig) -> Self {
        Self {
            proxies: listener.trusted_proxies.clone(),
            redirect: listener.redirect_to_https,
            hsts: listener.hsts.as_ref().map(|hsts| hsts.value.clone()),
        }
    }

    /// A door that asks nothing, where `proxies` are believed.
    pub fn trusting(proxies: TrustedProxies) -> Self {
        Self { proxies, redirect: None, hsts: None }
    }

    /// Who is believed here.
    pub fn proxies(&self) -> &TrustedProxies {
        &self.proxies
    }

    /// Lets `request` of `peer` in.
    ///
    /// # Errors
    /// If it is to come by another door.
    pub(super) fn admit(&self, peer: &Peer, request: &Sanitized) -> Result<(), Refusal> {
        if let Some(redirect) = &self.redirect
            && !request.origin().secure
        {
            return Err(elsewhere(redirect, request));
        }
        match peer.secured().and_then(|secured| secured.rule.as_ref()) {
            Some(rule) if rule.hosts.find(request.host()).unwrap_or(0) != rule.number => {
                Err(Refusal::Misdirected)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds what every response says. An upstream that says it itself knows better.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        if let Some(hsts) = &self.hsts {
            headers.entry(STRICT_TRANSPORT_SECURITY).or_insert_with(|| hsts.clone());
        }
    }
}

/// The same host and target over https.
fn elsewhere(redirect: &HttpsRedirect, request: &Sanitized) -> Refusal {
    if request.host().is_empty() {
        return Refusal::Malformed(Malformed::Host);
    }
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    match HeaderValue::try_from(format!("https://{}{port}{}", request.host(), request.target())) {
        Ok(location) => Refusal::Https(redirect.status, location),
        Err(_) => Refusal::Malformed(Malformed::Target),
    }
}
