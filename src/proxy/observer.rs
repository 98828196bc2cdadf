//! Observers of the decision on a request: the record for the access log, and `sessiongate explain`.

use std::sync::Arc;

use crate::session::{LookupSource, Resolution};
use crate::time::Now;

use super::model::{Route, Visitor};
use super::request::Sanitized;

/// Receives the results of the steps of [`decide`](super::decide).
pub(super) trait Observer {
    /// Receives the request without the headers that clients may not send.
    fn sanitized(&mut self, request: &Sanitized);
    /// Receives the route that matches the request.
    fn routed(&mut self, route: &Arc<Route>);
    /// Receives the resolution of the request's cookies, and the source of the row. The lookup began at `began`.
    fn resolved(&mut self, route: &Route, resolution: &Resolution, source: LookupSource, began: Now);
    /// Receives the visitor of a request that the access rule admits.
    fn admitted(&mut self, visitor: &Visitor);
}
