//! Applies the route's access rule.
//!
//! The next step requires an [`Admitted`]. A route is public, or admits requests without a session, only if its rule says
//! so, never because a check is missing.

use std::sync::Arc;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::inbound::Sanitized;
use super::navigation::is_navigation;
use super::resolve::Resolved;
use crate::config::{Access, LoginTemplate, OnStoreError};
use crate::proxy::model::{Route, Visitor};
use crate::proxy::refusal::{Challenge, Refusal};
use crate::session::{Anonymous, Realm, Resolution, UserState};

/// The characters to percent-encode in a URI component: those of JavaScript's `encodeURIComponent`, and `!*'()`.
pub(in crate::proxy) const URI_COMPONENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request that its route's access rule admits. Only [`Admitted::check`] makes one.
#[derive(Debug)]
pub struct Admitted {
    request: Sanitized,
    route: Arc<Route>,
    visitor: Visitor,
}

impl Admitted {
    /// Applies the route's access rule.
    ///
    /// # Errors
    /// Returns the refusal if the rule does not admit the request.
    pub fn check(resolved: Resolved<'_>) -> Result<Self, Refusal> {
        let (request, route, resolution) = resolved.into_parts();
        let visitor = visitor(&request, route, resolution)?;
        Ok(Self { request, route: Arc::clone(route), visitor })
    }

    /// Returns the visitor.
    pub fn visitor(&self) -> &Visitor {
        &self.visitor
    }

    pub(super) fn into_parts(self) -> (Sanitized, Arc<Route>, Visitor) {
        (self.request, self.route, self.visitor)
    }
}

fn visitor(request: &Sanitized, route: &Route, resolution: Option<Resolution>) -> Result<Visitor, Refusal> {
    Ok(match (route.access, resolution, &route.realm) {
        (Access::Public, _, _) => Visitor::Public,
        (Access::Required | Access::Session, Some(Resolution::Active(active)), Some(realm)) => {
            let user = active.session.user();
            let claims = &active.session.record().claims;
            let meets_requirements = route.require.iter().all(|requirement| requirement.holds(claims));
            let is_required = route.access == Access::Required;
            match user {
                UserState::Guest if is_required || !meets_requirements => {
                    return Err(unauthenticated(request, route, realm));
                }
                // Unreachable, since the configuration rejects `required` with a realm that configures no user claim.
                UserState::Unknown if is_required => return Err(unauthenticated(request, route, realm)),
                UserState::LoggedIn | UserState::Unknown if !meets_requirements => {
                    return Err(Refusal::Forbidden);
                }
                UserState::LoggedIn | UserState::Guest | UserState::Unknown => {
                    Visitor::Session(Box::new(active))
                }
            }
        }
        (Access::Required | Access::Session, Some(Resolution::Anonymous(_)), Some(realm)) => {
            return Err(unauthenticated(request, route, realm));
        }
        (Access::Optional, Some(Resolution::Active(active)), _) => Visitor::Session(Box::new(active)),
        (Access::Optional, Some(Resolution::Anonymous(Anonymous::Ambiguous)), _) => Visitor::Ambiguous,
        (Access::Optional, Some(Resolution::Anonymous(_)), _) => Visitor::Anonymous,
        (Access::Optional, Some(Resolution::Unavailable), Some(realm))
            if realm.on_store_error() == OnStoreError::Anonymous =>
        {
            Visitor::Unknown
        }
        (_, Some(Resolution::Throttled(wait)), _) => {
            return Err(Refusal::TooMany(wait));
        }
        // A client whose session cannot be looked up is neither admitted nor logged out.
        (Access::Required | Access::Session | Access::Optional, _, _) => {
            return Err(Refusal::StoreUnavailable);
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
        // A routed path begins with a single `/`, so the log-in page redirects back to this host.
        Some(after) => {
            let uri = utf8_percent_encode(request.target().as_str(), URI_COMPONENT);
            format!("{}{uri}{after}", login.before)
        }
    };
    HeaderValue::from_str(&text).ok()
}
