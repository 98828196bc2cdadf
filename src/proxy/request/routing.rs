//! Finds the route of a request.
//!
//! If the route merges slashes, the merged path replaces the path of the request. Every later step sees only the merged
//! path, so that access is decided on the path that is forwarded.

use std::sync::Arc;

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::inbound::Sanitized;
use super::navigation::is_navigation;
use super::policy_check::PolicyChecked;
use crate::proxy::model::Route;
use crate::proxy::refusal::Refusal;
use crate::route::{RouteMatch, Router};

/// The characters to percent-encode in a Location that is built from a request target: control and non-ASCII characters,
/// and characters with a special meaning in HTML or in browsers' URLs.
pub(in crate::proxy) const LOCATION_UNSAFE: &AsciiSet = &CONTROLS.add(b'"').add(b'<').add(b'>').add(b'\\');

/// A request with its route. Only [`Routed::find`] makes one.
#[derive(Debug)]
pub struct Routed<'g> {
    request: Sanitized,
    route: &'g Arc<Route>,
    is_merged: bool,
}

impl<'g> Routed<'g> {
    /// Finds the route of a request by its host, path and method.
    ///
    /// # Errors
    /// Returns a refusal if no route matches, or if the path is ambiguous.
    pub fn find(checked: PolicyChecked, router: &'g Router<Route>) -> Result<Self, Refusal> {
        let mut request = checked.into_request();
        let RouteMatch { route, merged } = router.find(request.host(), request.path(), request.method())?;
        let is_merged = merged.is_some();
        if let Some(path) = merged {
            request.replace_path(&path)?;
        }
        Ok(Self { request, route, is_merged })
    }

    /// Redirects browsers that load a page to its merged path, so that each page has one URL and relative links work.
    ///
    /// # Errors
    /// Returns the redirect.
    pub(in crate::proxy) fn check_canonical_path(&self) -> Result<(), Refusal> {
        if !self.is_merged || !is_navigation(&self.request) {
            return Ok(());
        }
        // The location begins with a single `/`, so it stays on this host.
        let location = utf8_percent_encode(self.request.target().as_str(), LOCATION_UNSAFE).to_string();
        match HeaderValue::from_str(&location) {
            Ok(location) => Err(Refusal::Merged(location)),
            Err(_) => Ok(()),
        }
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
