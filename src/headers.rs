//! Header names, and the rules for which headers are removed or passed on.
//!
//! CGI and WSGI servers convert a header's name to upper case and every character that is not a letter or digit to `_`.
//! Two names that become equal by this ("fold alike") are one header to the app, so the gateway treats them as one.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The status of the request's session: `active`, `guest`, `anonymous` or `unavailable`.
pub const SESSION_STATUS: HeaderName = HeaderName::from_static("x-session-status");
/// The session's public identifier, which is not its id.
pub const SESSION_REF: HeaderName = HeaderName::from_static("x-session-ref");
/// The session's version.
pub const SESSION_VERSION: HeaderName = HeaderName::from_static("x-session-version");
/// When the session expires if it is not reissued, in Unix seconds.
pub const SESSION_EXPIRES: HeaderName = HeaderName::from_static("x-session-expires");
/// In requests: the session's flash messages. In responses: messages to append, one per header line.
pub const SESSION_FLASH: HeaderName = HeaderName::from_static("x-session-flash");
/// The session's CSRF token.
pub const SESSION_CSRF: HeaderName = HeaderName::from_static("x-session-csrf");
/// In responses: a JSON merge patch (RFC 7396) for the claims.
pub const SESSION_PATCH: HeaderName = HeaderName::from_static("x-session-patch");
/// In responses: `rotate` or `destroy`.
pub const SESSION_ACTION: HeaderName = HeaderName::from_static("x-session-action");
/// In responses: the version of the session that the change is based on.
pub const SESSION_IF_VERSION: HeaderName = HeaderName::from_static("x-session-if-version");
/// The CSRF token that a page sends with an unsafe request.
pub const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// The request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The trace and span of the request (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Vendor-specific trace data (W3C Trace Context).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The addresses of the client and of the proxies before this one.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme of the client's request.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host of the client's request.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The prefix that was stripped from the path of the client's request.
pub const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Prefix of the gateway's own headers.
const SESSION_PREFIX: &str = "x-session-";
/// Headers that override the method, host or path of a request, in lower case. Frameworks and rewriting modules honour
/// them (IIS URL Rewrite, Zend, Yii, older Symfony; Gunicorn's `SCRIPT_NAME`), or proxies set them for apps that do.
/// `X-Forwarded-*` headers, some of which do the same, are scrubbed by prefix.
pub const OVERRIDES: [&str; 18] = [
    "path-info",
    "script-name",
    "x-envoy-original-path",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-host",
    "x-original-method",
    "x-original-path",
    "x-original-pathname",
    "x-original-uri",
    "x-original-url",
    "x-request-uri",
    "x-rewrite-url",
    "x-script-name",
    "x-waws-unencoded-url",
];

/// Converts a name as CGI and WSGI servers do: `X-User` becomes `X_USER`.
pub fn fold(name: &str) -> String {
    name.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() as char } else { '_' })
        .collect()
}

/// Returns whether two names fold alike, so that an app could take one for the other.
pub fn fold_alike(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(one, other)| {
            one.eq_ignore_ascii_case(&other)
                || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
        })
}

/// Returns whether ordinary clients send `name`. If a route sets such a header, the other routes still pass on the
/// client's.
pub fn is_client_header(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "accept"
            | "accept-charset"
            | "accept-encoding"
            | "accept-language"
            | "authorization"
            | "cache-control"
            | "dnt"
            | "from"
            | "if-match"
            | "if-modified-since"
            | "if-none-match"
            | "if-range"
            | "if-unmodified-since"
            | "max-forwards"
            | "origin"
            | "pragma"
            | "prefer"
            | "priority"
            | "range"
            | "referer"
            | "save-data"
            | "upgrade-insecure-requests"
            | "user-agent"
            | "x-requested-with"
    )
}

/// Returns `name` with each word capitalized, for display: `X-User`.
pub fn capitalized(name: &HeaderName) -> String {
    let capital = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => word.to_owned(),
    };
    name.as_str().split('-').map(capital).collect::<Vec<_>>().join("-")
}

/// Returns whether the folded name begins with `X_SESSION_`.
pub fn is_session(name: &str) -> bool {
    name.len() >= SESSION_PREFIX.len()
        && name.bytes().zip(SESSION_PREFIX.bytes()).all(|(byte, wanted)| {
            byte.eq_ignore_ascii_case(&wanted) || (wanted == b'-' && !byte.is_ascii_alphanumeric())
        })
}

/// Returns whether the response header `name` is a control header, which is for the gateway and never reaches the client.
pub fn is_control(name: &HeaderName) -> bool {
    is_session(name.as_str())
}

/// Returns whether `name` is a hop-by-hop header, which is never passed on (RFC 9110, 7.6.1).
///
/// `Trailer` and the proxy authentication headers are only on the list of RFC 2616 (13.5.1). `HTTP2-Settings` belongs
/// to the h2c upgrade (RFC 7540, 3.2), which the gateway does not support.
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Returns whether `name` is passed on even if a client lists it in `Connection`: a client must not be able to remove
/// headers that proxies and apps base their decisions on (RFC 9110, 7.6.1). `name` must not be hop-by-hop.
pub fn is_end_to_end(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_client_header(name)
        || is_forwarding(text)
        || is_protocol_header(text)
        || ["content-", "sec-"].iter().any(|start| text.starts_with(start))
        || [CSRF_TOKEN, TRACEPARENT, TRACESTATE].contains(name)
}

/// Returns whether `name` is allowed as a trailer field, of a request or response. Fields for framing, routing,
/// authentication and the like are not (RFC 9110, 6.5.1), nor are the gateway's own.
pub fn is_trailer(name: &HeaderName) -> bool {
    !is_hop_by_hop(name)
        && !is_control(name)
        && !is_override(name.as_str())
        && !matches!(
            name.as_str(),
            "authorization"
                | "cache-control"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "content-type"
                | "cookie"
                | "expect"
                | "host"
                | "location"
                | "max-forwards"
                | "set-cookie"
                | "traceparent"
                | "tracestate"
                | "vary"
                | "via"
                | "www-authenticate"
                | "x-request-id"
        )
}

/// Returns the value of `name`, or `None` if the header is absent or has several lines.
pub(crate) fn single_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next();
    line.filter(|_| lines.next().is_none())
}

/// Keeps the fields whose names `keep` accepts. Returns `None` if no field is left.
pub(crate) fn retain(mut fields: HeaderMap, keep: impl Fn(&HeaderName) -> bool) -> Option<HeaderMap> {
    let removed: Vec<HeaderName> = fields.keys().filter(|name| !keep(name)).cloned().collect();
    for name in removed {
        fields.remove(name);
    }
    (!fields.is_empty()).then_some(fields)
}

/// Decides which client headers are removed because an upstream could take them for the gateway's.
#[derive(Clone, Debug)]
pub struct Scrub {
    injected: HashSet<HeaderName, RandomState>,
    folded: HashSet<String>,
    /// The [`OVERRIDES`] that some route allows.
    allowed: Vec<HeaderName>,
    pass_odd: bool,
}

impl Scrub {
    /// Creates a scrub that removes the headers that any route injects, on all routes, and those that begin with
    /// `X-Session-`. It also removes names with characters other than letters, digits and `-`; with `pass_odd`, only if they
    /// fold like a removed name, or like one that servers act on (`Content-Length`).
    pub fn new(injected: impl IntoIterator<Item = HeaderName>, pass_odd: bool) -> Self {
        let injected: HashSet<HeaderName, RandomState> = injected.into_iter().collect();
        let folded = injected.iter().map(|name| fold(name.as_str())).collect();
        Self { injected, folded, allowed: Vec::new(), pass_odd }
    }

    /// Keeps the [`OVERRIDES`] in `allowed`, which some route allows. The other routes must remove these.
    #[must_use]
    pub fn allowing(self, allowed: Vec<HeaderName>) -> Self {
        Self { allowed, ..self }
    }

    /// Returns whether the client's header `name` is removed.
    ///
    /// `X-Forwarded-*`, `Forwarded`, `X-Real-IP`, `Proxy` (httpoxy) and names that fold like them are removed as well:
    /// the gateway reads those of trusted proxies first, and writes its own. So are the [`OVERRIDES`], since the app
    /// would serve a request other than the one that was authorized.
    pub fn removes(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            // Two such names fold alike only if they are equal.
            let ours = is_session(text) || is_forwarding(text) || self.injected.contains(name);
            return ours || (is_override(text) && !self.allowed.contains(name));
        }
        if !self.pass_odd {
            return true;
        }
        let folded = fold(text);
        let plain = folded.replace('_', "-").to_ascii_lowercase();
        let reserved =
            is_session(&plain) || is_forwarding(&plain) || is_protocol_header(&plain) || is_override(&plain);
        reserved || self.folded.contains(&folded)
    }
}

/// Returns whether a lower-case name is a forwarding header: one that describes the client or the proxies before this
/// one.
pub fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "proxy" | "x-forwarded")
}

/// Returns whether a lower-case name is one of [`OVERRIDES`].
pub fn is_override(name: &str) -> bool {
    // Skips the search for nearly every header that browsers send.
    let may_match = matches!(name.as_bytes(), [b'x', b'-', ..] | [b'p', b'a', ..] | [b's', b'c', ..]);
    may_match && OVERRIDES.contains(&name)
}

/// Returns whether a lower-case name is one that servers act on before the app does, or `X-Request-Id`, which the
/// gateway sets. No ordinary client sends another spelling of these.
fn is_protocol_header(name: &str) -> bool {
    matches!(
        name,
        "content-length"
            | "transfer-encoding"
            | "host"
            | "connection"
            | "cookie"
            | "upgrade"
            | "expect"
            | "te"
            | "via"
    ) || name == "x-request-id"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const X_USER: HeaderName = HeaderName::from_static("x-user");

    fn name(text: &str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn names_that_fold_like_a_reserved_name_are_removed() {
        for pass_odd in [false, true] {
            let scrub = Scrub::new([X_USER], pass_odd);
            for ours in [
                "X-User",
                "x_user",
                "X.User",
                "X~User",
                "x'user",
                "X*User",
                "X|User",
                "X-Session-Ref",
                "x_session_status",
                "X.Session-Anything",
                "X-Forwarded-For",
                "x_forwarded_for",
                "X-Forwarded-Prefix",
                "Forwarded",
                "Proxy",
                "X-Real-IP",
                "x!real^ip",
                "Content_Length",
                "transfer.encoding",
            ] {
                assert!(scrub.removes(&name(ours)), "{ours}");
            }
            for theirs in ["X-Users", "X-Use", "Accept", "User", "X-Session", "Cookie", "Authorization"] {
                assert!(!scrub.removes(&name(theirs)), "{theirs}");
            }
        }
        for overrides in OVERRIDES {
            assert!(Scrub::new([X_USER], true).removes(&name(overrides)), "{overrides}");
            assert!(!is_trailer(&name(overrides)), "{overrides}");
        }
        assert!(Scrub::new([X_USER], false).removes(&name("x_other")));
        assert!(!Scrub::new([X_USER], true).removes(&name("x_other")));
    }

    #[test]
    fn names_fold_alike_if_they_differ_in_case_and_separators_only() {
        for (one, other) in [("x-user", "X_USER"), ("x-user", "x.user"), ("x-1", "X~1"), ("", "")] {
            assert!(fold_alike(one, other) && fold_alike(other, one), "{one} {other}");
        }
        for (one, other) in [("x-user", "x-users"), ("x-user", "xauser"), ("x-1", "x-2"), ("a", "_")] {
            assert!(!fold_alike(one, other) && !fold_alike(other, one), "{one} {other}");
        }
    }

    #[test]
    fn each_word_is_capitalized_for_display() {
        for (text, shown) in [("x-user", "X-User"), ("etag", "Etag"), ("x--a", "X--A"), ("1st-x", "1st-X")] {
            assert_eq!(capitalized(&name(text)), shown);
        }
    }

    #[test]
    fn header_names_are_classified() {
        // Name; of an ordinary client; hop-by-hop; end-to-end even if listed in Connection; allowed as a trailer.
        for (text, client, hop_by_hop, end_to_end, trailer) in [
            ("accept", true, false, true, true),
            ("authorization", true, false, true, false),
            ("user-agent", true, false, true, true),
            ("te", false, true, false, false),
            ("connection", false, true, false, false),
            ("trailer", false, true, false, false),
            ("proxy-authorization", false, true, false, false),
            ("x-forwarded-for", false, false, true, true),
            ("host", false, false, true, false),
            ("content-type", false, false, true, false),
            ("content-md5", false, false, true, true),
            ("sec-fetch-site", false, false, true, true),
            ("traceparent", false, false, true, false),
            ("tracestate", false, false, true, false),
            ("x-csrf-token", false, false, true, true),
            ("x-custom", false, false, false, true),
            ("set-cookie", false, false, false, false),
            ("x-session-patch", false, false, false, false),
            ("x-original-url", false, false, false, false),
            ("grpc-status", false, false, false, true),
        ] {
            let name = name(text);
            assert_eq!(is_client_header(&name), client, "{text} is a client's");
            assert_eq!(is_hop_by_hop(&name), hop_by_hop, "{text} is hop-by-hop");
            assert_eq!(!hop_by_hop && is_end_to_end(&name), end_to_end, "{text} is end-to-end");
            assert_eq!(is_trailer(&name), trailer, "{text} is allowed as a trailer");
        }
    }

    #[test]
    fn control_headers_begin_with_x_session() {
        for text in ["x-session-", "x-session-patch", "x_session.patch"] {
            assert!(is_control(&name(text)), "{text}");
        }
        for text in ["x-session", "x-sessions-", "x1session-patch", "session-patch"] {
            assert!(!is_control(&name(text)), "{text}");
        }
    }

    #[test]
    fn single_value_requires_exactly_one_line() {
        let mut headers = HeaderMap::new();
        assert_eq!(single_value(&headers, &X_USER), None);
        headers.append(X_USER, HeaderValue::from_static("alice"));
        assert_eq!(single_value(&headers, &X_USER), Some(&HeaderValue::from_static("alice")));
        headers.append(X_USER, HeaderValue::from_static("alice"));
        assert_eq!(single_value(&headers, &X_USER), None);
    }

    #[test]
    fn retain_returns_the_accepted_fields_or_none() {
        let mut headers = HeaderMap::new();
        headers.append(X_USER, HeaderValue::from_static("alice"));
        headers.append("x-other", HeaderValue::from_static("1"));
        let kept = retain(headers.clone(), |name| *name == X_USER).unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), [X_USER]);
        assert_eq!(retain(headers, |_| false), None);
    }

    #[test]
    fn override_that_a_route_allows_is_passed_on_in_its_own_spelling_only() {
        let allowed = HeaderName::from_static("x-original-url");
        let scrub = Scrub::new([X_USER], true).allowing(vec![allowed.clone()]);
        assert!(!scrub.removes(&allowed));
        assert!(scrub.removes(&name("x_original_url")));
        assert!(scrub.removes(&name("x-rewrite-url")));
        assert!(scrub.removes(&X_USER));
    }

    proptest! {
        #[test]
        fn every_spelling_of_an_injected_header_is_removed(odd in prop::collection::vec("[!#$%&'*+.^_`|~-]", 1), upper in any::<bool>(), pass_odd in any::<bool>()) {
            let spelled = format!("x{}user", odd[0]);
            let spelled = if upper { spelled.to_uppercase() } else { spelled };
            prop_assert_eq!(fold(&spelled), "X_USER");
            prop_assert!(Scrub::new([X_USER], pass_odd).removes(&name(&spelled)));
        }

        #[test]
        fn kept_names_do_not_fold_to_a_reserved_name(text in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}", pass_odd in any::<bool>()) {
            if !Scrub::new([X_USER], pass_odd).removes(&name(&text)) {
                let folded = fold(&text);
                prop_assert!(folded != "X_USER" && !folded.starts_with("X_SESSION_") && !folded.starts_with("X_FORWARDED_"));
            }
        }
    }
}
