//! Changes of a session, their outcomes and errors.

use std::sync::Arc;

use super::create::CreateError;
use super::edit::Edit;
use super::state::Session;
use crate::format::{EncodeFault, SessionId};
use crate::store::StoreError;

/// A change of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionMutation {
    /// Edits of the claims, applied in order.
    pub edits: Vec<Edit>,
    /// An action besides the edits.
    pub action: Option<Action>,
    /// The version that the session must have.
    pub if_version: Option<u64>,
}

/// An action on a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives the session a new id.
    Rotate,
    /// Ends the session.
    Destroy,
}

/// The outcome of a change.
#[derive(Clone, Debug)]
pub enum MutationOutcome {
    /// The session was created or changed.
    Updated(Box<UpdatedSession>),
    /// The session has ended.
    Ended,
    /// The change changes nothing.
    Unchanged,
}

impl MutationOutcome {
    /// Returns the label of the outcome, for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Updated(_) => "written",
            Self::Ended => "ended",
            Self::Unchanged => "nothing",
        }
    }
}

/// A session after a change.
#[derive(Clone, Debug)]
pub struct UpdatedSession {
    /// The session's id.
    pub id: SessionId,
    /// The session.
    pub session: Arc<Session>,
    /// The flash messages that were taken out.
    pub flash: Vec<String>,
}

/// The reason why a change was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// The session was modified concurrently: its version is not the required one, it has ended, or another writer
    /// modified it during every attempt.
    #[error("the session was modified concurrently")]
    Conflict,
    /// The format cannot represent the claims, or the row would be too large.
    #[error("the claims cannot be written: {0}")]
    Unwritable(String),
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The change did not finish: it took too long, including the wait for other changes of the session, or it panicked.
    #[error("the session could not be changed in time")]
    Unfinished,
    /// A row with the new random id exists.
    #[error("a session with the new id exists")]
    IdExists,
    /// The operating system cannot provide random bytes.
    #[error("the operating system provided no random bytes for a session id")]
    Randomness,
}

impl ChangeError {
    /// Returns the label of the reason, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unwritable(_) => "unwritable",
            Self::Store(_) => "store",
            Self::Unfinished | Self::IdExists => "contended",
            Self::Randomness => "randomness",
        }
    }
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge => Self::Unwritable(error.to_string()),
            StoreError::Throttled
            | StoreError::Unavailable(_)
            | StoreError::Denied(_)
            | StoreError::NoSuchTable(_)
            | StoreError::Invalid(_) => Self::Store(Arc::new(error)),
        }
    }
}

impl From<CreateError> for ChangeError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Randomness(_) => Self::Randomness,
            CreateError::Encode(fault) => fault.into(),
            CreateError::Store(error) => error.into(),
            CreateError::IdExists => Self::IdExists,
            CreateError::Empty => Self::Unwritable(error.to_string()),
        }
    }
}

impl From<EncodeFault> for ChangeError {
    fn from(fault: EncodeFault) -> Self {
        Self::Unwritable(fault.to_string())
    }
}
