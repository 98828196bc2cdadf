//! Cross-site request forgery: on a route with `csrf = true`, a request with an unsafe method must prove its origin.
//!
//! 1. GET, HEAD and OPTIONS are safe (RFC 9110, 9.2.1) and need no proof.
//! 2. `Sec-Fetch-Site: same-origin`, or `none` (a typed address or a bookmark), is proof: only the browser sets it.
//! 3. Without that header, an `Origin` with this site's scheme, host and port is proof.
//! 4. Any other request needs the session's token in `X-CSRF-Token`. The session keeps it in `_csrft_`, as Pyramid does.
//!    The upstream receives it as `X-Session-CSRF`, to write it into its pages.

use std::sync::Arc;

use http::header::{HOST, ORIGIN};
use http::{HeaderName, Method};

use super::handshake::{Handshake, UpgradeChecked};
use super::inbound::Sanitized;
use crate::fields::Fields;
use crate::headers::CSRF_TOKEN;
use crate::host::is_origin_of;
use crate::proxy::model::{Route, Visitor};
use crate::proxy::refusal::Refusal;
use crate::session::csrf;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request that has passed every check, and may be forwarded. Only [`Forwardable::check`] makes one.
#[derive(Debug)]
pub struct Forwardable {
    request: Sanitized,
    route: Arc<Route>,
    visitor: Visitor,
    handshake: Option<Handshake>,
}

impl Forwardable {
    /// Checks that a request with an unsafe method comes from this site, where its route requires it.
    ///
    /// # Errors
    /// Returns [`Refusal::CrossSite`] if it may come from another site.
    pub fn check(checked: UpgradeChecked) -> Result<Self, Refusal> {
        let (request, route, visitor, handshake) = checked.into_parts();
        if route.csrf {
            check(&request, &visitor)?;
        }
        Ok(Self { request, route, visitor, handshake })
    }

    /// Returns the route.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Returns the visitor.
    pub fn visitor(&self) -> &Visitor {
        &self.visitor
    }

    pub(super) fn visitor_mut(&mut self) -> &mut Visitor {
        &mut self.visitor
    }

    pub(super) fn into_parts(self) -> (Sanitized, Arc<Route>, Visitor, Option<Handshake>) {
        (self.request, self.route, self.visitor, self.handshake)
    }
}

fn check(request: &Sanitized, visitor: &Visitor) -> Result<(), Refusal> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_safe || is_same_origin(request.fields(), request.origin().site()) {
        return Ok(());
    }
    match (visitor.active(), request.fields().single(&CSRF_TOKEN)) {
        (Some(active), Some(token)) if csrf::matches(&active.session.record().claims, token) => Ok(()),
        (_, _) => Err(Refusal::CrossSite),
    }
}

/// Returns whether the request was made by a page of this site, which is given as its scheme, and its host and port.
fn is_same_origin(fields: &Fields, (scheme, host): (&str, &[u8])) -> bool {
    debug_assert!(!fields.contains(&HOST), "Host is removed from a sanitized request");
    if fields.contains(&SEC_FETCH_SITE) {
        return matches!(fields.single(&SEC_FETCH_SITE), Some(b"same-origin" | b"none"));
    }
    let Some(origin) = fields.single(&ORIGIN) else { return false };
    is_origin_of(origin, (scheme, host))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn same_origin_is_read_from_fetch_metadata_or_origin() {
        for (lines, expected) in [
            (&[][..], false),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site"), ("origin", "https://app.example")], false),
            (&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://app.example")], true),
            (&[("origin", "https://APP.example")], true),
            (&[("origin", "http://app.example")], false),
            (&[("origin", "https://app.example:8443")], false),
            (&[("origin", "https://app.example.evil")], false),
            (&[("origin", "https://evil/https://app.example")], false),
            (&[("origin", "null")], false),
        ] {
            let mut fields = Fields::new();
            for (name, value) in lines {
                fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            for host in [&b"app.example"[..], b"app.example:443"] {
                assert_eq!(is_same_origin(&fields, ("https", host)), expected, "{lines:?}");
            }
        }
    }
}
