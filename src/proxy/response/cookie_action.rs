//! What a response does with the session cookie.

use std::sync::Arc;

use crate::proxy::model::Visitor;
use crate::session::{MutationOutcome, Session};

/// What a response does with the session cookie.
#[derive(Debug)]
pub(in crate::proxy) enum CookieAction {
    /// Nothing.
    None,
    /// The browser is sent its cookie again: the session was reissued, or written before the request was forwarded.
    Reissue,
    /// The browser is sent the cookie of the session that the upstream's commands made, or its removal.
    Mutated(MutationOutcome),
}

impl CookieAction {
    /// Returns the session that the response belongs to: the visitor's, or the one that the upstream's commands made.
    pub(in crate::proxy) fn session(&self, visitor: Visitor) -> Option<Arc<Session>> {
        match (self, visitor) {
            (Self::Mutated(MutationOutcome::Updated(updated)), _) => Some(Arc::clone(&updated.session)),
            (Self::Mutated(MutationOutcome::Ended), _) => None,
            (_, Visitor::Session(active)) => Some(active.session),
            (_, Visitor::Public | Visitor::Anonymous | Visitor::Unknown) => None,
        }
    }
}
