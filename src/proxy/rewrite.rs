//! A route's path rewriting: replaces a constant prefix of the path in requests, and restores it in responses.
//!
//! 1. Access is decided on the path before rewriting. The upstream receives it with one constant prefix removed and
//!    another added. Nothing is decoded, encoded or normalised, and both prefixes end at a segment boundary.
//! 2. In responses, Location, Content-Location and Refresh are rewritten if they refer to this site or to the server
//!    itself, and so is the Path of a cookie. Other locations are not changed.

use std::borrow::Cow;

use http::HeaderValue;
use http::header::{CONTENT_LOCATION, LOCATION, REFRESH, SET_COOKIE};
use http::uri::PathAndQuery;

use super::refusal::{Malformed, Refusal};
use crate::config::{Forwarding, Rewrite, UpstreamHost};
use crate::fields::{Fields, visible_ascii};
use crate::headers::FORWARDED_PREFIX;
use crate::path::is_prefix;
use crate::upstream::GatewayHeaders;

/// The public site, as addressed by the client.
#[derive(Debug)]
pub(super) struct PublicSite {
    scheme: &'static str,
    /// The host with its port.
    host: String,
}

impl PublicSite {
    pub(super) fn new((scheme, host): (&'static str, &[u8])) -> Self {
        Self { scheme, host: String::from_utf8_lossy(host).into_owned() }
    }
}

/// Returns the target that the upstream receives.
///
/// # Errors
/// Returns a refusal if it is not a path, or too long.
pub(super) fn target(rewrite: &Rewrite, target: PathAndQuery) -> Result<PathAndQuery, Refusal> {
    if rewrite.strip.is_empty() && rewrite.prefix.is_empty() {
        return Ok(target);
    }
    // Every path of the route begins with the prefix, possibly in another case. Any other path is an internal error.
    let split = target.as_str().split_at_checked(rewrite.strip.len());
    let split = split.filter(|(head, _)| head.eq_ignore_ascii_case(&rewrite.strip));
    let (_, rest) = split.ok_or(Refusal::Internal)?;
    let text = match rest.as_bytes().first() {
        Some(b'/') => format!("{}{rest}", rewrite.prefix),
        Some(b'?') | None if rewrite.prefix.is_empty() => format!("/{rest}"),
        Some(b'?') | None => format!("{}{rest}", rewrite.prefix),
        Some(_) => return Err(Refusal::Internal),
    };
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(text))
        .map_err(|_| Refusal::Malformed(Malformed::Target))
}

/// Adds X-Forwarded-Prefix: the removed prefix, after the prefixes that preceding proxies have removed.
pub(super) fn add_prefix_header(rewrite: &Rewrite, fields: &mut Fields, added: &mut GatewayHeaders) {
    if rewrite.strip.is_empty() {
        return;
    }
    let before = fields.text(&FORWARDED_PREFIX).unwrap_or_default();
    let before = before.trim_end_matches('/');
    let before = if before.starts_with('/') { before } else { "" };
    if let Ok(prefix) = HeaderValue::from_str(&format!("{before}{}", rewrite.strip)) {
        added.replace(fields, &FORWARDED_PREFIX, &prefix);
    }
}

/// Rewrites the paths in the response of `server` for the client.
pub(super) fn restore_paths(fields: &mut Fields, forwarding: &Forwarding, site: &PublicSite, server: &str) {
    let rewriter = LocationRewriter { forwarding, site, server };
    for name in [LOCATION, CONTENT_LOCATION] {
        fields.replace_values(&name, |value| {
            HeaderValue::try_from(rewriter.location(visible_ascii(value)?)?).ok()
        });
    }
    fields.replace_values(&REFRESH, |value| {
        let text = visible_ascii(value)?;
        let at = text.to_ascii_lowercase().find("url=")? + 4;
        let (before, location) = text.split_at_checked(at)?;
        HeaderValue::try_from(format!("{before}{}", rewriter.location(location)?)).ok()
    });
    fields
        .replace_values(&SET_COOKIE, |value| HeaderValue::try_from(cookie(&forwarding.rewrite, value)?).ok());
}

/// Rewrites locations in the responses of one server.
struct LocationRewriter<'r> {
    forwarding: &'r Forwarding,
    site: &'r PublicSite,
    server: &'r str,
}

impl LocationRewriter<'_> {
    /// Returns the rewritten location, or `None` if it is not changed.
    fn location(&self, text: &str) -> Option<String> {
        let rewrite = &self.forwarding.rewrite;
        if text.starts_with('/') {
            let is_path = !text.starts_with("//") && !text.starts_with("/\\");
            return path(rewrite, text).filter(|_| is_path);
        }
        let (scheme, rest) = text.split_once("://")?;
        let port = match scheme.to_ascii_lowercase().as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => return None,
        };
        let (authority, tail) = rest.split_at_checked(rest.find(['/', '?', '#']).unwrap_or(rest.len()))?;
        let tail = if tail.starts_with('/') { Cow::from(tail) } else { format!("/{tail}").into() };
        let is_authority = |other: &str| {
            let bare = |host: &str| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
            !other.is_empty() && bare(authority) == bare(other)
        };
        if is_authority(&self.site.host) {
            return path(rewrite, &tail).map(|path| format!("{scheme}://{authority}{path}"));
        }
        let named = match &self.forwarding.host {
            UpstreamHost::Name(name) => name.as_str(),
            UpstreamHost::Preserve | UpstreamHost::Server => "",
        };
        if (is_authority(self.server) || is_authority(named)) && !self.site.host.is_empty() {
            let path = path(rewrite, &tail).unwrap_or_else(|| tail.into_owned());
            return Some(format!("{}://{}{path}", self.site.scheme, self.site.host));
        }
        None
    }
}

/// Returns the client's path for an upstream's path, with query and fragment. Returns `None` if the upstream already uses
/// the client's path, or if no request of the route leads to its path.
fn path(rewrite: &Rewrite, text: &str) -> Option<String> {
    if rewrite.strip.is_empty() && rewrite.prefix.is_empty() {
        return None;
    }
    let (path, tail) = text.split_at_checked(text.find(['?', '#']).unwrap_or(text.len()))?;
    if rewrite.prefix.is_empty() && is_prefix(&rewrite.strip, path) {
        return None;
    }
    let rest = path.strip_prefix(&rewrite.prefix)?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    // If no prefix is restored, `//host` would lead to another site. Browsers treat `\` as `/`, and ignore tabs.
    if rewrite.strip.is_empty() && rest.get(1..).is_some_and(|rest| rest.starts_with(['/', '\\', '\t'])) {
        return None;
    }
    let root = if rewrite.strip.is_empty() && rest.is_empty() { "/" } else { "" };
    Some(format!("{}{root}{rest}{tail}", rewrite.strip))
}

/// Returns a Set-Cookie with its Path rewritten for the client, or `None` if it is not changed. `/` is kept, because it
/// matches the client's paths as well, and `__Host-` requires it.
fn cookie(rewrite: &Rewrite, line: &[u8]) -> Option<Vec<u8>> {
    let mut changed = false;
    let parts: Vec<Cow<'_, [u8]>> = line
        .split(|&byte| byte == b';')
        .enumerate()
        .map(|(at, part)| {
            let attribute =
                std::str::from_utf8(part).ok().filter(|_| at > 0).and_then(|part| part.split_once('='));
            let is_path = |name: &str| name.trim_matches([' ', '\t']).eq_ignore_ascii_case("path");
            let Some((name, value)) = attribute.filter(|(name, _)| is_path(name)) else { return part.into() };
            let value = value.trim_matches([' ', '\t']);
            match path(rewrite, value).filter(|_| value.starts_with('/') && value != "/") {
                Some(path) => {
                    changed = true;
                    format!("{name}={path}").into_bytes().into()
                }
                None => part.into(),
            }
        })
        .collect();
    changed.then(|| parts.join(&b';'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::route::ambiguity;

    fn rewrite(strip: &str, prefix: &str) -> Rewrite {
        Rewrite { strip: strip.into(), prefix: prefix.into(), rewrite_location: true }
    }

    fn forwarded(strip: &str, prefix: &str, text: &str) -> String {
        target(&rewrite(strip, prefix), text.parse().unwrap()).unwrap().as_str().to_owned()
    }

    #[test]
    fn prefix_is_replaced() {
        for (strip, prefix, from, to) in [
            ("", "", "/a?b", "/a?b"),
            ("/app", "", "/app", "/"),
            ("/app", "", "/app?x=/app", "/?x=/app"),
            ("/app", "", "/app/", "/"),
            ("/app", "", "/app/a%2Fb;c/?d", "/a%2Fb;c/?d"),
            ("/app", "/old", "/app", "/old"),
            ("/app", "/old", "/app?x", "/old?x"),
            ("/app", "/old", "/app/", "/old/"),
            ("/app", "/old", "/app/x/app", "/old/x/app"),
            ("/app", "", "/APP/X?y", "/X?y"),
            ("", "/old", "/", "/old/"),
            ("", "/old", "/x?y", "/old/x?y"),
        ] {
            assert_eq!(forwarded(strip, prefix, from), to);
        }
        for text in ["/apple", "/other", "/"] {
            assert!(target(&rewrite("/app", ""), text.parse().unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn locations_are_rewritten_for_the_client() {
        let site = PublicSite::new(("https", b"www.example"));
        for (strip, prefix, host, from, to) in [
            ("/app", "", UpstreamHost::Preserve, "/login?a#b", Some("/app/login?a#b")),
            ("/app", "", UpstreamHost::Preserve, "/", Some("/app/")),
            ("/app", "", UpstreamHost::Preserve, "/app/x", None),
            ("/app", "", UpstreamHost::Preserve, "/apple", Some("/app/apple")),
            ("/app", "", UpstreamHost::Preserve, "login", None),
            ("/app", "", UpstreamHost::Preserve, "//other/x", None),
            ("/app", "", UpstreamHost::Preserve, "/\\other/x", None),
            ("/app", "", UpstreamHost::Preserve, "https://other/x", None),
            ("/app", "", UpstreamHost::Preserve, "mailto://www.example/x", None),
            (
                "/app",
                "",
                UpstreamHost::Preserve,
                "http://WWW.example:80/x",
                Some("http://WWW.example:80/app/x"),
            ),
            ("/app", "", UpstreamHost::Preserve, "https://www.example", Some("https://www.example/app/")),
            ("/app", "", UpstreamHost::Preserve, "http://10.0.0.1:8000/x", Some("https://www.example/app/x")),
            ("/app", "/old", UpstreamHost::Preserve, "/old/x", Some("/app/x")),
            ("/app", "/old", UpstreamHost::Preserve, "/old", Some("/app")),
            ("/app", "/old", UpstreamHost::Preserve, "/older", None),
            ("", "/old", UpstreamHost::Preserve, "/old", Some("/")),
            ("", "/old", UpstreamHost::Preserve, "/old?x", Some("/?x")),
            ("", "/old", UpstreamHost::Preserve, "/old/x//y", Some("/x//y")),
            ("", "/old", UpstreamHost::Preserve, "/old//evil.example", None),
            ("", "/old", UpstreamHost::Preserve, "/old/\\evil.example", None),
            ("", "/old", UpstreamHost::Preserve, "/old/\t/evil.example", None),
            ("/app", "/old", UpstreamHost::Preserve, "/old//x", Some("/app//x")),
            ("", "", UpstreamHost::Server, "http://10.0.0.1:8000/x?y", Some("https://www.example/x?y")),
            ("", "", UpstreamHost::Server, "/x", None),
            (
                "",
                "",
                UpstreamHost::Name("in.example".into()),
                "http://in.example/x",
                Some("https://www.example/x"),
            ),
        ] {
            let forwarding = Forwarding { rewrite: rewrite(strip, prefix), host, ..Forwarding::default() };
            let rewriter = LocationRewriter { forwarding: &forwarding, site: &site, server: "10.0.0.1:8000" };
            assert_eq!(rewriter.location(from).as_deref(), to, "{strip} {prefix} {from}");
        }
    }

    #[test]
    fn cookie_paths_are_rewritten_for_the_client() {
        for (prefix, from, to) in [
            ("", "a=b; Path=/x; HttpOnly", Some("a=b; Path=/app/x; HttpOnly")),
            ("", "a=path=/x;path = /x", Some("a=path=/x;path =/app/x")),
            ("", "a=b; Path=/", None),
            ("", "a=b; Path=/app", None),
            ("", "a=b; Path=x", None),
            ("", "Path=/x", None),
            ("/old", "a=b; Path=/old", Some("a=b; Path=/app")),
            ("/old", "a=b; Path=/other", None),
        ] {
            let changed = cookie(&rewrite("/app", prefix), from.as_bytes());
            assert_eq!(changed.map(|line| String::from_utf8(line).unwrap()).as_deref(), to, "{from}");
        }
    }

    #[test]
    fn prefixes_removed_by_preceding_proxies_are_kept() {
        for (before, expected) in [
            (None, "/app"),
            (Some("/outer"), "/outer/app"),
            (Some("/outer/"), "/outer/app"),
            (Some("x"), "/app"),
        ] {
            let mut fields = Fields::new();
            if let Some(before) = before {
                fields.insert(FORWARDED_PREFIX, HeaderValue::from_static(before));
            }
            let mut added = GatewayHeaders::default();
            add_prefix_header(&rewrite("/app", ""), &mut fields, &mut added);
            assert!(fields.is_empty());
            assert_eq!(added.iter().next().unwrap(), (FORWARDED_PREFIX, HeaderValue::from_static(expected)));
        }
    }

    proptest! {
        #[test]
        fn rewritten_path_is_unambiguous_and_can_be_restored(rest in "(/[a-z0-9%2Ff;=.]{1,6}){0,4}/?", strip in "(/[a-z]{1,5}){0,2}", prefix in "(/[a-z]{1,5}){0,2}") {
            let judged = format!("{strip}{rest}");
            if judged.starts_with('/') && ambiguity(&judged).is_none() {
                let rewrite = rewrite(&strip, &prefix);
                let text = target(&rewrite, judged.parse().unwrap()).unwrap();
                prop_assert_eq!(ambiguity(text.path()), None);
                prop_assert!(text.path().ends_with(&rest));
                let changes = strip != prefix && !(prefix.is_empty() && is_prefix(&strip, text.path()));
                if changes {
                    let back = path(&rewrite, text.path()).unwrap();
                    prop_assert!(back == judged || back == format!("{judged}/"), "{} {}", back, judged);
                }
            }
        }
    }
}
