//! `[routes.headers]`: headers with claims and client certificate fields for the upstream.
//!
//! Names that HTTP or the gateway uses are rejected, and so are two names that an upstream could confuse. Names consist
//! of letters, digits and `-`, so two of them can be confused only if they differ in case alone.

use http::HeaderName;

use super::template::{self, Piece};
use crate::claims::ClaimPath;
use crate::config::diagnostic::Diagnostic;
use crate::config::section::{Section, TableEntry};
use crate::config::value::{Fault, one_of, text};
use crate::headers::TRACEPARENT;

/// One injected header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderRule {
    /// The header's name.
    pub name: HeaderName,
    /// The source of the value.
    pub source: HeaderSource,
    /// The encoding of characters that a header cannot contain.
    pub encoding: Encoding,
}

/// The source of an injected header's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// One claim. The elements of a list are joined.
    Claim {
        /// The claim.
        path: ClaimPath,
        /// The separator of a list's elements: ASCII punctuation and spaces.
        join: String,
    },
    /// Text with claims. If a claim is missing, the header is omitted.
    Template(Vec<TemplatePart>),
    /// A field of the client's certificate. It needs no session.
    Certificate(CertificateField),
}

/// A field of a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateField {
    /// The subject (RFC 4514).
    Subject,
    /// The issuer (RFC 4514).
    Issuer,
    /// The serial number in hex digits.
    Serial,
    /// The SHA-256 of the certificate in hex digits.
    Fingerprint,
    /// The subject alternative names, joined by commas.
    Alternatives,
}

/// A piece of a header template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Literal text in printable ASCII.
    Text(String),
    /// `{claim.path}`
    Claim(ClaimPath),
}

/// The encoding of characters that a header cannot contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Percent-encoding of `%`, control and non-ASCII characters.
    Percent,
    /// UTF-8, with percent-encoding of control characters.
    Utf8,
    /// Base64 of the whole value.
    Base64,
}

impl HeaderRule {
    /// Returns whether the value comes from the client's certificate, not from the session.
    pub fn is_from_certificate(&self) -> bool {
        match self.source {
            HeaderSource::Certificate(_) => true,
            HeaderSource::Claim { .. } | HeaderSource::Template(_) => false,
        }
    }
}

/// Reserved names, in lower case.
const RESERVED: [&str; 15] = [
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy",
    "set-cookie",
    "te",
    "trailer",
    "upgrade",
    "via",
    "x-request-id",
];

/// Prefixes of reserved names, such as `transfer-encoding` and `proxy-connection`.
const RESERVED_PREFIXES: [&str; 6] =
    ["content-", "proxy-", "sec-", "transfer-", "x-forwarded-", "x-session-"];

/// Reads the headers. `has_client_certificates` tells whether any listener requests certificates from clients.
pub(super) fn read(section: &mut Section<'_, '_>, has_client_certificates: bool) -> Vec<HeaderRule> {
    let mut seen: Vec<(HeaderName, std::ops::Range<usize>)> = Vec::new();
    section.entries(|section, entry| {
        let name = match name(entry.name) {
            Ok(name) => name,
            Err(fault) => {
                section.refuse_at(entry.name, entry.span, fault);
                return None;
            }
        };
        if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name) {
            let twice = Diagnostic::error(format!("`{}` is set twice", section.name(entry.name)));
            let twice = twice.related(first.clone(), "the first").hint("header names are case-insensitive");
            section.report(twice, Some(entry.span.clone()));
        }
        seen.push((name.clone(), entry.span.clone()));
        let (source, encoding) = rule(section, &entry, has_client_certificates)?;
        Some(HeaderRule { name, source, encoding })
    })
}

fn name(text: &str) -> Result<HeaderName, Fault> {
    let name = plain(text)?;
    // `request_headers` may remove `traceparent`, but only the gateway sets it.
    if is_reserved(&name) || name == TRACEPARENT {
        return Err(Fault::new("is a header that HTTP or sessiongate itself uses")
            .hint("use another name, such as `X-User`"));
    }
    Ok(name)
}

/// Parses a name of letters, digits and `-`. An upstream that reads other characters as `_` could confuse two names.
pub(super) fn plain(text: &str) -> Result<HeaderName, Fault> {
    let fault = "is not a valid header name";
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(Fault::new(fault)
            .hint("use only letters, digits and `-`: upstreams may read others as `-` or `_`"));
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| Fault::new(fault))
}

/// Returns whether HTTP or the gateway itself uses this request header.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Reads `"claim.path"`, `{ claim = … }`, `{ template = … }` or `{ tls = … }`.
fn rule<'d>(
    section: &mut Section<'d, '_>,
    entry: &TableEntry<'d>,
    has_client_certificates: bool,
) -> Option<(HeaderSource, Encoding)> {
    if let Some(path) = entry.value.get_ref().as_str() {
        return match claim(path) {
            Ok(path) => Some((HeaderSource::Claim { path, join: ",".to_owned() }, Encoding::Percent)),
            Err(fault) => {
                section.refuse_at(entry.name, entry.value.span(), fault);
                None
            }
        };
    }
    if !entry.value.get_ref().is_table() {
        let fault = crate::config::value::wrong_type(entry.value.get_ref(), "a claim path or a table");
        section.refuse_at(entry.name, entry.value.span(), fault);
        return None;
    }
    let encodings = [("percent", Encoding::Percent), ("utf8", Encoding::Utf8), ("base64", Encoding::Base64)];
    let name = section.name(entry.name);
    section.descend(entry.name, entry.value, |header| {
        let path = header.get("claim", text(claim));
        let join = header.get("join", text(join));
        let template = header.get("template", text(template));
        let fields = [
            ("subject", CertificateField::Subject),
            ("issuer", CertificateField::Issuer),
            ("serial", CertificateField::Serial),
            ("fingerprint", CertificateField::Fingerprint),
            ("san", CertificateField::Alternatives),
        ];
        let field = header.get("tls", one_of(&fields));
        let encoding = header.get("encoding", one_of(&encodings)).unwrap_or(Encoding::Percent);
        if ["claim", "template", "tls"].into_iter().filter(|key| header.has(key)).count() != 1 {
            let either =
                Diagnostic::error(format!("`{name}` needs exactly one of `claim`, `template` and `tls`"));
            header.report_unless_broken(&["claim", "template", "tls"], either, header.own_span());
        }
        if header.has("tls") && !has_client_certificates {
            let fault = Fault::new("needs a listener that requests client certificates");
            let fault = fault.hint("set `client_ca` in `[listeners.tls]`");
            header.refuse("tls", &["/listeners/"], fault);
        }
        if !header.has("claim") && header.has("join") {
            header.refuse("join", &["claim"], Fault::new("is only allowed with `claim`"));
        }
        let source = match (path, template, field) {
            (Some(path), _, _) => HeaderSource::Claim { path, join: join.unwrap_or_else(|| ",".to_owned()) },
            (None, Some(parts), _) => HeaderSource::Template(parts),
            (None, None, Some(field)) => HeaderSource::Certificate(field),
            (None, None, None) => return None,
        };
        Some((source, encoding))
    })?
}

fn claim(text: &str) -> Result<ClaimPath, Fault> {
    ClaimPath::parse(text)
        .ok_or_else(|| Fault::new("is not a valid claim path").hint("for example \"user\" or \"user.name\""))
}

/// Parses the separator of a list's elements. Its characters are percent-encoded inside elements, so it must not contain
/// the characters of percent-encoding itself: `%`, letters and digits.
fn join(text: &str) -> Result<String, Fault> {
    let allowed = |byte: u8| byte == b' ' || (byte.is_ascii_punctuation() && byte != b'%');
    if text.len() <= 8 && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Fault::new("must consist of at most 8 characters: punctuation other than `%`, and spaces")
        .hint("for example \",\" or \"; \""))
}

/// Parses text with `{claim.path}` in it. `{{` and `}}` are literal braces.
fn template(text: &str) -> Result<Vec<TemplatePart>, Fault> {
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(Fault::new(format!("must not contain `{}`", c.escape_debug()))
            .hint("only printable ASCII is allowed; claims may contain other characters"));
    }
    let pieces = template::parse(text, claim)?;
    let parts: Vec<_> = pieces
        .into_iter()
        .map(|piece| match piece {
            Piece::Text(text) => TemplatePart::Text(text),
            Piece::Variable(claim) => TemplatePart::Claim(claim),
        })
        .collect();
    if !parts.iter().any(|part| matches!(part, TemplatePart::Claim(_))) {
        return Err(Fault::new("contains no claim").hint("for example \"{user.name} of {tenant}\""));
    }
    Ok(parts)
}
