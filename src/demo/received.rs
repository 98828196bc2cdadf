//! The headers that the app received, and where they come from, as text or JSON.

use http::header::{HOST, VIA};
use http::{HeaderMap, HeaderName};
use serde_json::json;

use super::page_kind::PageKind;
use crate::config::{Config, Destination, HeaderSource, Traces, UpstreamHost};
use crate::headers::{REQUEST_ID, TRACEPARENT, capitalized, is_client_header, is_forwarding, is_session};

/// The origin of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HeaderOrigin {
    /// Set by the gateway from the session.
    Session,
    /// Set by the gateway from other data: the connection, the trace, the configuration.
    Gateway,
    /// Sent by the client.
    Client,
}

/// The headers of one request: the session's first, then the gateway's, then the client's.
#[derive(Debug)]
pub(super) struct Received {
    headers: Vec<(HeaderOrigin, String, String)>,
}

/// The headers that the gateway sets because of its configuration, besides those that it sets on every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOrigins {
    pub(super) session: Vec<HeaderName>,
    pub(super) gateway: Vec<HeaderName>,
}

impl HeaderOrigin {
    /// Returns the CSS class in the page and the value in JSON.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Gateway => "gateway",
            Self::Client => "client",
        }
    }
}

impl HeaderOrigins {
    /// Returns the headers that the routes of `config` set. Excludes edited headers that ordinary clients send too, since
    /// the app does not know whether the request's route sets them.
    pub fn from_config(config: &Config) -> Self {
        let mut origins = Self::default();
        for route in &config.routes {
            for rule in &route.headers {
                match rule.source {
                    HeaderSource::Claim { .. } | HeaderSource::Template(_) => &mut origins.session,
                    HeaderSource::Certificate(_) => &mut origins.gateway,
                }
                .push(rule.name.clone());
            }
            let edits = route.request_headers.set.iter().chain(&route.request_headers.add);
            let edits = edits.map(|edit| &edit.name).filter(|name| !is_client_header(name));
            origins.gateway.extend(edits.cloned());
        }
        if config.server.traces != Traces::Pass {
            origins.gateway.push(TRACEPARENT);
        }
        let mut hosts = config.routes.iter().filter_map(|route| match &route.destination {
            Destination::Upstream(forwarding) => Some(&forwarding.host),
            Destination::Redirect(_) | Destination::Respond(_) => None,
        });
        if hosts.all(|host| *host != UpstreamHost::Preserve) {
            origins.gateway.push(HOST);
        }
        origins
    }

    fn origin(&self, name: &HeaderName) -> HeaderOrigin {
        let text = name.as_str();
        if is_session(text) || self.session.contains(name) {
            HeaderOrigin::Session
        } else if is_forwarding(text) || [VIA, REQUEST_ID].contains(name) || self.gateway.contains(name) {
            HeaderOrigin::Gateway
        } else {
            HeaderOrigin::Client
        }
    }
}

impl Received {
    pub(super) fn new(headers: &HeaderMap, origins: &HeaderOrigins) -> Self {
        let mut headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (origins.origin(name), capitalized(name), value)
            })
            .collect();
        headers.sort_by_key(|(origin, ..)| *origin);
        Self { headers }
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderOrigin, &str, &str)> {
        self.headers.iter().map(|(origin, name, value)| (*origin, name.as_str(), value.as_str()))
    }

    /// Returns the user in `X-User`, which the app trusts.
    pub(super) fn user(&self) -> Option<String> {
        self.value("X-User").map(decoded)
    }

    /// Returns the counter in `X-Visits`.
    pub(super) fn visits(&self) -> u64 {
        self.value("X-Visits").and_then(|visits| visits.parse().ok()).unwrap_or(0)
    }

    /// Returns the flash messages.
    pub(super) fn flash(&self) -> impl Iterator<Item = String> {
        self.value("X-Session-Flash").into_iter().flat_map(|list| list.split(',')).map(decoded)
    }

    pub(super) fn status(&self) -> &str {
        self.value("X-Session-Status").unwrap_or("anonymous")
    }

    pub(super) fn request_id(&self) -> &str {
        self.value("X-Request-Id").unwrap_or_default()
    }

    pub(super) fn injected(&self) -> Vec<(String, String)> {
        self.headers()
            .filter(|(origin, ..)| *origin == HeaderOrigin::Session)
            .map(|(_, name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    pub(super) fn to_json(&self) -> String {
        let headers: Vec<_> = self
            .headers()
            .map(|(origin, name, value)| json!({ "name": name, "value": value, "from": origin.as_str() }))
            .collect();
        json!({ "user": self.user(), "flash": self.flash().collect::<Vec<_>>(), "headers": headers })
            .to_string()
    }

    pub(super) fn to_text(&self, kind: PageKind) -> String {
        let width = self.headers().map(|(_, name, _)| name.len() + 1).max().unwrap_or(0);
        let lines = self.headers().map(|(origin, name, value)| {
            let mark = match origin {
                HeaderOrigin::Session => '*',
                HeaderOrigin::Gateway | HeaderOrigin::Client => ' ',
            };
            format!(" {mark} {:width$} {value}\n", format!("{name}:"))
        });
        format!(
            "Hello, {}\n\n{}\n\nThe app received (* = injected from the session):\n\n{}",
            self.user().as_deref().unwrap_or("anonymous"),
            kind.note(),
            lines.collect::<String>(),
        )
    }

    fn value(&self, wanted: &str) -> Option<&str> {
        self.headers().find(|(_, name, _)| *name == wanted).map(|(.., value)| value)
    }
}

/// Decodes a header of the gateway, which percent-encodes special characters.
fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned()
}
