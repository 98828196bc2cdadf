//! The fields of a client certificate, as text for request headers.
//!
//! This parses a certificate that the handshake has already verified.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::time::Timestamp;

/// A client certificate.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The subject, in the form of RFC 4514.
    pub subject: String,
    /// The issuer, in the form of RFC 4514.
    pub issuer: String,
    /// The serial number, in upper-case hex digits.
    pub serial: String,
    /// The SHA-256 of the certificate, in lower-case hex digits.
    pub fingerprint: String,
    /// The subject alternative names, each with its type: `DNS:`, `email:`, `URI:`, `IP:`.
    pub alternatives: Vec<String>,
    /// End of validity.
    pub not_after: Timestamp,
}

impl ClientCertificate {
    /// Parses a DER certificate. Returns `None` if it is malformed.
    pub fn parse(der: &[u8]) -> Option<Self> {
        let certificate = CertificateInner::<Raw>::from_der(der).ok()?;
        let inner = certificate.tbs_certificate();
        let alternatives = inner.get_extension::<SubjectAltName>().ok()?;
        let names = alternatives.map(|(_, SubjectAltName(names))| names).unwrap_or_default();
        let not_after = inner.validity().not_after.to_unix_duration().as_secs();
        Some(Self {
            subject: inner.subject().to_string(),
            issuer: inner.issuer().to_string(),
            serial: serial(inner.serial_number().as_bytes()),
            fingerprint: hex(Sha256::digest(der).as_slice(), false),
            alternatives: names.iter().filter_map(alternative_name).collect(),
            not_after: Timestamp::from_secs(i64::try_from(not_after).unwrap_or(i64::MAX)),
        })
    }
}

/// Formats a serial number, without the leading zero byte that DER adds to keep the number positive.
fn serial(bytes: &[u8]) -> String {
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => hex(rest, true),
        bytes => hex(bytes, true),
    }
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = if upper { write!(text, "{byte:02X}") } else { write!(text, "{byte:02x}") };
        text
    })
}

fn alternative_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(format!("DNS:{}", name.as_str())),
        GeneralName::Rfc822Name(name) => Some(format!("email:{}", name.as_str())),
        GeneralName::UniformResourceIdentifier(name) => Some(format!("URI:{}", name.as_str())),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| format!("IP:{}", Ipv4Addr::from(bytes)));
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| format!("IP:{}", Ipv6Addr::from(bytes))))
                .ok()
        }
        // These have no generally accepted text form.
        GeneralName::OtherName(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EdiPartyName(_)
        | GeneralName::RegisteredId(_) => None,
    }
}
