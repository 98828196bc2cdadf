//! `[sessions.NAME.cookie]`
//!
//! Browsers silently reject cookies with contradictory attributes, and then nobody can log in. So such attributes are
//! errors here.

use std::time::Duration;

use crate::config::section::Section;
use crate::config::value::{Fault, MAX_SESSION_DURATION, boolean, duration, one_of, text};
use crate::config::{CookieConfig, SameSite, SecureAttribute};

use super::presets::CookieDefaults;

pub(super) fn read(section: &mut Section<'_, '_>, defaults: &CookieDefaults) -> CookieConfig {
    let sites = [
        ("strict", Some(SameSite::Strict)),
        ("lax", Some(SameSite::Lax)),
        ("none", Some(SameSite::None)),
        ("omit", None),
    ];
    let name = section.get("name", text(token));
    let path = section.get("path", text(path));
    let secure = section.get("secure", secure);
    let cookie = CookieConfig {
        name: name.unwrap_or_else(|| defaults.name.to_owned()),
        path: path.unwrap_or_else(|| "/".to_owned()),
        domain: section.get("domain", text(domain)),
        secure: secure.unwrap_or(SecureAttribute::Auto),
        httponly: section.get("httponly", boolean).unwrap_or(true),
        samesite: section.get("samesite", one_of(&sites)).unwrap_or(defaults.samesite),
        max_age: section
            .get("max_age", duration(Duration::from_secs(1)..=MAX_SESSION_DURATION))
            .or(defaults.max_age),
        partitioned: section.get("partitioned", boolean).unwrap_or(false),
    };
    check(&cookie, section);
    cookie
}

fn check(cookie: &CookieConfig, section: &mut Section<'_, '_>) {
    // Browsers match the prefixes case-insensitively.
    let has_prefix = |prefix: &str| {
        cookie.name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let (host, secure) = (has_prefix("__Host-"), has_prefix("__Secure-"));
    if (host || secure) && cookie.secure != SecureAttribute::Always {
        let fault =
            Fault::new("must be `true`, since the cookie's name has the prefix `__Host-` or `__Secure-`");
        section.refuse_or(
            "secure",
            "name",
            &["secure", "name"],
            fault.hint("otherwise browsers reject the cookie"),
        );
    }
    if host && cookie.path != "/" {
        let fault = Fault::new("must be \"/\", since the cookie's name has the prefix `__Host-`");
        section.refuse("path", &[], fault);
    }
    if host && cookie.domain.is_some() {
        let fault = Fault::new("must be omitted, since the cookie's name has the prefix `__Host-`");
        section.refuse("domain", &[], fault);
    }
    if cookie.samesite == Some(SameSite::None) && cookie.secure == SecureAttribute::Never {
        let fault = Fault::new("is `none`, which browsers accept only with `Secure`");
        section.refuse("samesite", &["secure"], fault.hint("set `secure = true`"));
    }
    if cookie.partitioned && cookie.secure != SecureAttribute::Always {
        let fault = Fault::new("is accepted by browsers only with `Secure`");
        section.refuse("partitioned", &["secure"], fault.hint("set `secure = true`"));
    }
}

/// Parses `"auto"`, `true` or `false`.
fn secure(value: &toml::de::DeValue<'_>) -> Result<SecureAttribute, Fault> {
    match (value.as_bool(), value.as_str()) {
        (Some(true), _) => Ok(SecureAttribute::Always),
        (Some(false), _) => Ok(SecureAttribute::Never),
        (None, Some("auto")) => Ok(SecureAttribute::Auto),
        (None, _) => Err(Fault::new("must be `\"auto\"`, `true` or `false`")),
    }
}

/// Parses a cookie name, which is an HTTP token (RFC 6265, 4.1.1; RFC 9110, 5.6.2).
fn token(text: &str) -> Result<String, Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.bytes().all(allowed) && text.len() <= 128 {
        return Ok(text.to_owned());
    }
    Err(Fault::new("is not a valid cookie name").hint("use at most 128 letters, digits, `-` and `_`"))
}

fn path(text: &str) -> Result<String, Fault> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
        return Ok(text.to_owned());
    }
    Err(Fault::new("must begin with `/`, and consist of visible ASCII characters other than `;`"))
}

fn domain(text: &str) -> Result<String, Fault> {
    if let Some(rest) = text.strip_prefix('.') {
        return Err(Fault::new("must not begin with a dot")
            .hint(format!("write \"{rest}\", which always includes its subdomains")));
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Fault::new("is not a valid domain").hint("for example \"example.com\""))
}
