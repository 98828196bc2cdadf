//! The route that takes a request.

use std::sync::Arc;

use super::inbound::Sanitized;
use super::policy_check::PolicyChecked;
use crate::proxy::model::Route;
use crate::proxy::refusal::Refusal;
use crate::route::Router;

/// A request with the route that takes it. Only [`Routed::find`] makes one.
#[derive(Debug)]
pub struct Routed<'g> {
    request: Sanitized,
    route: &'g Arc<Route>,
}

impl<'g> Routed<'g> {
    /// Finds the route of a request by its host, path and method.
    ///
    /// # Errors
    /// Returns a refusal if no route takes it, or if its path could be read as another path.
    pub fn find(checked: PolicyChecked, router: &'g Router<Route>) -> Result<Self, Refusal> {
        let request = checked.into_request();
        let route = router.find(request.host(), request.path(), request.method())?;
        Ok(Self { request, route })
    }

    /// Returns the request.
    pub fn request(&self) -> &Sanitized {
        &self.request
    }

    /// Returns the route.
    pub fn route(&self) -> &'g Arc<Route> {
        self.route
    }

    pub(super) fn into_parts(self) -> (Sanitized, &'g Arc<Route>) {
        (self.request, self.route)
    }
}
