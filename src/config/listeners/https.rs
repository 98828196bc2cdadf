//! `redirect_to_https` and `hsts`

use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::config::section::Section;
use crate::config::value::{Fault, boolean, duration, integer};

/// The minimum `max_age` for browsers' HSTS preload lists.
const YEAR: Duration = Duration::from_hours(365 * 24);

/// A redirect to https for requests without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpsRedirect {
    /// The https port.
    pub port: u16,
    /// 301, 302, 307 or 308.
    pub status: StatusCode,
}

/// A Strict-Transport-Security header (RFC 6797).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// The header's value.
    pub value: HeaderValue,
}

/// Reads `redirect_to_https`, a boolean or a table.
pub(super) fn redirect(listener: &mut Section<'_, '_>) -> Option<HttpsRedirect> {
    let table = listener.is_table("redirect_to_https");
    if !table {
        let default = HttpsRedirect { port: 443, status: StatusCode::PERMANENT_REDIRECT };
        return listener.get("redirect_to_https", boolean).filter(|on| *on).map(|_| default);
    }
    listener.table("redirect_to_https", |redirect| {
        let port = redirect.get("port", integer(1..=u16::MAX)).unwrap_or(443);
        let status = redirect.get("status", |value| {
            let status = integer(301..=308_u16)(value).ok().and_then(|code| StatusCode::from_u16(code).ok());
            status
                .filter(|status| matches!(status.as_u16(), 301 | 302 | 307 | 308))
                .ok_or_else(|| Fault::new("must be 301, 302, 307 or 308"))
        });
        Some(HttpsRedirect { port, status: status.unwrap_or(StatusCode::PERMANENT_REDIRECT) })
    })
}

/// Reads `hsts`, a duration or a table.
pub(super) fn hsts(listener: &mut Section<'_, '_>) -> Option<Hsts> {
    let age = || duration(Duration::ZERO..=YEAR * 10);
    if !listener.is_table("hsts") {
        return listener.get("hsts", age()).map(|age| Hsts::new(age, false, false));
    }
    listener.table("hsts", |hsts| {
        let max_age = hsts.require("max_age", age());
        let include_subdomains = hsts.get("include_subdomains", boolean).unwrap_or(false);
        let preload = hsts.get("preload", boolean).unwrap_or(false);
        let max_age = max_age?;
        if preload && !(include_subdomains && max_age >= YEAR) {
            let fault = Fault::new("needs `include_subdomains = true` and a `max_age` of at least 365 days");
            hsts.refuse(
                "preload",
                &["include_subdomains"],
                fault.hint("browsers' preload lists require both"),
            );
        }
        Some(Hsts::new(max_age, include_subdomains, preload))
    })
}

impl Hsts {
    fn new(max_age: Duration, include_subdomains: bool, preload: bool) -> Self {
        let mut text = format!("max-age={}", max_age.as_secs());
        if include_subdomains {
            text.push_str("; includeSubDomains");
        }
        if preload {
            text.push_str("; preload");
        }
        // The text is ASCII, so the conversion cannot fail.
        Self { value: HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("max-age=0")) }
    }
}
