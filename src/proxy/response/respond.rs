//! Turns the upstream's response into the client's.
//!
//! 1. Hop-by-hop headers and every `X-Session-*` are removed, on every status.
//! 2. If the upstream sets the session cookie itself, its Set-Cookie is forwarded with the realm's attributes, and a
//!    reissue adds none. Every other Set-Cookie is forwarded byte for byte, in order.
//! 3. Trailers are forwarded to clients that accept them, without the names of rule 1.
//! 4. Paths are rewritten for the client and the route's edits are made before the session cookie is written.
//! 5. A response that sets the session cookie is kept out of shared caches.

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, Entry, SET_COOKIE, TRAILER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use smallvec::SmallVec;

use super::body::ResponseBody;
use super::cookie_action::CookieAction;
use crate::config::Destination;
use crate::headers;
use crate::proxy::forward::UpstreamResponse;
use crate::proxy::header_edits::PreparedEdits;
use crate::proxy::model::Exchange;
use crate::proxy::rewrite;
use crate::session::{MutationOutcome, Realm};

/// Returns the client's response, made from the upstream's.
pub(in crate::proxy) fn respond(
    upstream_response: UpstreamResponse,
    exchange: &Exchange,
    cookie: &CookieAction,
    edits: &PreparedEdits<'_>,
) -> Response<ResponseBody> {
    let mut response = upstream_response.response;
    let announced = response.headers_mut().remove(TRAILER).filter(|_| exchange.trailers);
    if exchange.trailers {
        response.body_mut().forward_trailers();
    }
    let headers = response.headers_mut();
    remove_control_headers(headers);
    if let Some(names) = announced.as_ref().and_then(trailer_names) {
        headers.insert(TRAILER, names);
    }
    if let (Destination::Upstream(forwarding), Some(site)) = (&exchange.route.destination, &exchange.site) {
        rewrite::restore_paths(headers, forwarding, site, upstream_response.authority.as_str());
    }
    edits.apply_to_response(headers);
    let Some(realm) = &exchange.route.realm else { return response };
    let new_cookie = match cookie {
        CookieAction::Mutated(MutationOutcome::Updated(updated)) => {
            Some(realm.updated_cookie(updated, exchange.secure))
        }
        CookieAction::Mutated(MutationOutcome::Ended) => Some(realm.cookie_removal(exchange.secure)),
        CookieAction::None | CookieAction::Reissue | CookieAction::Mutated(MutationOutcome::Unchanged) => {
            None
        }
    };
    let sets_cookie = if let Some(new_cookie) = new_cookie {
        // A session command takes precedence over a session cookie that the upstream sets.
        rewrite_session_cookies(headers, realm, exchange, |_| None);
        headers.append(SET_COOKIE, new_cookie);
        true
    } else if rewrite_session_cookies(headers, realm, exchange, Some) {
        true
    } else if let (CookieAction::Reissue, Some(active)) = (cookie, exchange.visitor.active()) {
        headers.append(SET_COOKIE, realm.renewed_cookie(active, exchange.secure));
        true
    } else {
        false
    };
    if sets_cookie {
        keep_private(headers);
    }
    response
}

/// Applies `with` to every Set-Cookie of the session cookie. Returns whether there was one.
fn rewrite_session_cookies(
    headers: &mut HeaderMap,
    realm: &Realm,
    exchange: &Exchange,
    with: impl Fn(HeaderValue) -> Option<HeaderValue>,
) -> bool {
    let mut found = false;
    let Entry::Occupied(cookies) = headers.entry(SET_COOKIE) else { return false };
    let (name, cookies) = cookies.remove_entry_mult();
    let cookies: Vec<_> = cookies
        .filter_map(|cookie| {
            match realm.rewrite_cookie(&cookie, exchange.visitor.active(), exchange.secure) {
                None => Some(cookie),
                Some(rewritten) => {
                    found = true;
                    with(rewritten.header)
                }
            }
        })
        .collect();
    for cookie in cookies {
        headers.append(name.clone(), cookie);
    }
    found
}

/// Removes the hop-by-hop headers and the gateway's control headers.
fn remove_control_headers(headers: &mut HeaderMap) {
    let nominated: SmallVec<[HeaderName; 4]> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // These are kept, so that an upstream cannot remove the length or the session cookie.
        .filter(|name| !matches!(*name, CONTENT_LENGTH | SET_COOKIE | CACHE_CONTROL))
        .collect();
    let mut removed: SmallVec<[HeaderName; 8]> = SmallVec::new();
    for name in headers.keys() {
        if headers::is_hop_by_hop(name) || headers::is_control(name) || nominated.contains(name) {
            removed.push(name.clone());
        }
    }
    for name in removed {
        headers.remove(name);
    }
}

/// Returns the announced trailers that will be forwarded.
fn trailer_names(announced: &HeaderValue) -> Option<HeaderValue> {
    let names = announced.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let names = names.filter_map(|name| HeaderName::from_bytes(name).ok()).filter(headers::is_trailer);
    let names: Vec<_> = names.collect();
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|line| !line.is_empty())
}

/// Keeps a response with a session's cookie out of shared caches (RFC 9111, 5.2.2).
fn keep_private(headers: &mut HeaderMap) {
    let lines: Vec<String> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned())
        .collect();
    let mut directives: Vec<&str> = lines.iter().flat_map(|line| split_list(line)).collect();
    directives.retain(|directive| {
        let name = directive.split('=').next().unwrap_or_default().trim();
        !name.eq_ignore_ascii_case("public") && !name.eq_ignore_ascii_case("s-maxage")
    });
    // `private="field"` does not count, since it makes only that field private.
    if !directives.iter().any(|directive| directive.eq_ignore_ascii_case("private")) {
        directives.push("private");
    }
    if let Ok(value) = HeaderValue::from_str(&directives.join(", ")) {
        headers.insert(CACHE_CONTROL, value);
    } else {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    let varies = headers
        .get_all(VARY)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"cookie"));
    if !varies {
        headers.append(VARY, HeaderValue::from_static("Cookie"));
    }
}

/// Returns the elements of a list. Commas in quoted strings do not separate elements.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let mut escaped = false;
    list.split(move |c| {
        let ends = c == ',' && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
    .map(str::trim)
    .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private(cache_control: &[&'static str], vary: &[&'static str]) -> (String, Vec<String>) {
        let mut headers = HeaderMap::new();
        for line in cache_control {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        for line in vary {
            headers.append(VARY, HeaderValue::from_static(line));
        }
        keep_private(&mut headers);
        assert_eq!(headers.get_all(CACHE_CONTROL).iter().count(), 1);
        let vary = headers.get_all(VARY).iter().map(|line| line.to_str().unwrap().to_owned()).collect();
        (headers[CACHE_CONTROL].to_str().unwrap().to_owned(), vary)
    }

    #[test]
    fn response_with_a_session_cookie_is_private() {
        for (lines, expected) in [
            (&[][..], "private"),
            (&["public, max-age=60"], "max-age=60, private"),
            (&["Public", "S-MaxAge = 5, no-cache"], "no-cache, private"),
            (&["private, max-age=0"], "private, max-age=0"),
            (&["no-store"], "no-store, private"),
            (&["private=\"set-cookie, x\", s-maxage=\"1, public\""], "private=\"set-cookie, x\", private"),
            (&["x=\"a\\\", public\", public"], "x=\"a\\\", public\", private"),
        ] {
            assert_eq!(private(lines, &[]).0, expected, "{lines:?}");
        }
    }

    #[test]
    fn response_with_a_session_cookie_varies_by_cookie() {
        for (lines, expected) in [
            (&[][..], &["Cookie"][..]),
            (&["Accept, cookie"], &["Accept, cookie"]),
            (&["*"], &["*"]),
            (&["Accept"], &["Accept", "Cookie"]),
        ] {
            assert_eq!(private(&[], lines).1, expected);
        }
    }
}
