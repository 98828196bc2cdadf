//! `[upstreams.NAME.tls]`: verification of servers, and the gateway's client certificate.
//!
//! Server certificates are always verified, and no setting turns this off. For a server with a private certificate, `ca`
//! names its authority. It can name the certificate itself only if that is self-signed and not marked as an authority.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use toml::de::DeValue;

use crate::config::environment::Environment;
use crate::config::section::Section;
use crate::config::value::{Fault, string, text};
use crate::secret::Secret;

/// `[upstreams.NAME.tls]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamTls {
    /// The trusted certificate authorities. `None` uses those of the system.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// The name for SNI and certificate verification. `None` uses the host of the server's URL.
    pub server_name: Option<ServerName<'static>>,
    /// The gateway's client certificate.
    pub identity: Option<ClientIdentity>,
}

/// A client certificate with its chain and private key.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    /// The private key in PEM.
    key: Secret,
}

impl UpstreamTls {
    /// Returns the TLS client configuration that trusts `roots`.
    ///
    /// # Errors
    /// Returns an error if the key does not match the certificate, or its type is not supported.
    pub(crate) fn client(&self, roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match &self.identity {
            None => Ok(builder.with_no_client_auth()),
            Some(ClientIdentity { chain, key }) => {
                let key = PrivateKeyDer::from_pem_slice(key.expose())
                    .map_err(|_| rustls::Error::General("the key is not PEM".to_owned()))?;
                builder.with_client_auth_cert(chain.clone(), key)
            }
        }
    }
}

pub(super) fn read(
    upstream: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Option<UpstreamTls> {
    let content = |value: &DeValue<'_>| {
        let path = directory.join(string(value)?);
        let unreadable = |error| Fault::new(format!("cannot be read from `{}`: {error}", path.display()));
        environment.file(&path).map_err(unreadable)
    };
    let certificates = |value: &DeValue<'_>| certificates(&content(value)?);
    upstream.table("tls", |tls| {
        let authorities = tls.get("ca", |value| {
            let authorities = certificates(value)?;
            let mut roots = RootCertStore::empty();
            match authorities.iter().try_for_each(|authority| roots.add(authority.clone())) {
                Ok(()) => Ok(authorities),
                Err(_) => Err(Fault::new("contains an invalid X.509 certificate")),
            }
        });
        let server_name = tls.get("server_name", text(name));
        let chain = tls.get("cert", certificates);
        let key = tls.get("key", |value| {
            let pem = content(value)?;
            let key = PrivateKeyDer::from_pem_slice(&pem).map(|_| Secret::new(pem));
            key.map_err(|_| Fault::new("contains no PEM private key"))
        });
        for (one, other) in [("cert", "key"), ("key", "cert")] {
            if tls.has(one) && !tls.has(other) {
                tls.refuse(one, &[other], Fault::new(format!("needs `{other}`")));
            }
        }
        let identity = chain.zip(key).map(|(chain, key)| ClientIdentity { chain, key });
        let read = UpstreamTls { authorities, server_name, identity };
        if let Err(error) = read.client(RootCertStore::empty()) {
            tls.refuse("key", &[], Fault::new(format!("cannot be used with `cert`: {error}")));
        }
        tls.is_present().then_some(read)
    })
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(Fault::new("contains no PEM certificate")),
    }
}

fn name(text: &str) -> Result<ServerName<'static>, Fault> {
    let fault = |_| Fault::new("must be a host name or an IP address").hint("for example \"app.internal\"");
    ServerName::try_from(text.to_owned()).map_err(fault)
}
