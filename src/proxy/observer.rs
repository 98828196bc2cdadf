//! What watches a request being decided: the access log's record of it, or `sessiongate explain`.

use std::sync::Arc;

use crate::session::{LookupSource, Resolution};
use crate::time::Now;

use super::model::{Route, Visitor};
use super::request::Sanitized;

/// Receives what each step of [`decide`](super::decide) finds out.
pub(super) trait Observer {
    /// The request without the headers that clients may not send.
    fn sanitized(&mut self, request: &Sanitized);
    /// The route that takes the request.
    fn routed(&mut self, route: &Arc<Route>);
    /// What the request's cookies resolved to, and where the row came from. The lookup began at `began`.
    fn resolved(&mut self, route: &Route, resolution: &Resolution, source: LookupSource, began: Now);
    /// The access rule lets the request through, as this visitor's.
    fn admitted(&mut self, visitor: &Visitor);
}
