//! The route's access rule: who gets through.
//!
//! [`Admitted`] is the only way on. That a route is public, or that a request without a session gets through, is always
//! stated by the rule, never the result of a missing check.

use std::sync::Arc;

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::inbound::Sanitized;
use super::navigation::is_navigation;
use super::resolve::Resolved;
use crate::config::{Access, LoginTemplate, OnStoreError};
use crate::proxy::model::{Route, Visitor};
use crate::proxy::refusal::{Challenge, Refusal};
use crate::session::{Realm, Resolution, UserState};

/// The characters that JavaScript's `encodeURIComponent` leaves alone, less `!*'()`.
pub(in crate::proxy) const URI_COMPONENT: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A request that its route's access rule lets through. Only [`Admitted::check`] makes one.
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
    /// Returns the refusal that the rule makes of the request.
    pub fn check(resolved: Resolved<'_>) -> Result<Self, Refusal> {
        let (request, route, resolution) = resolved.into_parts();
        let visitor = visitor(&request, route, resolution)?;
        Ok(Self { request, route: Arc::clone(route), visitor })
    }

    /// Returns who the request comes from.
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
                // No configuration gets here: such a realm cannot be used with `required`.
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
        (Access::Optional, Some(Resolution::Anonymous(_)), _) => Visitor::Anonymous,
        (Access::Optional, Some(Resolution::Unavailable), Some(realm))
            if realm.on_store_error() == OnStoreError::Anonymous =>
        {
            Visitor::Unknown
        }
        (_, Some(Resolution::Throttled(wait)), _) => {
            return Err(Refusal::TooMany(wait));
        }
        // A client whose session cannot be looked up is neither let through nor logged out.
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
        // A path that is not refused begins with one `/`, so what comes back from the log-in page stays on this host.
        Some(after) => {
            let uri = utf8_percent_encode(request.target().as_str(), URI_COMPONENT);
            format!("{}{uri}{after}", login.before)
        }
    };
    HeaderValue::from_str(&text).ok()
}
