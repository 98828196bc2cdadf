//! A server certificate with its private key, and the CAs for client certificates.

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

/// A certificate with its chain and the matching private key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The chain and the signing key, for rustls.
    pub certified: Arc<CertifiedKey>,
    /// The DNS names of the certificate, wildcards included.
    pub names: Vec<String>,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
}

/// Error when parsing the PEM files of an [`Identity`] or of CAs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The file has no certificate.
    #[error("contains no PEM certificate")]
    NoCertificate,
    /// A certificate is malformed.
    #[error("contains an invalid certificate")]
    BadCertificate,
    /// The file has no private key.
    #[error("contains no PEM private key")]
    NoKey,
    /// The key is malformed, or its type or size is not supported.
    #[error("contains an unsupported private key")]
    BadKey,
    /// The key belongs to another certificate.
    #[error("does not match the certificate")]
    Mismatch,
}

impl PemError {
    /// Returns whether the error concerns the key's file rather than the certificate's.
    pub fn is_key_error(&self) -> bool {
        match self {
            Self::NoKey | Self::BadKey | Self::Mismatch => true,
            Self::NoCertificate | Self::BadCertificate => false,
        }
    }
}

impl Identity {
    /// Parses a certificate, followed by its chain, and its private key.
    ///
    /// # Errors
    /// Returns [`PemError`] if either is missing or invalid, or if the key does not match the certificate.
    pub fn from_pem(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, PemError> {
        let chain = certificates(certificate)?;
        let first = chain.first().ok_or(PemError::NoCertificate)?;
        let leaf = CertificateInner::<Raw>::from_der(first.as_ref()).map_err(|_| PemError::BadCertificate)?;
        let leaf = leaf.tbs_certificate();
        let names = dns_names(leaf.get_extension::<SubjectAltName>().map_err(|_| PemError::BadCertificate)?);
        let timestamp = |time: x509_cert::time::Time| {
            Timestamp::from_secs(i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX))
        };
        let not_before = timestamp(leaf.validity().not_before);
        let not_after = timestamp(leaf.validity().not_after);
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

/// Parses the CAs that client certificates are verified against.
///
/// # Errors
/// Returns [`PemError`] if there is no certificate, or an invalid one.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, PemError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| PemError::BadCertificate)?;
    }
    Ok(roots)
}

/// Parses at least one certificate.
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
