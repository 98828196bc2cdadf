//! `[listeners.tls]`: server certificates, and authentication of clients by certificates.
//!
//! Every file is read here, through the [`Environment`], so that `check` and startup reject unusable files. The running
//! gateway reloads the files when they change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::crypto::ring;

use crate::config::diagnostic::Diagnostic;
use crate::config::environment::Environment;
use crate::config::section::Section;
use crate::config::value::{Fault, duration, one_of, string};
use crate::tls::{HostNames, Identity, PemError, authorities};

/// `[listeners.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server certificates, at least one. The first is the default for clients whose SNI matches none.
    pub certificates: Vec<CertificateConfig>,
    /// Minimum TLS version.
    pub min_version: TlsVersion,
    /// Timeout for a handshake.
    pub handshake_timeout: Duration,
}

/// A server certificate, and how the clients that it serves are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The file with the certificate and its chain.
    pub cert: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
    /// Authentication of clients. `None` requests no certificate.
    pub clients: Option<ClientRule>,
}

/// Authentication of clients by certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    /// The file with the certificate authorities of clients.
    pub ca: PathBuf,
    /// Whether clients without a certificate are rejected. Clients with an invalid one always are.
    pub required: bool,
}

/// A TLS version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// The values of `client_auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientAuth {
    Required,
    Optional,
    None,
}

/// A listener's `client_ca` and `client_auth`: the defaults of its certificates.
#[derive(Clone, Debug, Default)]
struct Clients {
    ca: Option<PathBuf>,
    auth: Option<ClientAuth>,
    /// The location of `client_ca` in the file.
    location: String,
}

/// Access to files, relative to the configuration's directory.
#[derive(Clone, Copy)]
struct Files<'e> {
    directory: &'e Path,
    environment: &'e dyn Environment,
}

pub(super) fn read(
    listener: &mut Section<'_, '_>,
    directory: &Path,
    environment: &dyn Environment,
) -> Option<TlsConfig> {
    let files = Files { directory, environment };
    listener.table("tls", |tls| {
        let versions = [("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
        let min_version = tls.get("min_version", one_of(&versions)).unwrap_or(TlsVersion::Tls12);
        let limit = duration(Duration::from_millis(100)..=Duration::from_mins(10));
        let handshake_timeout = tls.get("handshake_timeout", limit).unwrap_or(Duration::from_secs(10));
        let words = [("required", ClientAuth::Required), ("optional", ClientAuth::Optional)];
        let clients = Clients {
            ca: tls.get("client_ca", |value| files.authorities(&string(value)?)),
            auth: tls.get("client_auth", one_of(&words)),
            location: tls.location("client_ca"),
        };
        if tls.has("client_auth") && !tls.has("client_ca") {
            let fault = Fault::new("needs `client_ca`, the certificate authorities of clients");
            tls.refuse("client_auth", &["client_ca"], fault);
        }
        let mut names = HostNames::default();
        let mut position = 0;
        let certificates = tls.tables("certificates", |entry| {
            let certificate = certificate(entry, files, &clients, &mut names, position);
            position += 1;
            certificate
        });
        if tls.is_present() && tls.is_empty("certificates") {
            let fault = Fault::new("must name at least one certificate");
            let fault = fault.hint("for example `[{ cert = \"app.pem\", key = \"app.key\" }]`");
            tls.refuse("certificates", &["certificates"], fault);
        }
        tls.is_present().then_some(TlsConfig { certificates, min_version, handshake_timeout })
    })
}

fn certificate(
    entry: &mut Section<'_, '_>,
    files: Files<'_>,
    listener: &Clients,
    names: &mut HostNames,
    position: usize,
) -> Option<CertificateConfig> {
    let cert = entry.require("cert", |value| files.read(&string(value)?));
    let key = entry.require("key", |value| files.read(&string(value)?));
    let clients = client_rule(entry, files, listener);
    let ((cert, certificate), (key, key_pem)) = (cert?, key?);
    match Identity::from_pem(&certificate, &key_pem, &ring::default_provider()) {
        Ok(identity) => {
            warn_of_validity(entry, &identity, files.environment);
            // Counts, instead of stopping at the first new name, because every name must be added.
            let new = identity.names.iter().filter(|name| names.add(name, position)).count();
            if position > 0 && new == 0 {
                let unused = Diagnostic::warning(format!("`{}` is never used", entry.name("cert")));
                let hint = "earlier certificates cover each of its names, or it has no DNS name";
                entry.report(unused.hint(hint), entry.span("cert"));
            }
        }
        Err(error) => {
            let key = if error.is_key_error() { "key" } else { "cert" };
            entry.refuse(key, &[], Fault::new(error.to_string()));
        }
    }
    Some(CertificateConfig { cert, key, clients })
}

/// Reads a certificate's client authentication, with the listener's settings as defaults.
fn client_rule(entry: &mut Section<'_, '_>, files: Files<'_>, listener: &Clients) -> Option<ClientRule> {
    let words =
        [("required", ClientAuth::Required), ("optional", ClientAuth::Optional), ("none", ClientAuth::None)];
    let own_ca = entry.get("client_ca", |value| files.authorities(&string(value)?));
    let own_auth = entry.get("client_auth", one_of(&words));
    if own_auth == Some(ClientAuth::None) {
        if entry.has("client_ca") {
            entry.refuse("client_auth", &[], Fault::new("is `none`, but `client_ca` is set"));
        } else if listener.ca.is_none() {
            let fault = Fault::new("has no effect: the listener has no `client_ca`");
            entry.refuse("client_auth", &[&listener.location], fault);
        }
        return None;
    }
    let ca = own_ca.or_else(|| listener.ca.clone());
    if own_auth.is_some() && ca.is_none() && !entry.has("client_ca") {
        let fault = Fault::new("needs `client_ca`, the certificate authorities of clients");
        entry.refuse("client_auth", &["client_ca", &listener.location], fault);
    }
    // If only `client_ca` is set, clients must have a certificate.
    let auth = own_auth.or(listener.auth).unwrap_or(ClientAuth::Required);
    Some(ClientRule { ca: ca?, required: auth == ClientAuth::Required })
}

fn warn_of_validity(entry: &mut Section<'_, '_>, identity: &Identity, environment: &dyn Environment) {
    let now = environment.now();
    let state = if now > identity.not_after {
        "has expired"
    } else if now < identity.not_before {
        "is not valid yet"
    } else {
        return;
    };
    let warning = Diagnostic::warning(format!("the certificate of `{}` {state}", entry.name("cert")));
    entry.report(warning.hint("the gateway uses it, but clients will reject it"), entry.span("cert"));
}

impl Files<'_> {
    fn read(self, name: &str) -> Result<(PathBuf, Vec<u8>), Fault> {
        let path = self.directory.join(name);
        match self.environment.certificate(&path) {
            Ok(content) => Ok((path, content)),
            Err(error) => Err(Fault::new(format!("cannot be read from `{}`: {error}", path.display()))),
        }
    }

    fn authorities(self, name: &str) -> Result<PathBuf, Fault> {
        let (path, content) = self.read(name)?;
        authorities(&content).map_err(|error: PemError| Fault::new(error.to_string()))?;
        Ok(path)
    }
}
