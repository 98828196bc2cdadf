//! Looks up the session that a request's cookies name.

use std::sync::Arc;

use http::header::COOKIE;
use smallvec::SmallVec;

use super::inbound::Sanitized;
use super::limits::LimitsChecked;
use super::rate_limit;
use crate::config::Access;
use crate::proxy::model::Route;
use crate::proxy::observer::Observer;
use crate::rate::Limiter;
use crate::session::{Resolution, cookie};
use crate::time::Now;

/// A request whose session has been looked up. Only `Resolved::resolve` makes one.
#[derive(Debug)]
pub struct Resolved<'g> {
    request: Sanitized,
    route: &'g Arc<Route>,
    /// `None` on a public route, where sessions are not looked up.
    resolution: Option<Resolution>,
}

impl<'g> Resolved<'g> {
    /// Looks up the session that the request's cookies name. Lookups of unknown ids count against `misses`.
    pub(in crate::proxy) async fn resolve(
        checked: LimitsChecked<'g>,
        misses: Option<&Arc<Limiter>>,
        now: Now,
        observer: &mut impl Observer,
    ) -> Self {
        let (request, route) = checked.into_parts();
        let Some(realm) = route.realm.as_ref().filter(|_| route.access != Access::Public) else {
            return Self { request, route, resolution: None };
        };
        let misses = rate_limit::client_limiter(misses, &request);
        let lines = request.fields().get_all(&COOKIE);
        let cookies: SmallVec<[&[u8]; 4]> =
            lines.flat_map(|line| cookie::values(line, realm.cookie_name())).collect();
        let (resolution, source) = realm.resolve(&cookies, misses, now).await;
        observer.resolved(route, &resolution, source, now);
        drop(cookies);
        Self { request, route, resolution: Some(resolution) }
    }

    pub(super) fn into_parts(self) -> (Sanitized, &'g Arc<Route>, Option<Resolution>) {
        (self.request, self.route, self.resolution)
    }
}
