//! Cross-site request forgery: on a route with `csrf = true`, an unsafe method must prove where it comes from.
//!
//! 1. GET, HEAD and OPTIONS are safe (RFC 9110, 9.2.1) and need no proof.
//! 2. `Sec-Fetch-Site: same-origin`, or `none` (typed, or from a bookmark), is the browser's own word.
//! 3. Without that header, an `Origin` that is this site's scheme, host and port is.
//! 4. Anything else needs the session's token in `X-CSRF-Token`; it is the one that Pyramid keeps in `_csrft_`, and the
//!    upstream gets it as `X-Session-CSRF` to write into its pages.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderName, Method};

use super::admit::{Admitted, Visitor};
use super::refusal::Refusal;
use crate::headers::CSRF_TOKEN;
use crate::session::csrf;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what may come from another site.
pub(super) fn check(admitted: &Admitted) -> Result<(), Refusal> {
    let request = &admitted.request;
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !admitted.route.csrf || is_safe || is_same_origin(request.headers(), request.origin().site()) {
        return Ok(());
    }
    let shown = single(request.headers(), &CSRF_TOKEN);
    match (&admitted.visitor, shown) {
        (Visitor::Session(active), Some(shown)) if csrf::matches(&active.session.record().claims, shown) => {
            Ok(())
        }
        _ => Err(Refusal::CrossSite),
    }
}

/// `site` is this site's scheme, and its host and port as the browser wrote them.
fn is_same_origin(headers: &HeaderMap, (scheme, host): (&str, &[u8])) -> bool {
    debug_assert!(!headers.contains_key(HOST), "taken out with what is written anew");
    if headers.contains_key(SEC_FETCH_SITE) {
        return matches!(single(headers, &SEC_FETCH_SITE), Some(b"same-origin" | b"none"));
    }
    let Some(origin) = single(headers, &ORIGIN) else { return false };
    let rest = origin.strip_prefix(scheme.as_bytes()).and_then(|rest| rest.strip_prefix(b"://"));
    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value.as_bytes()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn who_is_of_this_site() {
        for (lines, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://app.example")], true),
            (&[("origin", "https://APP.example")], true),
            (&[("origin", "http://app.example")], false),
            (&[("origin", "https://app.example:8443")], false),
            (&[("origin", "https://app.example.evil")], false),
            (&[("origin", "https://evil/https://app.example")], false),
            (&[("origin", "null")], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(is_same_origin(&headers, ("https", b"app.example")), expected, "{lines:?}");
        }
    }
}
