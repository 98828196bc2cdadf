//! Turns the upstream's response into the client's.
//!
//! 1. Hop-by-hop headers and every `X-Session-*` are removed, on every status.
//! 2. If the upstream sets the session cookie itself, its Set-Cookie is forwarded with the realm's attributes, and a
//!    reissue adds none. Every other Set-Cookie is forwarded in order, and unchanged
//!    but for its Path (4).
//! 3. Trailers are forwarded to clients that accept them, except those that [`headers::is_trailer`] rejects.
//! 4. Paths are rewritten for the client and the route's edits are made before the session cookie is written.
//! 5. A response that sets the session cookie is kept out of shared caches.

use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, SET_COOKIE, TRAILER, VARY};
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::body::ResponseBody;
use super::cookie_action::CookieAction;
use crate::config::Destination;
use crate::fields::Fields;
use crate::headers;
use crate::http1::has_option;
use crate::message::Response;
use crate::proxy::forward::UpstreamResponse;
use crate::proxy::header_edits::PreparedEdits;
use crate::proxy::model::Exchange;
use crate::proxy::rewrite;
use crate::session::{MutationOutcome, Realm};

const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// Returns the client's response, made from the upstream's.
pub(in crate::proxy) fn respond(
    upstream_response: UpstreamResponse,
    exchange: &Exchange,
    cookie: &CookieAction,
    edits: &PreparedEdits<'_>,
) -> Response<ResponseBody> {
    let mut response = upstream_response.response;
    let Response { fields, body, .. } = &mut response;
    let announced = fields.get(&TRAILER).filter(|_| exchange.trailers).and_then(trailer_names);
    if exchange.trailers {
        body.forward_trailers();
    }
    remove_control_fields(fields);
    if let Some(names) = announced {
        fields.append(TRAILER, names);
    }
    if let (Destination::Upstream(forwarding), Some(site)) = (&exchange.route.destination, &exchange.site) {
        rewrite::restore_paths(fields, forwarding, site, upstream_response.authority.as_str());
    }
    edits.apply_to_response(fields);
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
        remove_session_cookies(fields, realm, exchange);
        fields.append(SET_COOKIE, new_cookie);
        true
    } else if rewrite_session_cookies(fields, realm, exchange) {
        true
    } else if let (CookieAction::Reissue, Some(active)) = (cookie, exchange.visitor.active()) {
        fields.append(SET_COOKIE, realm.renewed_cookie(active, exchange.secure));
        true
    } else {
        false
    };
    if sets_cookie {
        keep_private(fields);
    }
    response
}

/// Gives every Set-Cookie of the session cookie the realm's attributes. Returns whether there was one.
fn rewrite_session_cookies(fields: &mut Fields, realm: &Realm, exchange: &Exchange) -> bool {
    let mut found = false;
    fields.replace_values(&SET_COOKIE, |cookie| {
        let rewritten = realm.rewrite_cookie(cookie, exchange.visitor.active(), exchange.secure)?;
        found = true;
        Some(rewritten.header)
    });
    found
}

/// Removes every Set-Cookie of the session cookie.
fn remove_session_cookies(fields: &mut Fields, realm: &Realm, exchange: &Exchange) {
    fields.retain(|name, cookie| {
        *name != SET_COOKIE
            || realm.rewrite_cookie(cookie, exchange.visitor.active(), exchange.secure).is_none()
    });
}

/// Removes the hop-by-hop fields and the gateway's control fields.
fn remove_control_fields(fields: &mut Fields) {
    let nominated: SmallVec<[HeaderName; 4]> = fields
        .get_all(&CONNECTION)
        .flat_map(|line| line.split(|&b| b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // These are kept, so that an upstream cannot remove the length or the session cookie.
        .filter(|name| !matches!(*name, CONTENT_LENGTH | SET_COOKIE | CACHE_CONTROL))
        .collect();
    fields.retain(|name, _| {
        !(headers::is_hop_by_hop(name) || headers::is_control(name) || nominated.contains(name))
    });
}

/// Returns the announced trailers that will be forwarded.
fn trailer_names(announced: &[u8]) -> Option<HeaderValue> {
    let names = announced.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    let names = names.filter_map(|name| HeaderName::from_bytes(name).ok()).filter(headers::is_trailer);
    let names: Vec<_> = names.collect();
    let names: Vec<_> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).ok().filter(|line| !line.is_empty())
}

/// Keeps a response with a session's cookie out of shared caches (RFC 9111, 5.2.2). Fields such as CDN-Cache-Control, which
/// take precedence over Cache-Control in some of them (RFC 9213, 2.2), are removed.
fn keep_private(fields: &mut Fields) {
    fields.retain(|name, _| !(name.as_str().ends_with("-cache-control") || *name == SURROGATE_CONTROL));
    let lines: Vec<String> =
        fields.get_all(&CACHE_CONTROL).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
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
        fields.insert(CACHE_CONTROL, value);
    } else {
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("private"));
    }
    let varies = fields.get_all(&VARY).any(|line| has_option(line, b"*") || has_option(line, b"cookie"));
    if !varies {
        fields.append(VARY, HeaderValue::from_static("Cookie"));
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
        let mut fields = Fields::new();
        for line in cache_control {
            fields.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        for line in vary {
            fields.append(VARY, HeaderValue::from_static(line));
        }
        keep_private(&mut fields);
        assert_eq!(fields.get_all(&CACHE_CONTROL).count(), 1);
        let vary = fields.get_all(&VARY).map(|line| String::from_utf8(line.to_vec()).unwrap()).collect();
        (fields.text(&CACHE_CONTROL).unwrap().to_owned(), vary)
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
