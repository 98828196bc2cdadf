//! The policy of a listener: its requirements on requests, and the headers that it adds to responses. `policy_check.rs`
//! applies the requirements.

use std::sync::Arc;

use http::HeaderValue;
use http::header::STRICT_TRANSPORT_SECURITY;

use crate::config::{HttpsRedirect, ListenerConfig, TrustedProxies};
use crate::fields::Fields;
use crate::tls::{ClientCertificate, HostNames};

/// The policy of one listener.
#[derive(Debug)]
pub struct ListenerPolicy {
    proxies: TrustedProxies,
    redirect: Option<HttpsRedirect>,
    hsts: Option<HeaderValue>,
}

/// The results of the TLS handshake of a connection.
#[derive(Debug)]
pub struct TlsFacts {
    /// The client's certificate, if it presented one.
    pub certificate: Option<ClientCertificate>,
    /// The client certificate rule of the connection; `None` if all hosts have the same.
    pub rule: Option<CertificateRule>,
}

/// The rule on client certificates under which a connection was made.
#[derive(Debug)]
pub struct CertificateRule {
    /// The number of each host's rule. A host that is not listed has rule 0.
    pub hosts: Arc<HostNames>,
    /// The number of the connection's rule.
    pub number: usize,
}

impl ListenerPolicy {
    /// Returns the policy of a configured listener.
    pub fn new(listener: &ListenerConfig) -> Self {
        Self {
            proxies: listener.trusted_proxies.clone(),
            redirect: listener.redirect_to_https,
            hsts: listener.hsts.as_ref().map(|hsts| hsts.value.clone()),
        }
    }

    /// Returns a policy that requires nothing and trusts `proxies`.
    pub fn trusting(proxies: TrustedProxies) -> Self {
        Self { proxies, redirect: None, hsts: None }
    }

    /// Returns the proxies whose forwarding headers are trusted.
    pub fn proxies(&self) -> &TrustedProxies {
        &self.proxies
    }

    /// Returns the redirect to HTTPS, if one is configured.
    pub(super) fn https_redirect(&self) -> Option<&HttpsRedirect> {
        self.redirect.as_ref()
    }

    /// Adds the headers of every response. A header that the upstream sent is kept.
    pub(in crate::proxy) fn add_headers(&self, fields: &mut Fields) {
        if let Some(hsts) = &self.hsts
            && !fields.contains(&STRICT_TRANSPORT_SECURITY)
        {
            fields.append(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}
