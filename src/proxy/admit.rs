//! The route's rule: who gets through, and as whom.
//!
//! [`Admitted`] is the only way on, and this module the only place that makes one. That a route is public, or a request
//! without a session welcome, is always said, never the absence of a check.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Route;
use super::inbound::Sanitized;
use super::refusal::{Challenge, Refusal};
use crate::config::{Access, LoginTemplate, OnStoreError};
use crate::session::{Active, Realm, Resolution, UserState};
use crate::telemetry::metrics::Verdict;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// What `encodeURIComponent` leaves alone.
pub(super) const URI_COMPONENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request that its route's rule lets through.
#[derive(Debug)]
pub struct Admitted {
    pub(super) request: Sanitized,
    pub(super) route: Arc<Route>,
    pub(super) visitor: Visitor,
}

/// As whom a request goes through.
#[derive(Debug)]
pub enum Visitor {
    /// On a public route, where nobody asks.
    Public,
    /// Without a session.
    Anonymous,
    /// With no telling whether there is a session.
    Unknown,
    /// With a session.
    Session(Box<Active>),
}

/// Admits `request` to `route`, or says why not. `resolution` is what its cookies came to; a public route has none.
///
/// # Errors
/// The refusal that the route's rule makes of it.
pub(super) fn admit(
    request: Sanitized,
    route: &Arc<Route>,
    resolution: Option<Resolution>,
) -> Result<Admitted, Refusal> {
    let visitor = match (route.access, resolution, &route.realm) {
        (Access::Public, _, _) => Visitor::Public,
        (Access::Required | Access::Session, Some(Resolution::Active(active)), Some(realm)) => {
            let user = active.session.user();
            let claims = &active.session.record().claims;
            let meets_requirements = route.require.iter().all(|requirement| requirement.holds(claims));
            let is_required = route.access == Access::Required;
            match user {
                UserState::Guest if is_required || !meets_requirements => {
                    return Err(unauthenticated(&request, route, realm));
                }
                // No configuration gets here: such a realm cannot be used with `required`.
                UserState::Unknown if is_required => return Err(unauthenticated(&request, route, realm)),
                UserState::LoggedIn | UserState::Unknown if !meets_requirements => {
                    return Err(Refusal::Forbidden);
                }
                UserState::LoggedIn | UserState::Guest | UserState::Unknown => {
                    Visitor::Session(Box::new(active))
                }
            }
        }
        (Access::Required | Access::Session, Some(Resolution::Anonymous(_)), Some(realm)) => {
            return Err(unauthenticated(&request, route, realm));
        }
        (Access::Optional, Some(Resolution::Active(active)), _) => Visitor::Session(Box::new(active)),
        (Access::Optional, Some(Resolution::Anonymous(_)), _) => Visitor::Anonymous,
        (Access::Optional, Some(Resolution::Unavailable), Some(realm))
            if realm.on_store_error() == OnStoreError::Anonymous =>
        {
            Visitor::Unknown
        }
        (_, Some(Resolution::Throttled(wait)), _) => {
            return Err(Refusal::TooMany(wait));
        }
        // Whoever cannot be told gets neither through nor logged out.
        (Access::Required | Access::Session | Access::Optional, _, _) => {
            return Err(Refusal::StoreUnavailable);
        }
    };
    Ok(Admitted { request, route: Arc::clone(route), visitor })
}

impl Admitted {
    /// The route.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// As whom the request goes through.
    pub fn visitor(&self) -> &Visitor {
        &self.visitor
    }
}

impl Visitor {
    /// The verdict of the log and of the metrics.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Public => Verdict::Public,
            Self::Anonymous => Verdict::Anonymous,
            Self::Unknown => Verdict::Unavailable,
            Self::Session(active) if active.session.user() == UserState::Guest => Verdict::Guest,
            Self::Session(_) => Verdict::Active,
        }
    }
}

fn unauthenticated(request: &Sanitized, route: &Route, realm: &Realm) -> Refusal {
    if let Some(login) = &route.login
        && is_navigation(request)
        && let Some(location) = location(login, request)
    {
        return Refusal::Login(location);
    }
    Refusal::Unauthenticated(Challenge {
        realm: realm.name().to_owned(),
        cookie: realm.cookie_name().to_owned(),
    })
}

fn location(login: &LoginTemplate, request: &Sanitized) -> Option<HeaderValue> {
    let text = match &login.after {
        None => login.before.clone(),
        // A path that is not refused begins with one `/`, so what comes back from the log-in page stays on this host.
        Some(after) => {
            let uri = utf8_percent_encode(request.target().as_str(), URI_COMPONENT);
            format!("{}{uri}{after}", login.before)
        }
    };
    HeaderValue::from_str(&text).ok()
}

/// Whether a person is at the other end, waiting for a page: only then is a redirect of use.
///
/// Browsers say so in Fetch Metadata. Without it, what asks for `text/html` and is not a script's request counts.
pub(super) fn is_navigation(request: &Sanitized) -> bool {
    let headers = request.headers();
    let is = |name: &HeaderName, wanted: &[&str]| {
        first(headers, name).is_some_and(|value| wanted.contains(&value))
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        || request.wants_upgrade()
        || is(&REQUESTED_WITH, &["XMLHttpRequest"])
        || first(headers, &CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/grpc"))
    {
        return false;
    }
    if headers.contains_key(SEC_FETCH_MODE) || headers.contains_key(SEC_FETCH_DEST) {
        let dest =
            !headers.contains_key(SEC_FETCH_DEST) || is(&SEC_FETCH_DEST, &["document", "iframe", "frame"]);
        return dest && (!headers.contains_key(SEC_FETCH_MODE) || is(&SEC_FETCH_MODE, &["navigate"]));
    }
    prefers_html(headers)
}

/// Whether the client wants HTML more than JSON (RFC 9110, 12.5.1). `*/*` alone is a program.
pub(super) fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut html, mut json) = (0.0, 0.0);
    let lines = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
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

fn first<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_prefers_a_page() {
        for (accept, expected) in [
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", true),
            ("*/*", false),
            ("application/json", false),
            ("application/json, text/html;q=0.5", false),
            ("text/html;q=0, application/json;q=0", false),
            ("text/html;q=x", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(prefers_html(&headers), expected, "{accept}");
        }
    }
}
