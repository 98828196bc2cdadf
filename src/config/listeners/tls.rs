//! `[listeners.tls]`: certificates, and what is asked of clients.
//!
//! Every file that is named is read here, through the [`Environment`], so that `check` and start refuse what would not
//! serve. While the gateway runs, the files are read again when they change.

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
    /// At least one; the first serves clients that name no other.
    pub certificates: Vec<CertificateConfig>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// The limit of a handshake.
    pub handshake_timeout: Duration,
}

/// A certificate, and what is asked of the clients that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateConfig {
    /// The file of the certificate and its chain.
    pub cert: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
    /// What is asked of clients; none: no certificate.
    pub clients: Option<ClientRule>,
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    /// The file of the authorities that sign clients' certificates.
    pub ca: PathBuf,
    /// Whether a client without a certificate is turned away. One with a certificate that does not hold always is.
    pub required: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2
    Tls12,
    /// 1.3
    Tls13,
}

/// What `client_auth` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientAuth {
    Required,
    Optional,
    None,
}

/// A listener's `client_ca` and `client_auth`, which its certificates take over.
#[derive(Clone, Debug, Default)]
struct Clients {
    ca: Option<PathBuf>,
    auth: Option<ClientAuth>,
    /// Where `ca` is in the file.
    location: String,
}

/// Where files are, and how they are read.
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
            let fault = Fault::new("needs `client_ca`: the authorities of the clients");
            tls.refuse("client_auth", &["client_ca"], fault);
        }
        let mut names = HostNames::default();
        let mut position = 0;
        let certificates = tls.tables("certificates", |entry| {
            let certificate = certificate(entry, files, &clients, &mut names, position);
            position += 1;
            certificate
        });
        if tls.is_there() && tls.is_empty("certificates") {
            let fault = Fault::new("must name at least one certificate");
            let fault = fault.hint("such as `[{ cert = \"app.pem\", key = \"app.key\" }]`");
            tls.refuse("certificates", &["certificates"], fault);
        }
        tls.is_there().then_some(TlsConfig { certificates, min_version, handshake_timeout })
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
            // Every name is added, so all of them are asked; that one is new is enough.
            let new = identity.names.iter().filter(|name| names.add(name, position)).count();
            if position > 0 && new == 0 {
                let idle = Diagnostic::warning(format!("`{}` is never chosen", entry.name("cert")));
                let hint = "each of its names is also one of a certificate before it, or it has no DNS name";
                entry.report(idle.hint(hint), entry.span("cert"));
            }
        }
        Err(error) => {
            let key = if error.is_key_error() { "key" } else { "cert" };
            entry.refuse(key, &[], Fault::new(error.to_string()));
        }
    }
    Some(CertificateConfig { cert, key, clients })
}

/// What a certificate's own keys, and those of the listener where it has none, ask of clients.
fn client_rule(entry: &mut Section<'_, '_>, files: Files<'_>, listener: &Clients) -> Option<ClientRule> {
    let words =
        [("required", ClientAuth::Required), ("optional", ClientAuth::Optional), ("none", ClientAuth::None)];
    let own_ca = entry.get("client_ca", |value| files.authorities(&string(value)?));
    let own_auth = entry.get("client_auth", one_of(&words));
    if own_auth == Some(ClientAuth::None) {
        if entry.has("client_ca") {
            entry.refuse("client_auth", &[], Fault::new("is `none`, yet there is a `client_ca`"));
        } else if listener.ca.is_none() {
            let fault = Fault::new("has no effect: the listener has no `client_ca`");
            entry.refuse("client_auth", &[&listener.location], fault);
        }
        return None;
    }
    let ca = own_ca.or_else(|| listener.ca.clone());
    if own_auth.is_some() && ca.is_none() && !entry.has("client_ca") {
        let fault = Fault::new("needs `client_ca`: the authorities of the clients");
        entry.refuse("client_auth", &["client_ca", &listener.location], fault);
    }
    // Whoever names authorities and says no more means that clients need a certificate.
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
    entry.report(warning.hint("clients will refuse it; it is used all the same"), entry.span("cert"));
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
