//! The realm's cookie on its way to the browser: written by us, or by the upstream and brought to the realm's settings.

use bytes::Bytes;
use cookie::{Cookie, CookieBuilder};
use http::HeaderValue;

use crate::config::{CookieConfig, SameSite, Secure};
use crate::secret::Secret;

/// Writes a realm's cookies.
#[derive(Clone, Debug)]
pub(super) struct CookieWriter {
    config: CookieConfig,
    max_age: Option<cookie::time::Duration>,
}

/// A Set-Cookie of the upstream with the realm's attributes.
#[derive(Debug)]
pub struct Adopted {
    /// The header to send.
    pub header: HeaderValue,
    /// The cookie's value.
    pub value: Secret,
}

impl CookieWriter {
    pub(super) fn new(config: &CookieConfig) -> Self {
        let seconds = |age: std::time::Duration| i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        let max_age = config.max_age.map(|age| cookie::time::Duration::seconds(seconds(age)));
        Self { config: config.clone(), max_age }
    }

    pub(super) fn name(&self) -> &str {
        &self.config.name
    }

    /// The Set-Cookie of `value`, on a connection that is `secure` or not.
    pub(super) fn write(&self, value: &str, secure: bool) -> HeaderValue {
        let mut cookie = self.attributes(value.to_owned(), secure);
        if let Some(max_age) = self.max_age {
            cookie = cookie.max_age(max_age);
        }
        header(&cookie.build())
    }

    /// Reads a Set-Cookie of the upstream; `None` if it is not of this cookie, or cannot be read.
    ///
    /// What the app says of its cookie's end is kept, so that a removal stays one; everything else is the realm's, so
    /// that the browser has one cookie and not two with different paths.
    pub(super) fn adopt(&self, set_cookie: &[u8], secure: bool) -> Option<Adopted> {
        let text = std::str::from_utf8(set_cookie).ok()?;
        let theirs = Cookie::parse(text).ok()?;
        if theirs.name() != self.config.name {
            return None;
        }
        let mut ours = self.attributes(theirs.value().to_owned(), secure);
        let removal = theirs.value().is_empty()
            || theirs.max_age().is_some_and(|age| !age.is_positive())
            || theirs.expires_datetime().is_some_and(|end| end.unix_timestamp() <= 0);
        if !removal && let Some(max_age) = self.max_age {
            ours = ours.max_age(max_age);
        } else {
            if let Some(age) = theirs.max_age() {
                ours = ours.max_age(age);
            }
            if let Some(end) = theirs.expires() {
                ours = ours.expires(end);
            }
        }
        Some(Adopted { header: header(&ours.build()), value: Secret::new(theirs.value().as_bytes()) })
    }

    fn attributes(&self, value: String, secure: bool) -> CookieBuilder<'static> {
        let config = &self.config;
        let mut cookie = Cookie::build((config.name.clone(), value)).path(config.path.clone());
        if let Some(domain) = &config.domain {
            cookie = cookie.domain(domain.clone());
        }
        if config.httponly {
            cookie = cookie.http_only(true);
        }
        if config.partitioned {
            cookie = cookie.partitioned(true);
        }
        cookie = match config.samesite {
            Some(SameSite::Strict) => cookie.same_site(cookie::SameSite::Strict),
            Some(SameSite::Lax) => cookie.same_site(cookie::SameSite::Lax),
            Some(SameSite::None) => cookie.same_site(cookie::SameSite::None),
            None => cookie,
        };
        let secure = match config.secure {
            Secure::Auto => secure,
            Secure::Always => true,
            Secure::Never => false,
        };
        if secure { cookie.secure(true) } else { cookie }
    }
}

fn header(cookie: &Cookie<'_>) -> HeaderValue {
    // Name, value and attributes came through a header or a checked configuration, so they fit into one.
    let mut value = HeaderValue::from_maybe_shared(Bytes::from(cookie.to_string()))
        .unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
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
            secure: Secure::Auto,
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
    fn ours_carries_the_realms_attributes() {
        let plain = CookieWriter::new(&config());
        assert_eq!(text(&plain.write("x/1", false)), "sid=x/1; HttpOnly; SameSite=Strict; Path=/");
        let all = CookieWriter::new(&CookieConfig {
            path: "/app".into(),
            domain: Some("example.com".into()),
            samesite: Some(SameSite::None),
            max_age: Some(Duration::from_secs(3600)),
            partitioned: true,
            ..config()
        });
        let expected = "sid=x; HttpOnly; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.com; Max-Age=3600";
        assert_eq!(text(&all.write("x", true)), expected);
        let bare = CookieWriter::new(&CookieConfig {
            httponly: false,
            samesite: None,
            secure: Secure::Never,
            ..config()
        });
        assert_eq!(text(&bare.write("x", true)), "sid=x; Path=/");
    }

    #[test]
    fn an_apps_own_cookie_keeps_its_value_and_its_end() {
        let writer = CookieWriter::new(&config());
        let adopt = |theirs: &str| writer.adopt(theirs.as_bytes(), true).map(|a| text(&a.header).to_owned());
        let ours = "; HttpOnly; SameSite=Strict; Secure; Path=/";
        for (theirs, expected) in [
            ("sid=a/1; Path=/elsewhere; Domain=evil.example", format!("sid=a/1{ours}")),
            ("sid=\"a b\"; path=/", format!("sid=\"a b\"{ours}")),
            ("sid=; Max-Age=0; Path=/x", format!("sid={ours}; Max-Age=0")),
            (
                "sid=x; expires=Thu, 01 Jan 1970 00:00:00 GMT",
                format!("sid=x{ours}; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
            ),
            ("sid=x; Max-Age=60", format!("sid=x{ours}; Max-Age=60")),
        ] {
            assert_eq!(adopt(theirs), Some(expected), "{theirs}");
        }
        for other in ["other=1", "SID=1", "", "=", "sid", "xsid=1"] {
            assert_eq!(adopt(other), None, "{other}");
        }
        let aged = CookieWriter::new(&CookieConfig { max_age: Some(Duration::from_secs(9)), ..config() });
        let adopt = |theirs: &str| text(&aged.adopt(theirs.as_bytes(), false).unwrap().header).to_owned();
        assert!(adopt("sid=x; Max-Age=60").ends_with("Max-Age=9"));
        assert!(adopt("sid=; Max-Age=0").ends_with("Max-Age=0"), "a removal stays a removal");
    }
}
