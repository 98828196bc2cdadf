//! Edits of a session's claims. They are pure functions, so that they can be applied again if the row has been modified
//! concurrently.

use crate::claims::Claims;

/// An edit of a session's claims.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Applies a merge patch (RFC 7396) and appends flash messages.
    Apply {
        /// The patch, which may be empty.
        patch: Claims,
        /// The messages.
        flash: Vec<String>,
    },
    /// Prepares a request: takes flash messages out of the session, and adds a CSRF token to one without.
    Prepare {
        /// The messages to take out: as many as fit into a header of this many bytes. `None` takes none out.
        flash: Option<usize>,
        /// The token to add if the session has none.
        csrf: Option<String>,
    },
}

/// The result of edits.
pub(super) struct EditedClaims {
    pub(super) claims: Claims,
    /// The messages that were taken out.
    pub(super) flash: Vec<String>,
}

impl EditedClaims {
    pub(super) fn unchanged(claims: &Claims) -> Self {
        Self { claims: claims.clone(), flash: Vec::new() }
    }
}

/// Applies `edits` to `claims`. Returns `None` if they change nothing.
pub(super) fn apply(claims: &Claims, edits: &[Edit]) -> Option<EditedClaims> {
    let mut edited = EditedClaims::unchanged(claims);
    for edit in edits {
        match edit {
            Edit::Apply { patch, flash } => {
                super::patch::merge(&mut edited.claims, patch);
                super::flash::append(&mut edited.claims, flash);
            }
            Edit::Prepare { flash, csrf } => {
                if let Some(budget) = flash {
                    edited.flash = super::flash::pop(&mut edited.claims, *budget);
                    // Without any claim, the session would end before the request is forwarded.
                    if edited.claims.is_empty() {
                        super::flash::set_empty(&mut edited.claims);
                    }
                }
                if let Some(token) = csrf
                    && super::csrf::token(&edited.claims).is_none()
                {
                    super::csrf::set(&mut edited.claims, token);
                }
            }
        }
    }
    (edited.claims != *claims).then_some(edited)
}
