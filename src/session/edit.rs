//! How the claims of a session change: pure, so that a change can be made again of a row that has moved on.

use crate::claims::Claims;

/// How claims change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// An RFC 7396 merge patch, and flash messages to append.
    Apply {
        /// The patch; empty: none.
        patch: Claims,
        /// The messages.
        flash: Vec<String>,
    },
    /// Flash messages are taken out, and a CSRF token is made if there is none.
    Visit {
        /// Messages are taken out, as many as fit into a header of this many bytes.
        flash: Option<usize>,
        /// The token to put in if there is none.
        csrf: Option<String>,
    },
}

/// Claims after an edit.
pub(super) struct Merged {
    pub(super) claims: Claims,
    /// The messages that were taken out.
    pub(super) flash: Vec<String>,
}

impl Merged {
    pub(super) fn same(claims: &Claims) -> Self {
        Self { claims: claims.clone(), flash: Vec::new() }
    }
}

/// The claims after `edits`; none if they change nothing.
pub(super) fn merged(claims: &Claims, edits: &[Edit]) -> Option<Merged> {
    let mut merged = Merged::same(claims);
    for edit in edits {
        match edit {
            Edit::Apply { patch, flash } => {
                super::patch::merge(&mut merged.claims, patch);
                super::flash::append(&mut merged.claims, flash);
            }
            Edit::Visit { flash, csrf } => {
                if let Some(budget) = flash {
                    merged.flash = super::flash::pop(&mut merged.claims, *budget);
                    // The request goes on with its session, which would end without any claim.
                    if merged.claims.is_empty() {
                        super::flash::put_empty(&mut merged.claims);
                    }
                }
                if let Some(token) = csrf
                    && super::csrf::token(&merged.claims).is_none()
                {
                    super::csrf::put(&mut merged.claims, token);
                }
            }
        }
    }
    (merged.claims != *claims).then_some(merged)
}
