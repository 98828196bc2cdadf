//! The effect of a response on the session cookie.

use std::sync::Arc;

use crate::proxy::model::Visitor;
use crate::session::{MutationOutcome, Session};

/// The effect of a response on the session cookie.
#[derive(Debug)]
pub(in crate::proxy) enum CookieAction {
    /// The response has no effect on the cookie.
    None,
    /// The response sends the cookie again, because the session was reissued, or written before the request was
    /// forwarded.
    Reissue,
    /// The response sends the cookie of the session as changed by the upstream's commands, or removes it.
    Mutated(MutationOutcome),
}

impl CookieAction {
    /// Returns the session of the response: the visitor's, or the result of the upstream's commands.
    pub(in crate::proxy) fn session(&self, visitor: Visitor) -> Option<Arc<Session>> {
        match (self, visitor) {
            (Self::Mutated(MutationOutcome::Updated(updated)), _) => Some(Arc::clone(&updated.session)),
            (Self::Mutated(MutationOutcome::Ended), _) => None,
            (_, Visitor::Session(active)) => Some(active.session),
            (_, Visitor::Public | Visitor::Anonymous | Visitor::Ambiguous | Visitor::Unknown) => None,
        }
    }
}
