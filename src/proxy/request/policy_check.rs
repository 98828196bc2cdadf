//! Checks the requirements of a listener.
//!
//! 1. A listener that redirects to HTTPS redirects every request whose client did not use TLS, according to the
//!    connection or a trusted proxy.
//! 2. Where hosts differ in the client certificates that they require, a request must be for a host with the rule under
//!    which its connection was made (RFC 9110, 7.4). Otherwise a client without a certificate could connect to one host
//!    and send requests for another.

use http::HeaderValue;

use super::inbound::Sanitized;
use super::peer::Peer;
use super::rate_limit::RateChecked;
use crate::config::HttpsRedirect;
use crate::proxy::refusal::{Malformed, Refusal};

/// A request that meets its listener's policy. Only [`PolicyChecked::check`] makes one.
#[derive(Debug)]
pub struct PolicyChecked(Sanitized);

impl PolicyChecked {
    /// Applies the policy of the listener that `peer` connected to.
    ///
    /// # Errors
    /// Returns a redirect to HTTPS, or [`Refusal::Misdirected`] if the connection was made under another host's rule on
    /// client certificates.
    pub fn check(checked: RateChecked, peer: &Peer) -> Result<Self, Refusal> {
        let request = checked.into_request();
        if let Some(redirect) = peer.listener_policy().https_redirect()
            && !request.origin().secure
        {
            return Err(https_redirect(redirect, &request));
        }
        match peer.tls().and_then(|tls| tls.rule.as_ref()) {
            // Compared as routes compare hosts: a route of `*.a.example` also has requests for `x.y.a.example`, for which
            // the certificate of `*.a.example` is not valid.
            Some(rule) if rule.hosts.find_below(request.host()).unwrap_or(0) != rule.number => {
                Err(Refusal::Misdirected)
            }
            Some(_) | None => Ok(Self(request)),
        }
    }

    pub(super) fn into_request(self) -> Sanitized {
        self.0
    }
}

/// Returns a redirect to the same host and target over HTTPS.
fn https_redirect(redirect: &HttpsRedirect, request: &Sanitized) -> Refusal {
    if request.host().is_empty() {
        return Refusal::Malformed(Malformed::Host);
    }
    let port = if redirect.port == 443 { String::new() } else { format!(":{}", redirect.port) };
    match HeaderValue::try_from(format!("https://{}{port}{}", request.host(), request.target())) {
        Ok(location) => Refusal::Https(redirect.status, location),
        Err(_) => Refusal::Malformed(Malformed::Target),
    }
}
