//! The Set-Cookie header of the session cookie: the gateway's own, or the upstream's with the realm's attributes.

use std::fmt::Write as _;

use bytes::Bytes;
use cookie::Cookie;
use http::HeaderValue;

use super::cookie::unquoted;
use crate::config::{CookieConfig, SameSite, SecureAttribute};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Writes the Set-Cookie headers of a realm.
#[derive(Clone, Debug)]
pub(crate) struct CookieWriter {
    config: CookieConfig,
}

/// A Set-Cookie of the upstream with the realm's attributes.
#[derive(Debug)]
pub struct RewrittenCookie {
    /// The header to send.
    pub header: HeaderValue,
    /// The cookie's value, without surrounding quotes.
    pub value: Secret,
}

impl CookieWriter {
    pub(crate) fn new(config: &CookieConfig) -> Self {
        Self { config: config.clone() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    /// Returns the Set-Cookie with this value. `secure` is whether the client's connection uses TLS.
    pub(crate) fn write(&self, value: &str, secure: bool) -> HeaderValue {
        let max_age = self.config.max_age.map(|age| age.as_secs().to_string());
        self.header(value, secure, max_age.as_deref(), None)
    }

    /// Returns the Set-Cookie that removes the cookie. It has the same attributes, so that it applies to the same cookie.
    pub(super) fn remove(&self, secure: bool) -> HeaderValue {
        self.header("", secure, Some("0"), Some(&httpdate(0)))
    }

    /// Rewrites a Set-Cookie of the upstream. Returns `None` if it sets another cookie or is invalid.
    ///
    /// The cookie keeps its expiry, so that a removal stays a removal. If the realm has a `max_age`, that replaces the
    /// expiry of a cookie that is not a removal. All other attributes are the realm's, so that the browser does not
    /// store two cookies with different paths.
    pub(crate) fn rewrite(&self, set_cookie: &[u8], secure: bool, now: Timestamp) -> Option<RewrittenCookie> {
        let text = std::str::from_utf8(set_cookie).ok()?;
        let theirs = Cookie::parse(text).ok()?;
        if theirs.name() != self.config.name {
            return None;
        }
        let removal = theirs.value().is_empty()
            || theirs.max_age().is_some_and(|age| !age.is_positive())
            || theirs.expires_datetime().is_some_and(|end| end.unix_timestamp() <= now.as_secs());
        let header = if self.config.max_age.is_some() && !removal {
            self.write(theirs.value(), secure)
        } else {
            let max_age = theirs.max_age().map(|age| age.whole_seconds().to_string());
            let expires = theirs.expires_datetime().map(|end| httpdate(end.unix_timestamp()));
            self.header(theirs.value(), secure, max_age.as_deref(), expires.as_deref())
        };
        Some(RewrittenCookie { header, value: Secret::new(unquoted(theirs.value().as_bytes())) })
    }

    /// Builds the header, with its attributes in the order of WebOb, which Pyramid uses.
    fn header(&self, value: &str, secure: bool, max_age: Option<&str>, expires: Option<&str>) -> HeaderValue {
        let config = &self.config;
        let mut text = String::with_capacity(160);
        text.push_str(&config.name);
        text.push('=');
        text.push_str(value);
        let attribute = |text: &mut String, name: &str, value: Option<&str>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(text, "; {name}={value}");
            }
        };
        attribute(&mut text, "Domain", config.domain.as_deref());
        attribute(&mut text, "Max-Age", max_age);
        attribute(&mut text, "Path", Some(&config.path));
        attribute(&mut text, "Expires", expires);
        let secure = match config.secure {
            SecureAttribute::Auto => secure,
            SecureAttribute::Always => true,
            SecureAttribute::Never => false,
        };
        for (flag, is_set) in [("; Secure", secure), ("; HttpOnly", config.httponly)] {
            text.push_str(if is_set { flag } else { "" });
        }
        let samesite = config.samesite.map(|samesite| match samesite {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        });
        attribute(&mut text, "SameSite", samesite);
        text.push_str(if config.partitioned { "; Partitioned" } else { "" });
        // Always valid: name, value and attributes come from the format, a header or the checked configuration.
        let header = HeaderValue::from_maybe_shared(Bytes::from(text));
        let mut header = header.unwrap_or_else(|_| HeaderValue::from_static(""));
        header.set_sensitive(true);
        header
    }
}

/// Formats a time as an HTTP-date (RFC 9110, 5.6.7).
fn httpdate(secs: i64) -> String {
    let since_epoch = std::time::Duration::from_secs(u64::try_from(secs).unwrap_or(0));
    httpdate::fmt_http_date(std::time::SystemTime::UNIX_EPOCH + since_epoch)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config() -> CookieConfig {
        CookieConfig {
            name: "sid".into(),
            path: "/".into(),
            domain: None,
            secure: SecureAttribute::Auto,
            httponly: true,
            samesite: Some(SameSite::Strict),
            max_age: None,
            partitioned: false,
        }
    }

    fn text(value: &HeaderValue) -> &str {
        value.to_str().unwrap()
    }

    #[test]
    fn own_cookie_has_the_realms_attributes() {
        let plain = CookieWriter::new(&config());
        assert_eq!(text(&plain.write("x/1", false)), "sid=x/1; Path=/; HttpOnly; SameSite=Strict");
        let all = CookieWriter::new(&CookieConfig {
            path: "/app".into(),
            domain: Some("example.com".into()),
            samesite: Some(SameSite::None),
            max_age: Some(Duration::from_secs(3600)),
            partitioned: true,
            ..config()
        });
        let expected = "sid=x; Domain=example.com; Max-Age=3600; Path=/app; Secure; HttpOnly; SameSite=None; Partitioned";
        assert_eq!(text(&all.write("x", true)), expected);
        let bare = CookieWriter::new(&CookieConfig {
            httponly: false,
            samesite: None,
            secure: SecureAttribute::Never,
            ..config()
        });
        assert_eq!(text(&bare.write("x", true)), "sid=x; Path=/");
    }

    #[test]
    fn cookie_of_the_app_keeps_its_value_and_expiry() {
        let writer = CookieWriter::new(&config());
        let now = Timestamp::from_secs(1_700_000_000);
        let rewrite =
            |theirs: &str| writer.rewrite(theirs.as_bytes(), true, now).map(|a| text(&a.header).to_owned());
        let flags = "; Secure; HttpOnly; SameSite=Strict";
        for (theirs, expected) in [
            ("sid=a/1; Path=/elsewhere; Domain=evil.example", format!("sid=a/1; Path=/{flags}")),
            ("sid=\"a b\"; path=/", format!("sid=\"a b\"; Path=/{flags}")),
            ("sid=; Max-Age=0; Path=/x", format!("sid=; Max-Age=0; Path=/{flags}")),
            (
                "sid=x; expires=Thu, 01 Jan 1970 00:00:00 GMT",
                format!("sid=x; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT{flags}"),
            ),
            ("sid=x; Max-Age=60", format!("sid=x; Max-Age=60; Path=/{flags}")),
        ] {
            assert_eq!(rewrite(theirs), Some(expected), "{theirs}");
        }
        for other in ["other=1", "SID=1", "", "=", "sid", "xsid=1"] {
            assert_eq!(rewrite(other), None, "{other}");
        }
        let aged = CookieWriter::new(&CookieConfig { max_age: Some(Duration::from_secs(9)), ..config() });
        let rewrite =
            |theirs: &str| text(&aged.rewrite(theirs.as_bytes(), false, now).unwrap().header).to_owned();
        assert!(rewrite("sid=x; Max-Age=60").contains("; Max-Age=9;"));
        assert!(rewrite("sid=; Max-Age=0").contains("; Max-Age=0;"), "a removal stays a removal");
        let yesterday = "Expires=Tue, 14 Nov 2023 01:00:00 GMT";
        assert!(rewrite(&format!("sid=gone; {yesterday}")).contains(yesterday), "also by Expires");
    }
}
