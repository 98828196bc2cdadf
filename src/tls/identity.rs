//! A server's certificate with its key, and the authorities that it asks of its clients.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::time::Timestamp;

/// A certificate with its chain and its key, which belong together.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What a handshake shows and signs with.
    pub certified: Arc<CertifiedKey>,
    /// The DNS names of the certificate, wildcards included.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

/// Why PEM files make no identity, or no authorities.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// No certificate in the file.
    #[error("holds no PEM certificate")]
    NoCertificate,
    /// A certificate that is none.
    #[error("holds a certificate that cannot be read")]
    BadCertificate,
    /// No private key in the file.
    #[error("holds no PEM private key")]
    NoKey,
    /// A key of a kind, or a size, that is not supported.
    #[error("holds a private key that cannot be used")]
    BadKey,
    /// The key is another certificate's.
    #[error("is not the key of the certificate")]
    Mismatch,
}

impl PemError {
    /// Whether the key's file is to blame rather than the certificate's.
    pub fn is_of_key(&self) -> bool {
        match self {
            Self::NoKey | Self::BadKey | Self::Mismatch => true,
            Self::NoCertificate | Self::BadCertificate => false,
        }
    }
}

impl Identity {
    /// Reads a certificate, its chain after it, and its key.
    ///
    /// # Errors
    /// If either is not there, is not what it should be, or they do not belong together.
    pub fn from_pem(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, PemError> {
        let chain = certificates(certificate)?;
        let first = chain.first().ok_or(PemError::NoCertificate)?;
        let leaf = CertificateInner::<Raw>::from_der(first.as_ref()).map_err(|_| PemError::BadCertificate)?;
        let leaf = leaf.tbs_certificate();
        let names = dns_names(leaf.get_extension::<SubjectAltName>().map_err(|_| PemError::BadCertificate)?);
        let moment = |time: x509_cert::time::Time| {
            Timestamp::from_secs(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        let (not_before, not_after) = (moment(leaf.validity().not_before), moment(leaf.validity().not_after));
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| PemError::NoKey)?;
        let signing = provider.key_provider.load_private_key(key).map_err(|_| PemError::BadKey)?;
        let certified = CertifiedKey::new(chain, signing);
        let matched = certified.keys_match();
        if matches!(matched, Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch))) {
            return Err(PemError::Mismatch);
        }
        Ok(Self { certified: Arc::new(certified), names, not_before, not_after })
    }
}

/// Reads the authorities whose clients are let in.
///
/// # Errors
/// If there is none, or one that cannot be read.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| PemError::BadCertificate)?;
    }
    Ok(roots)
}

/// At least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates
        .map_err(|_| PemError::BadCertificate)
        .and_then(|all| if all.is_empty() { Err(PemError::NoCertificate) } else { Ok(all) })
}

fn dns_names(extension: Option<(bool, SubjectAltName)>) -> Vec<String> {
    let Some((_, SubjectAltName(names))) = extension else { return Vec::new() };
    let dns = names.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::OtherName(_)
        | GeneralName::Rfc822Name(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::UniformResourceIdentifier(_)
        | GeneralName::IpAddress(_)
        | GeneralName::RegisteredId(_) => None,
    });
    dns.collect()
}
