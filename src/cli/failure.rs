//! The error of a command: a message, an optional hint, and the exit code. Commands return a [`Failure`]; only
//! [`super::run`] prints it.

use std::io;
use std::process::ExitCode;

use crate::session::CreateError;
use crate::store::schema::SchemaError;
use crate::store::{StoreError, StoreOpenError};

pub(crate) type CommandResult = Result<(), Failure>;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The reader of the output has closed the pipe. The command succeeds.
    BrokenPipe,
    /// Something was not found, or an operation was refused.
    Refused,
    /// The command line or the configuration is wrong.
    Usage,
    /// A bug, or an error of the operating system.
    Internal,
}

impl Failure {
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, message: message.into(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into(), hint: None }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, message: message.into(), hint: None }
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl Kind {
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::SUCCESS,
            Self::Refused => ExitCode::from(1),
            Self::Usage => ExitCode::from(2),
            Self::Internal => ExitCode::from(3),
        }
    }
}

/// Converts an error from writing to stdout or stderr. Other IO errors have their own messages.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::BrokenPipe } else { Kind::Internal };
        Self { kind, message: format!("cannot write the output: {error}"), hint: None }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::NoSuchTable(_) => {
                Self::refused(message).hint("`sessiongate table create` creates it")
            }
            StoreError::Throttled
            | StoreError::Unavailable(_)
            | StoreError::Denied(_)
            | StoreError::TooLarge
            | StoreError::Invalid(_) => Self::refused(message),
        }
    }
}

impl From<StoreOpenError> for Failure {
    fn from(error: StoreOpenError) -> Self {
        let message = error.to_string();
        match error {
            StoreOpenError::NoRegion
            | StoreOpenError::NoCredentials { .. }
            | StoreOpenError::Endpoint
            | StoreOpenError::File { .. }
            | StoreOpenError::NotADatabase(_)
            | StoreOpenError::NotLoopback(_)
            | StoreOpenError::NotBuilt => Self::usage(message),
            StoreOpenError::Engine(_) | StoreOpenError::Listen { .. } => Self::refused(message),
        }
    }
}

impl From<SchemaError> for Failure {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Store(error) => error.into(),
            SchemaError::Missing(_)
            | SchemaError::WrongKey { .. }
            | SchemaError::NotActive { .. }
            | SchemaError::WrongTtl { .. } => Self::refused(error.to_string()),
        }
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Store(error) => error.into(),
            CreateError::Empty => Self::usage(error.to_string()).hint("for example `--claim user=alice`"),
            CreateError::Encode(_) => Self::refused(error.to_string()),
            CreateError::Randomness(_) | CreateError::IdExists => Self::internal(error.to_string()),
        }
    }
}
