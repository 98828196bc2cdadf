//! The route's rule: who gets through, and as whom.
//!
//! [`Admitted`] is the only way on, and this module the only place that makes one. That a route is public, or a request
//! without a session welcome, is always said, never the absence of a check.

use std::sync::Arc;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::Route;
use super::inbound::Sanitized;
use super::refusal::{Challenge, Refusal};
use crate::claims::Claims;
use crate::config::{Access, LoginTemplate, OnStoreError, Requirement};
use crate::session::{Active, Realm, Resolution};

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
        (Access::Required, Some(Resolution::Active(active)), _) => {
            let claims = &active.session.record().claims;
            if !route.require.iter().all(|requirement| holds(requirement, claims)) {
                return Err(Refusal::Forbidden);
            }
            Visitor::Session(Box::new(active))
        }
        (Access::Required, Some(Resolution::Anonymous(_)), Some(realm)) => {
            return Err(unauthenticated(&request, route, realm));
        }
        (Access::Optional, Some(Resolution::Active(active)), _) => Visitor::Session(Box::new(active)),
        (Access::Optional, Some(Resolution::Anonymous(_)), _) => Visitor::Anonymous,
        (Access::Optional, Some(Resolution::Unavailable), Some(realm))
            if realm.on_store_error() == OnStoreError::Anonymous =>
        {
            Visitor::Unknown
        }
        (Access::Required | Access::Optional, Some(Resolution::Throttled(wait)), _) => {
            return Err(Refusal::TooMany(wait));
        }
        // Whoever cannot be told gets neither through nor logged out.
        (Access::Required | Access::Optional, _, _) => return Err(Refusal::StoreUnavailable),
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
    /// The kind of visitor in one word, for logs and counts.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Anonymous => "anonymous",
            Self::Unknown => "unavailable",
            Self::Session(_) => "active",
        }
    }
}

/// Whether the claim is, or as a list holds, one of the values.
pub fn holds(requirement: &Requirement, claims: &Claims) -> bool {
    let is_one = |value: &Value| requirement.any_of.contains(value);
    requirement.claim.find(claims).is_some_and(|value| match value {
        Value::Array(list) => list.iter().any(is_one),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            is_one(value)
        }
    })
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
    use serde_json::json;

    use super::*;
    use crate::claims::ClaimPath;

    #[test]
    fn a_claim_holds_by_value_and_by_type() {
        let claims =
            json!({"role": "admin", "roles": ["ops", "dev"], "level": 3, "on": true, "o": {"x": null}});
        let claims = claims.as_object().unwrap();
        for (claim, any_of, expected) in [
            ("role", json!(["admin", "staff"]), true),
            ("role", json!(["adm"]), false),
            ("roles", json!(["dev"]), true),
            ("roles", json!(["ops,dev"]), false),
            ("level", json!([3]), true),
            ("level", json!(["3"]), false),
            ("on", json!([true]), true),
            ("o.x", json!([null]), false),
            ("missing", json!(["admin"]), false),
        ] {
            let any_of = any_of.as_array().unwrap().clone();
            let requirement = Requirement { claim: ClaimPath::parse(claim).unwrap(), any_of };
            assert_eq!(holds(&requirement, claims), expected, "{claim}");
        }
    }

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
