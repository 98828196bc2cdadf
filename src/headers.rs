//! Header names, once, and the rules about names that everything which touches headers keeps.
//!
//! The rule behind them: a CGI or WSGI server turns a header's name into upper case and every character that is not a
//! letter or digit into `_`. Two names that this makes equal are one header to the app, so they are one to us.

use std::collections::HashSet;

use foldhash::fast::RandomState;
use http::{HeaderMap, HeaderName};

/// What kind of session the request has: `active`, `anonymous`, `unavailable`.
pub const SESSION_STATUS: HeaderName = HeaderName::from_static("x-session-status");
/// The session's public name.
pub const SESSION_REF: HeaderName = HeaderName::from_static("x-session-ref");
/// The session's version.
pub const SESSION_VERSION: HeaderName = HeaderName::from_static("x-session-version");
/// When the session ends if nothing happens, in Unix seconds.
pub const SESSION_EXPIRES: HeaderName = HeaderName::from_static("x-session-expires");
/// To the upstream: the session's flash messages. From it: messages to append, one a line.
pub const SESSION_FLASH: HeaderName = HeaderName::from_static("x-session-flash");
/// The session's CSRF token.
pub const SESSION_CSRF: HeaderName = HeaderName::from_static("x-session-csrf");
/// From an upstream: an RFC 7396 merge patch of the claims.
pub const SESSION_PATCH: HeaderName = HeaderName::from_static("x-session-patch");
/// From an upstream: `rotate` or `destroy`.
pub const SESSION_ACTION: HeaderName = HeaderName::from_static("x-session-action");
/// From an upstream: the version that its change was made of.
pub const SESSION_IF_VERSION: HeaderName = HeaderName::from_static("x-session-if-version");
/// The session's CSRF token, as a page sends it back.
pub const CSRF_TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");
/// The request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The trace that the request belongs to (W3C Trace Context).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems say of the trace among themselves.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The client's address, and those of the proxies on the way.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the client used.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client asked for.
pub const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What was cut off the path that the client asked for.
pub const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// What `name` begins with when it is one of the gateway's own.
const SESSION_PREFIX: &str = "x-session-";
/// Headers by which a client asks an app to serve another method, host or path than those of the request, in lower case.
/// Frameworks and rewriting modules obey them (IIS URL Rewrite, Zend, Yii, older Symfony; Gunicorn's `SCRIPT_NAME`), or
/// proxies write them for apps that do. `X-Forwarded-*`, of which some do the same, are scrubbed as a family.
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

/// `name` as a CGI or WSGI server sees it.
pub fn fold(name: &str) -> String {
    name.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { b.to_ascii_uppercase() as char } else { '_' })
        .collect()
}

/// Whether an app could take one name for the other.
pub fn is_alike(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(one, other)| {
            one.eq_ignore_ascii_case(&other)
                || !(one.is_ascii_alphanumeric() || other.is_ascii_alphanumeric())
        })
}

/// Whether `name` is for every client to send, so that what it says on one route is no business of another's.
pub fn is_clients_own(name: &HeaderName) -> bool {
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

/// `name` as documents spell it: `X-User`. Case means nothing on the wire, but people read this one faster.
pub fn spelled(name: &HeaderName) -> String {
    let capital = |word: &str| match word.split_at_checked(1) {
        Some((first, rest)) => first.to_ascii_uppercase() + rest,
        None => word.to_owned(),
    };
    name.as_str().split('-').map(capital).collect::<Vec<_>>().join("-")
}

/// Whether `name` folds to one that begins with `X_SESSION_`.
fn is_session(name: &str) -> bool {
    name.len() >= SESSION_PREFIX.len()
        && name.bytes().zip(SESSION_PREFIX.bytes()).all(|(byte, wanted)| {
            byte.eq_ignore_ascii_case(&wanted) || (wanted == b'-' && !byte.is_ascii_alphanumeric())
        })
}

/// Whether `name`, a response header's, is a control header for us and not for the client.
pub fn is_control(name: &HeaderName) -> bool {
    is_session(name.as_str())
}

/// Whether `name` concerns one connection only (RFC 9110, 7.6.1), so that it is never passed on.
///
/// Besides those that the RFC names: what is so by custom, and what RFC 7540 had for the way to h2c, which is not taken.
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

/// Whether `name`, which is not hop-by-hop, is for whoever answers the request, so that no Connection line can make it one
/// connection's matter (RFC 9110, 7.6.1): what proxies and apps judge a request by.
pub fn is_end_to_end(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_clients_own(name)
        || is_forwarding(text)
        || is_framing(text)
        || ["content-", "sec-"].iter().any(|start| text.starts_with(start))
        || [CSRF_TOKEN, TRACEPARENT, TRACESTATE].contains(name)
}

/// Whether a field named `name` may come after a body, either way: not what a recipient needs before it, or would take
/// more seriously than a trailer deserves (RFC 9110, 6.5.1), and nothing of ours.
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

/// Those of `fields` whose names `goes` lets go on; none if there are none.
pub(crate) fn kept(mut fields: HeaderMap, goes: impl Fn(&HeaderName) -> bool) -> Option<HeaderMap> {
    let barred: Vec<HeaderName> = fields.keys().filter(|name| !goes(name)).cloned().collect();
    for name in barred {
        fields.remove(name);
    }
    (!fields.is_empty()).then_some(fields)
}

/// Which client headers an upstream could mistake for something the gateway says.
#[derive(Clone, Debug)]
pub struct Scrub {
    injected: HashSet<HeaderName, RandomState>,
    folded: HashSet<String>,
    /// Those of [`OVERRIDES`] that a route lets through.
    allowed: Vec<HeaderName>,
    pass_odd: bool,
}

/// What becomes of a client's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Pass,
    /// It says something that only the gateway may say.
    Scrub,
}

impl Scrub {
    /// Scrubs every name that any route injects, whatever route a request takes, and every name that begins with
    /// `X-Session-`. With `pass_odd`, names with odd characters go on if they equal none of ours.
    pub fn new(injected: impl IntoIterator<Item = HeaderName>, pass_odd: bool) -> Self {
        let injected: HashSet<HeaderName, RandomState> = injected.into_iter().collect();
        let folded = injected.iter().map(|name| fold(name.as_str())).collect();
        Self { injected, folded, allowed: Vec::new(), pass_odd }
    }

    /// Lets those of [`OVERRIDES`] through that a route allows; the other routes have to remove them.
    #[must_use]
    pub fn allowing(self, allowed: Vec<HeaderName>) -> Self {
        Self { allowed, ..self }
    }

    /// What becomes of the client's header `name`.
    ///
    /// `X-Forwarded-*`, `Forwarded`, `Proxy` (httpoxy) and their look-alikes are scrubbed as well: who is to be
    /// believed about the way of a request is decided before, and written anew. So is whatever an app could take for
    /// another method, host or path than those that the request was judged by.
    pub fn fate(&self, name: &HeaderName) -> Fate {
        let text = name.as_str();
        if text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            // A plain name equals another under folding only if it is that name.
            let ours = is_session(text) || is_forwarding(text) || self.injected.contains(name);
            let overrides = is_override(text) && !self.allowed.contains(name);
            return if ours || overrides { Fate::Scrub } else { Fate::Pass };
        }
        if !self.pass_odd {
            return Fate::Scrub;
        }
        let folded = fold(text);
        let plain = folded.replace('_', "-").to_ascii_lowercase();
        let reserved =
            is_session(&plain) || is_forwarding(&plain) || is_framing(&plain) || is_override(&plain);
        if reserved || self.folded.contains(&folded) { Fate::Scrub } else { Fate::Pass }
    }
}

/// Whether a lower-case name tells about the way of a request.
fn is_forwarding(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "proxy" | "x-forwarded")
}

/// Returns whether a lower-case name is one of [`OVERRIDES`].
pub fn is_override(name: &str) -> bool {
    // Nearly every header of a browser begins otherwise.
    name.starts_with(['p', 's', 'x']) && OVERRIDES.contains(&name)
}

/// Names that a server acts on before any app does; an odd spelling of them is never innocent.
fn is_framing(name: &str) -> bool {
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
    fn names_that_an_app_cannot_tell_apart_are_scrubbed_together() {
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
                assert_eq!(scrub.fate(&name(ours)), Fate::Scrub, "{ours}");
            }
            for theirs in ["X-Users", "X-Use", "Accept", "User", "X-Session", "Cookie", "Authorization"] {
                assert_eq!(scrub.fate(&name(theirs)), Fate::Pass, "{theirs}");
            }
        }
        for overrides in OVERRIDES {
            assert_eq!(Scrub::new([X_USER], true).fate(&name(overrides)), Fate::Scrub, "{overrides}");
            assert!(!is_trailer(&name(overrides)), "{overrides}");
        }
        assert_eq!(Scrub::new([X_USER], false).fate(&name("x_other")), Fate::Scrub);
        assert_eq!(Scrub::new([X_USER], true).fate(&name("x_other")), Fate::Pass);
    }

    proptest! {
        #[test]
        fn no_spelling_of_ours_passes(odd in prop::collection::vec("[!#$%&'*+.^_`|~-]", 1), upper in any::<bool>(), pass_odd in any::<bool>()) {
            let spelled = format!("x{}user", odd[0]);
            let spelled = if upper { spelled.to_uppercase() } else { spelled };
            prop_assert_eq!(fold(&spelled), "X_USER");
            prop_assert_eq!(Scrub::new([X_USER], pass_odd).fate(&name(&spelled)), Fate::Scrub);
        }

        #[test]
        fn what_passes_folds_to_nothing_of_ours(text in "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}", pass_odd in any::<bool>()) {
            if Scrub::new([X_USER], pass_odd).fate(&name(&text)) == Fate::Pass {
                let folded = fold(&text);
                prop_assert!(folded != "X_USER" && !folded.starts_with("X_SESSION_") && !folded.starts_with("X_FORWARDED_"));
            }
        }
    }
}
