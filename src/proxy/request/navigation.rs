//! Detection of browsers that load a page.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, Method};

use super::inbound::Sanitized;
use crate::fields::visible_ascii;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// Returns whether a browser loads a page with this request. Only then is a redirect to a log-in page useful.
///
/// Only a GET or HEAD that asks for no upgrade, and is neither a script's (`X-Requested-With`) nor a gRPC call, can
/// load a page. For these, Fetch Metadata decides if it is present. Otherwise, the request must prefer HTML to JSON.
pub(super) fn is_navigation(request: &Sanitized) -> bool {
    let fields = request.fields();
    let is = |name: &HeaderName, expected: &[&str]| {
        fields.text(name).is_some_and(|value| expected.contains(&value))
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        || request.wants_upgrade()
        || is(&REQUESTED_WITH, &["XMLHttpRequest"])
        || fields.text(&CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/grpc"))
    {
        return false;
    }
    if fields.contains(&SEC_FETCH_MODE) || fields.contains(&SEC_FETCH_DEST) {
        let dest = !fields.contains(&SEC_FETCH_DEST) || is(&SEC_FETCH_DEST, &["document", "iframe", "frame"]);
        return dest && (!fields.contains(&SEC_FETCH_MODE) || is(&SEC_FETCH_MODE, &["navigate"]));
    }
    prefers_html(fields.get_all(&ACCEPT))
}

/// Returns whether the client prefers HTML to JSON (RFC 9110, 12.5.1). A client that sends only `*/*` is not a browser.
/// `accept` has the values of its Accept lines.
pub(in crate::proxy) fn prefers_html<'h>(accept: impl IntoIterator<Item = &'h [u8]>) -> bool {
    let (mut html, mut json) = (0.0, 0.0);
    let lines = accept.into_iter().filter_map(visible_ascii);
    for range in lines.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let is = |kinds: [&str; 2]| kinds.iter().any(|other| kind.eq_ignore_ascii_case(other));
        let quality = if is(["text/html", "application/xhtml+xml"]) {
            &mut html
        } else if is(["application/json", "application/problem+json"]) {
            &mut json
        } else {
            continue;
        };
        let q: f32 = parts.find_map(|p| p.strip_prefix("q=")).map_or(Ok(1.0), str::parse).unwrap_or(0.0);
        *quality = q.max(*quality);
    }
    html > json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_decides_between_html_and_json() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html;q=0.5", false),
            ("text/html;q=0, application/json;q=0", false),
            ("text/html;q=x", false),
            ("", false),
        ] {
            assert_eq!(prefers_html([accept.as_bytes()]), expected, "{accept}");
        }
    }
}
