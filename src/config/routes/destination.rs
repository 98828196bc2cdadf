//! The destination of a route: an upstream, a redirect or a fixed response.

use std::time::Duration;

use super::redirect::{self, Redirect, Respond};
use super::rewrite::{self, Rewrite, UpstreamHost};
use crate::config::diagnostic::Diagnostic;
use crate::config::names::SectionNames;
use crate::config::section::Section;
use crate::config::value::{Fault, duration, size, string};

/// The destination of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Destination {
    /// Requests are forwarded to an upstream.
    Upstream(Forwarding),
    /// Requests are redirected.
    Redirect(Redirect),
    /// Requests get a fixed response.
    Respond(Respond),
}

/// Settings for forwarding requests to an upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Forwarding {
    /// Index into [`Config::upstreams`](crate::config::Config::upstreams).
    pub upstream: usize,
    /// Rewriting of the path.
    pub rewrite: Rewrite,
    /// The Host of forwarded requests.
    pub host: UpstreamHost,
    /// Maximum size of a request body. `None` uses the limit of `[server.limits]`.
    pub max_body: Option<u64>,
    /// Timeout for the response head, and for each further piece of the body. `None` uses the upstream's.
    pub response_timeout: Option<Duration>,
}

impl Destination {
    /// Returns the index of the upstream, if the route has one.
    pub fn upstream(&self) -> Option<usize> {
        match self {
            Self::Upstream(forwarding) => Some(forwarding.upstream),
            Self::Redirect(_) | Self::Respond(_) => None,
        }
    }

    /// Sets `max_body` if it is not set.
    #[must_use]
    pub fn with_max_body(self, max_body: Option<u64>) -> Self {
        match self {
            Self::Upstream(to) => Self::Upstream(Forwarding { max_body: to.max_body.or(max_body), ..to }),
            other @ (Self::Redirect(_) | Self::Respond(_)) => other,
        }
    }

    /// Replaces the index of the upstream, if the route has one.
    #[must_use]
    pub(in crate::config) fn with_upstream(self, upstream: Option<usize>) -> Self {
        match (self, upstream) {
            (Self::Upstream(forwarding), Some(upstream)) => {
                Self::Upstream(Forwarding { upstream, ..forwarding })
            }
            (other, _) => other,
        }
    }
}

/// The keys that only affect forwarded requests.
const FORWARDING: [&str; 15] = [
    "headers",
    "allow_overrides",
    "request_headers",
    "writes",
    "flash",
    "csrf",
    "strip_prefix",
    "prefix",
    "rewrite_location",
    "upstream_host",
    "max_body",
    "response_timeout",
    "websocket",
    "recheck",
    "idle_timeout",
];

/// Reads the destination of the route with this `path`.
pub(super) fn read(
    section: &mut Section<'_, '_>,
    path: Option<&str>,
    upstreams: &mut SectionNames<'_>,
) -> Destination {
    let (rewrite, host) = rewrite::read(section, path);
    let max_body = section.get("max_body", size(0..=1 << 40));
    let response_timeout =
        section.get("response_timeout", duration(Duration::from_millis(1)..=Duration::from_hours(24)));
    let redirect = redirect::redirect(section);
    let respond = redirect::respond(section);
    let given: Vec<_> =
        ["upstream", "redirect", "respond"].into_iter().filter(|key| section.has(key)).collect();
    let name = |value: &toml::de::DeValue<'_>| string(value);
    match given.as_slice() {
        [] | ["upstream"] => {
            let upstream = section.get("upstream", |value| upstreams.resolve(&name(value)?));
            if !section.has("upstream") {
                let needs = ["upstream", "redirect", "respond"];
                section.refuse("upstream", &needs, Fault::new("is missing"));
            }
            let max_body = max_body.map(|size| size as u64);
            let upstream = upstream.unwrap_or_default();
            return Destination::Upstream(Forwarding { upstream, rewrite, host, max_body, response_timeout });
        }
        [_, second, ..] => {
            // Marks the upstream as used.
            section.get("upstream", |value| upstreams.resolve(&name(value)?));
            let fault =
                Diagnostic::error("a route has more than one of `upstream`, `redirect` and `respond`");
            section.report(fault, section.span(second));
        }
        [_] => {
            section.get("upstream", string);
            for key in FORWARDING {
                if section.has(key) {
                    let fault = Fault::new("has no effect on a route without `upstream`");
                    section.refuse(key, &["upstream"], fault);
                }
            }
        }
    }
    match (redirect, respond) {
        (Some(redirect), _) => Destination::Redirect(redirect),
        (None, Some(respond)) => Destination::Respond(respond),
        // One of them is invalid, so the file is rejected.
        (None, None) => Destination::Upstream(Forwarding::default()),
    }
}
