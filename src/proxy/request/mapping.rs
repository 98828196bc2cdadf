//! Maps claims and the fields of the client's certificate to header values.
//!
//! 1. A claim that is missing, null, an empty list or an empty string results in no header.
//! 2. No claim can end a header, start another, or forge an element of a list. With the default encoding, control
//!    characters, `%`, non-ASCII characters, whitespace at both ends of the value and of each list element, and the
//!    characters of the separator within list elements are percent-encoded.
//! 3. If the headers of a route exceed the limit, the request is refused. No value is truncated.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde_json::Value;

use crate::claims::Claims;
use crate::config::{CertificateField, Encoding, HeaderRule, HeaderSource, TemplatePart};
use crate::header_lines::HeaderLines;
use crate::session::{Mapped, MappingTooLarge};
use crate::tls::ClientCertificate;
use crate::upstream::GatewayHeaders;

/// Returns the headers to which `rules` map `claims`, of at most `budget` bytes in names and values.
///
/// # Errors
/// Returns the name of the header that exceeds the budget.
pub fn map(rules: &[HeaderRule], claims: &Claims, budget: usize) -> Mapped {
    let mut left = budget;
    let mut lines = HeaderLines::default();
    for rule in rules {
        let Some(value) = value(rule, claims) else { continue };
        let too_large = || MappingTooLarge(rule.name.clone());
        left = left.checked_sub(rule.name.as_str().len() + value.len()).ok_or_else(too_large)?;
        // An encoded value is always valid in a header.
        let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) else { continue };
        lines.push(&rule.name, &value);
    }
    lines.shrink();
    Ok(lines)
}

/// Returns a list as a header value, encoded as a claim would be.
pub(super) fn list(elements: &[Value]) -> Option<HeaderValue> {
    let mut text = String::new();
    write_claim(&mut text, &Value::Array(elements.to_vec()), ",", Encoding::Percent)?;
    HeaderValue::from_maybe_shared(bytes::Bytes::from(encode_ends(text))).ok()
}

fn value(rule: &HeaderRule, claims: &Claims) -> Option<String> {
    let text = match &rule.source {
        HeaderSource::Claim { path, join } => {
            let mut text = String::new();
            write_claim(&mut text, path.find(claims)?, join, rule.encoding)?;
            text
        }
        HeaderSource::Template(parts) => {
            let mut text = String::new();
            for part in parts {
                match part {
                    TemplatePart::Text(literal) => text.push_str(literal),
                    TemplatePart::Claim(path) => {
                        write_claim(&mut text, path.find(claims)?, ",", rule.encoding)?;
                    }
                }
            }
            text
        }
        // Handled by `certificate`.
        HeaderSource::Certificate(_) => return None,
    };
    finish(text, rule.encoding)
}

/// Adds the headers to which `rules` map a client's certificate, of at most `budget` bytes in names and values.
///
/// # Errors
/// Returns the name of the header that exceeds the budget.
pub(super) fn certificate(
    rules: &[HeaderRule],
    certificate: &ClientCertificate,
    budget: usize,
    added: &mut GatewayHeaders,
) -> Result<(), MappingTooLarge> {
    let mut left = budget;
    for rule in rules {
        let HeaderSource::Certificate(field) = rule.source else { continue };
        let elements = match field {
            CertificateField::Subject => std::slice::from_ref(&certificate.subject),
            CertificateField::Issuer => std::slice::from_ref(&certificate.issuer),
            CertificateField::Serial => std::slice::from_ref(&certificate.serial),
            CertificateField::Fingerprint => std::slice::from_ref(&certificate.fingerprint),
            CertificateField::Alternatives => &certificate.alternatives,
        };
        // Only lists need their separator encoded.
        let join = if field == CertificateField::Alternatives { "," } else { "" };
        let mut text = String::new();
        for (at, element) in elements.iter().enumerate() {
            if at > 0 {
                text.push_str(join);
            }
            encode(&mut text, element, join, rule.encoding);
        }
        let Some(value) = finish(text, rule.encoding) else { continue };
        let too_large = || MappingTooLarge(rule.name.clone());
        left = left.checked_sub(rule.name.as_str().len() + value.len()).ok_or_else(too_large)?;
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
            added.insert(&rule.name, &value);
        }
    }
    Ok(())
}

/// Returns the header value of `text`, or `None` if it is empty.
fn finish(text: String, encoding: Encoding) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    Some(match encoding {
        Encoding::Percent | Encoding::Utf8 => encode_ends(text),
        Encoding::Base64 => STANDARD.encode(text),
    })
}

/// Writes a claim. Returns `None` if the claim is null or empty.
fn write_claim(out: &mut String, value: &Value, join: &str, encoding: Encoding) -> Option<()> {
    let before = out.len();
    match value {
        Value::Null => return None,
        Value::Array(list) => {
            for (at, element) in list.iter().enumerate() {
                if at > 0 {
                    out.push_str(join);
                }
                encode(out, &text(element), join, encoding);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            encode(out, &text(value), "", encoding);
        }
    }
    (out.len() > before).then_some(())
}

/// Returns a string as it is, and any other value as JSON.
fn text(value: &Value) -> std::borrow::Cow<'_, str> {
    match value {
        Value::String(text) => text.into(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string().into()
        }
    }
}

/// Writes `text`, percent-encoding the characters that `encoding` requires, and every character of `join`.
///
/// With `utf8` and `base64`, `%` is encoded only in list elements, so that encoded separators are unambiguous. Whitespace
/// at both ends of an element is encoded, because readers of a list trim its elements: ` admin` would become `admin`.
fn encode(out: &mut String, text: &str, join: &str, encoding: Encoding) {
    if join.is_empty() {
        return encode_inner(out, text, join, encoding);
    }
    let (leading, inner, trailing) = split_ends(text);
    leading.chars().for_each(|blank| percent_encode(out, blank));
    encode_inner(out, inner, join, encoding);
    trailing.chars().for_each(|blank| percent_encode(out, blank));
}

fn encode_inner(out: &mut String, text: &str, join: &str, encoding: Encoding) {
    let (control, non_ascii, percent) = match encoding {
        Encoding::Percent => (true, true, true),
        Encoding::Utf8 => (true, false, !join.is_empty()),
        Encoding::Base64 => (false, false, !join.is_empty()),
    };
    for c in text.chars() {
        let encoded = control && c.is_ascii_control()
            || non_ascii && !c.is_ascii()
            || percent && c == '%'
            || join.contains(c);
        if encoded { percent_encode(out, c) } else { out.push(c) }
    }
}

/// Percent-encodes whitespace at both ends. HTTP removes spaces there, and apps remove other whitespace, so that ` admin`
/// would become `admin`.
fn encode_ends(text: String) -> String {
    let (leading, inner, trailing) = split_ends(&text);
    if inner.len() == text.len() {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 2 * (leading.len() + trailing.len()));
    leading.chars().for_each(|blank| percent_encode(&mut out, blank));
    out.push_str(inner);
    trailing.chars().for_each(|blank| percent_encode(&mut out, blank));
    out
}

/// Splits `text` into leading whitespace, the rest, and trailing whitespace.
fn split_ends(text: &str) -> (&str, &str, &str) {
    let rest = text.trim_start_matches(is_blank);
    let inner = rest.trim_end_matches(is_blank);
    let (leading, _) = text.split_at(text.len() - rest.len());
    let (_, trailing) = rest.split_at(inner.len());
    (leading, inner, trailing)
}

/// Returns whether the trim function of any common language removes `c`.
fn is_blank(c: char) -> bool {
    // Java trims control characters, JavaScript trims U+FEFF, and U+180E was a space until Unicode 6.3.
    c.is_whitespace() || c.is_control() || matches!(c, '\u{feff}' | '\u{180e}')
}

fn percent_encode(out: &mut String, c: char) {
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        // Writing to a String cannot fail.
        let _ = write!(out, "%{byte:02X}");
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;
    use serde_json::json;

    use super::certificate as certificate_headers;
    use super::*;
    use crate::claims::ClaimPath;
    use crate::time::Timestamp;

    fn claim(path: &str, join: &str, encoding: Encoding) -> HeaderRule {
        let source = HeaderSource::Claim { path: ClaimPath::parse(path).unwrap(), join: join.into() };
        HeaderRule { name: HeaderName::from_static("x-claim"), source, encoding }
    }

    fn mapped(rule: &HeaderRule, claims: &Value) -> Option<String> {
        let headers = map(std::slice::from_ref(rule), claims.as_object().unwrap(), 10_000).unwrap();
        headers.iter().next().map(|(_, value)| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn claims_are_formatted_by_type_and_encoding() {
        use Encoding::{Base64, Percent, Utf8};
        let claims = json!({
            "user": "alice", "n": 42, "f": 1.5, "t": true, "null": null, "none": "", "empty": [], "o": {"a": [1]},
            "roles": ["admin", "a,b", "100%", ""], "name": "Zoë ☃", "crlf": "a\r\nX-Admin: 1\0", "pad": "  x ",
            "nested": {"deep": {"er": "yes"}}, "auth.userid": "bob", "groups": ["CN=Admins,OU=x", "y"],
            "rate": "100%", "padded": ["x", " admin", "root  "], "wide": ["x", "\u{a0}admin\u{feff}"], "nbsp": "\u{a0}admin",
        });
        for (path, join, encoding, expected) in [
            ("user", ",", Percent, Some("alice")),
            ("n", ",", Percent, Some("42")),
            ("f", ",", Percent, Some("1.5")),
            ("t", ",", Percent, Some("true")),
            ("null", ",", Percent, None),
            ("none", ",", Percent, None),
            ("empty", ",", Percent, None),
            ("missing", ",", Percent, None),
            ("user.x", ",", Percent, None),
            ("o", ",", Percent, Some(r#"{"a":[1]}"#)),
            ("roles", ",", Percent, Some("admin,a%2Cb,100%25,")),
            ("roles", " | ", Percent, Some("admin | a,b | 100%25 |%20")),
            ("groups", ",", Percent, Some("CN=Admins%2COU=x,y")),
            ("groups", ",", Utf8, Some("CN=Admins%2COU=x,y")),
            // With `utf8` and `base64`, `%` is encoded only in list elements.
            ("rate", ",", Percent, Some("100%25")),
            ("rate", ",", Utf8, Some("100%")),
            ("rate", ",", Base64, Some("MTAwJQ==")),
            ("roles", ",", Utf8, Some("admin,a%2Cb,100%25,")),
            ("roles", ",", Base64, Some("YWRtaW4sYSUyQ2IsMTAwJTI1LA==")),
            ("name", ",", Percent, Some("Zo%C3%AB %E2%98%83")),
            ("name", ",", Utf8, Some("Zoë ☃")),
            ("name", ",", Base64, Some("Wm/DqyDimIM=")),
            ("crlf", ",", Percent, Some("a%0D%0AX-Admin: 1%00")),
            ("crlf", ",", Utf8, Some("a%0D%0AX-Admin: 1%00")),
            ("pad", ",", Percent, Some("%20%20x%20")),
            ("padded", ",", Percent, Some("x,%20admin,root%20%20")),
            ("padded", ",", Utf8, Some("x,%20admin,root%20%20")),
            ("padded", "; ", Percent, Some("x; %20admin; root%20%20")),
            ("wide", ",", Utf8, Some("x,%C2%A0admin%EF%BB%BF")),
            ("nbsp", ",", Utf8, Some("%C2%A0admin")),
            ("nested.deep.er", ",", Percent, Some("yes")),
            ("auth.userid", ",", Percent, Some("bob")),
        ] {
            assert_eq!(
                mapped(&claim(path, join, encoding), &claims).as_deref(),
                expected,
                "{path} {encoding:?}"
            );
        }
    }

    #[test]
    fn template_with_a_missing_claim_adds_no_header() {
        let path = |text| TemplatePart::Claim(ClaimPath::parse(text).unwrap());
        let parts = vec![path("user.name"), TemplatePart::Text(" of ".into()), path("tenant")];
        let name = HeaderName::from_static("x-greeting");
        let rule = HeaderRule { name, source: HeaderSource::Template(parts), encoding: Encoding::Percent };
        assert_eq!(
            mapped(&rule, &json!({"user": {"name": "Al\nice"}, "tenant": "acme"})).as_deref(),
            Some("Al%0Aice of acme")
        );
        assert_eq!(mapped(&rule, &json!({"user": {"name": "Alice"}})), None);
    }

    #[test]
    fn mapping_over_the_budget_fails_with_the_header_name() {
        let claims = json!({"user": "x".repeat(100)});
        let rule = [claim("user", ",", Encoding::Percent)];
        assert!(map(&rule, claims.as_object().unwrap(), 107).is_ok());
        assert_eq!(map(&rule, claims.as_object().unwrap(), 106), Err(MappingTooLarge(rule[0].name.clone())));
    }

    #[test]
    fn fields_of_a_certificate_are_mapped_within_the_budget() {
        let certificate = ClientCertificate {
            subject: "CN=Zoë,O=Acme".into(),
            issuer: "CN=Root, Inc".into(),
            serial: "0a".into(),
            fingerprint: "ff".into(),
            alternatives: vec!["DNS:a.example".into(), "URI:b,c".into()],
            not_after: Timestamp::from_secs(0),
        };
        let rules: Vec<_> = [
            ("x-subject", CertificateField::Subject),
            ("x-issuer", CertificateField::Issuer),
            ("x-serial", CertificateField::Serial),
            ("x-fingerprint", CertificateField::Fingerprint),
            ("x-names", CertificateField::Alternatives),
        ]
        .map(|(name, field)| HeaderRule {
            name: HeaderName::from_static(name),
            source: HeaderSource::Certificate(field),
            encoding: Encoding::Percent,
        })
        .into();
        let expected = [
            ("x-subject", "CN=Zo%C3%AB,O=Acme"),
            ("x-issuer", "CN=Root, Inc"),
            ("x-serial", "0a"),
            ("x-fingerprint", "ff"),
            ("x-names", "DNS:a.example,URI:b%2Cc"),
        ];
        let size = expected.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut added = GatewayHeaders::default();
        certificate_headers(&rules, &certificate, size, &mut added).unwrap();
        for (name, value) in expected {
            assert!(
                added
                    .iter()
                    .any(|header| header == (HeaderName::from_static(name), HeaderValue::from_static(value))),
                "{name}"
            );
        }
        let too_large = certificate_headers(&rules, &certificate, size - 1, &mut GatewayHeaders::default());
        assert_eq!(too_large, Err(MappingTooLarge(HeaderName::from_static("x-names"))));
        // The headers of claims are added elsewhere.
        let claims = json!({"user": "alice"});
        assert_eq!(mapped(&rules[0], &claims), None);
        let mut added = GatewayHeaders::default();
        certificate_headers(&[claim("user", ",", Encoding::Percent)], &certificate, 0, &mut added).unwrap();
        assert_eq!(added.iter().count(), 0);
    }

    #[test]
    fn list_is_encoded_like_a_claim() {
        assert_eq!(list(&[json!(" a"), json!("b,c"), json!(1)]).unwrap(), "%20a,b%2Cc,1");
        assert_eq!(list(&[]), None);
    }

    proptest! {
        #[test]
        fn list_splits_into_its_elements(
            list in prop::collection::vec("[ \t\u{1c}\u{a0}\u{feff}]?[^\u{0}]{1,8}[ \n\u{85}]?", 1..5),
            encoding in prop::sample::select(vec![Encoding::Percent, Encoding::Utf8, Encoding::Base64]),
        ) {
            let value = mapped(&claim("list", ",", encoding), &json!({"list": list})).unwrap();
            let value = match encoding {
                Encoding::Base64 => String::from_utf8(STANDARD.decode(value).unwrap()).unwrap(),
                Encoding::Percent | Encoding::Utf8 => value,
            };
            // Readers of a list trim the whitespace around its elements.
            let back: Vec<_> = value
                .split(',')
                .map(|element| element.trim_matches(|c: char| c <= ' ' || c.is_whitespace() || c == '\u{feff}'))
                .map(|e| percent_encoding::percent_decode_str(e).decode_utf8().unwrap().into_owned())
                .collect();
            prop_assert_eq!(back, list);
        }

        #[test]
        fn header_value_of_any_claim_holds_no_control_character(text in any::<String>(), percent in any::<bool>()) {
            let encoding = if percent { Encoding::Percent } else { Encoding::Utf8 };
            if let Some(value) = mapped(&claim("x", ",", encoding), &json!({"x": text})) {
                prop_assert!(!value.bytes().any(|b| b < 0x20 || b == 0x7f));
                prop_assert_eq!(value.trim_matches([' ', '\t']), &value);
            } else {
                prop_assert!(text.is_empty());
            }
        }
    }
}
