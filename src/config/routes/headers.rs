//! `[routes.headers]`: the headers that carry claims, and what a client's certificate says, to the upstream.
//!
//! The rule: no name that HTTP or the gateway itself gives a meaning, and no two names of a route that an upstream could
//! take for one. With letters, digits and `-` only, that is when they differ in case alone.

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
    /// Its name: letters, digits and `-`, and not a name that the gateway or HTTP itself uses.
    pub name: HeaderName,
    /// Where the value comes from.
    pub source: HeaderSource,
    /// How characters that a header cannot carry are written.
    pub encoding: Encoding,
}

/// Where an injected header's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// One claim; a list is joined.
    Claim {
        /// Which.
        path: ClaimPath,
        /// Between a list's elements. One printable ASCII character, or several.
        join: String,
    },
    /// Text with claims in it. If one of them is missing, so is the header.
    Template(Vec<TemplatePart>),
    /// What the client's certificate says; it needs no session.
    Certificate(CertificateField),
}

/// A part of a client's certificate.
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
    /// The alternative names, joined by commas.
    Alternatives,
}

/// A piece of a header template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// Text: printable ASCII.
    Text(String),
    /// `{claim.path}`
    Claim(ClaimPath),
}

/// How characters that a header cannot carry are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `%XX` of `%`, controls and non-ASCII.
    Percent,
    /// UTF-8 as it is; controls still as `%XX`.
    Utf8,
    /// All of the value in base64.
    Base64,
}

impl HeaderRule {
    /// Whether the header speaks of the client's certificate rather than of the session.
    pub fn is_of_certificate(&self) -> bool {
        match self.source {
            HeaderSource::Certificate(_) => true,
            HeaderSource::Claim { .. } | HeaderSource::Template(_) => false,
        }
    }
}

/// Names that are never a claim's, in lower case.
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

/// Beginnings of such names. `transfer-encoding` is among them, as are the proxies' hop-by-hop headers.
const RESERVED_PREFIXES: [&str; 6] =
    ["content-", "proxy-", "sec-", "transfer-", "x-forwarded-", "x-session-"];

/// `has_clients`: whether any listener asks its clients for certificates.
pub(super) fn read(section: &mut Section<'_, '_>, has_clients: bool) -> Vec<HeaderRule> {
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
            let twice =
                Diagnostic::error(format!("`{}` is the name of two headers", section.name(entry.name)));
            let twice =
                twice.related(first.clone(), "the first").hint("upstreams do not tell them apart by case");
            section.report(twice, Some(entry.span.clone()));
        }
        seen.push((name.clone(), entry.span.clone()));
        let (source, encoding) = rule(section, &entry, has_clients)?;
        Some(HeaderRule { name, source, encoding })
    })
}

fn name(text: &str) -> Result<HeaderName, Fault> {
    let name = plain(text)?;
    // A route may have the trace taken off; what it says is the gateway's to say.
    if is_reserved(&name) || name == TRACEPARENT {
        return Err(Fault::new("is a name that HTTP or sessiongate itself uses")
            .hint("choose another, such as `X-User`"));
    }
    Ok(name)
}

/// A name that is no other one to whoever takes odd characters for `_`.
pub(super) fn plain(text: &str) -> Result<HeaderName, Fault> {
    let fault = "is not a header's name";
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(
            Fault::new(fault).hint("only letters, digits and `-`: upstreams read others as `-` or `_`")
        );
    }
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| Fault::new(fault))
}

/// Whether HTTP or the gateway itself gives a request's header of this name a meaning.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    RESERVED.contains(&name.as_str())
        || RESERVED_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// `"claim.path"`, `{ claim = … }`, `{ template = … }` or `{ tls = … }`.
fn rule<'d>(
    section: &mut Section<'d, '_>,
    entry: &TableEntry<'d>,
    has_clients: bool,
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
            let either = Diagnostic::error(format!("`{name}` needs either `claim`, `template` or `tls`"));
            header.report_given(&["claim", "template", "tls"], either, header.here());
        }
        if header.has("tls") && !has_clients {
            let fault = Fault::new("needs a listener that asks clients for certificates");
            let fault = fault.hint("set `client_ca` below `[listeners.tls]`");
            header.refuse("tls", &["/listeners/"], fault);
        }
        if !header.has("claim") && header.has("join") {
            header.refuse("join", &["claim"], Fault::new("is only for `claim`"));
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
        .ok_or_else(|| Fault::new("is not the path of a claim").hint("such as \"user\" or \"user.name\""))
}

/// What stands between elements. An element's own characters of it are percent-encoded, which must remain readable: so
/// none of it may occur in an encoding.
fn join(text: &str) -> Result<String, Fault> {
    let allowed = |byte: u8| byte == b' ' || (byte.is_ascii_punctuation() && byte != b'%');
    if text.len() <= 8 && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Fault::new("must be punctuation other than `%`, with or without spaces")
        .hint("such as \",\" or \"; \""))
}

/// Text with `{claim.path}` in it; `{{` and `}}` are braces.
fn template(text: &str) -> Result<Vec<TemplatePart>, Fault> {
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(Fault::new(format!("must not hold `{}`", c.escape_debug()))
            .hint("only claims may hold non-ASCII"));
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
        return Err(Fault::new("names no claim").hint("such as \"{user.name} of {tenant}\""));
    }
    Ok(parts)
}
