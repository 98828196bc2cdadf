//! The rustls configurations of a listener, built from its certificate files.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};

use super::error::TlsError;
use super::files::Files;
use crate::config::{ClientRule, TlsConfig, TlsVersion};
use crate::time::Timestamp;
use crate::tls::{HostNames, Identity, authorities};

/// The ALPN protocol id of HTTP/2 (RFC 9113, 3.2).
pub(super) const HTTP2: &[u8] = b"h2";
/// The ALPN protocol id of HTTP/1.1 (RFC 7301, 6).
const HTTP1: &[u8] = b"http/1.1";
/// Limit on the cached TLS 1.2 sessions of clients without ticket support, per certificate.
const MAX_SESSIONS: usize = 1024;
/// TLS 1.3 tickets sent per handshake: enough for two further connections.
const TICKETS: usize = 2;

/// The TLS contexts of a listener, and the selection among them.
#[derive(Debug)]
pub(super) struct Contexts {
    /// The context of the first certificate.
    default: Context,
    /// The contexts of the other certificates, in the order of the configuration.
    others: Vec<Context>,
    /// The position of the certificate for each name.
    names: HostNames,
    /// The number of the client certificate rule of each host; `None` if there is one rule for all hosts.
    pub(super) hosts: Option<Arc<HostNames>>,
    /// End of validity of the certificate that expires first.
    pub(super) not_after: Timestamp,
}

/// The TLS context of one certificate.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) config: Arc<ServerConfig>,
    /// The number of its client certificate rule; 0 is that of the first certificate.
    pub(super) rule: usize,
}

impl Contexts {
    /// Builds the configurations of all certificates.
    pub(super) fn new(config: &TlsConfig, http2: bool, files: &Files) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let (mut names, mut hosts) = (HostNames::default(), HostNames::default());
        let mut rules: Vec<Option<&ClientRule>> = Vec::new();
        let mut contexts = Vec::new();
        let mut not_after = Timestamp::NEVER;
        for (position, certificate) in config.certificates.iter().enumerate() {
            let (chain, key) = (files.get(&certificate.cert)?, files.get(&certificate.key)?);
            let identity = Identity::from_pem(chain, key, &provider).map_err(|error| {
                let path = if error.is_key_error() { &certificate.key } else { &certificate.cert };
                TlsError::Pem { path: path.clone(), error }
            })?;
            not_after = not_after.min(identity.not_after);
            let clients = certificate.clients.as_ref();
            let rule = rules.iter().position(|other| *other == clients).unwrap_or(rules.len());
            if rule == rules.len() {
                rules.push(clients);
            }
            for name in &identity.names {
                names.add(name, position);
                hosts.add(name, rule);
            }
            let mut config = server_config(config.min_version, clients, identity, files, &provider)?;
            config.alpn_protocols =
                if http2 { vec![HTTP2.to_vec(), HTTP1.to_vec()] } else { vec![HTTP1.to_vec()] };
            contexts.push(Context { config: Arc::new(config), rule });
        }
        let mut contexts = contexts.into_iter();
        let default = contexts.next().ok_or(TlsError::Nothing)?;
        let hosts = (rules.len() > 1).then(|| Arc::new(hosts));
        Ok(Self { default, others: contexts.collect(), names, hosts, not_after })
    }

    /// Returns the context for a client that sends `server` as SNI.
    pub(super) fn choose(&self, server: Option<&str>) -> &Context {
        let position =
            server.and_then(|server| self.names.find(server)).and_then(|found| found.checked_sub(1));
        position.and_then(|position| self.others.get(position)).unwrap_or(&self.default)
    }
}

fn server_config(
    min_version: TlsVersion,
    clients: Option<&ClientRule>,
    identity: Identity,
    files: &Files,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, TlsError> {
    let versions: &[_] = match min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(rule) => {
            let roots = authorities(files.get(&rule.ca)?);
            let roots = roots.map_err(|error| TlsError::Pem { path: rule.ca.clone(), error })?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let verifier = if rule.required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified)));
    config.ticketer = ring::Ticketer::new()?;
    config.session_storage = ServerSessionMemoryCache::new(MAX_SESSIONS);
    config.send_tls13_tickets = TICKETS;
    Ok(config)
}
