//! Why a gateway does not start, or a new configuration cannot be applied.

use super::listener::ListenError;
use crate::store::schema::SchemaError;

/// Why a gateway does not start, or a new configuration cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A realm's table does not exist, or has another schema than its format needs.
    #[error("realm `{realm}`: {error}")]
    Table {
        /// The realm.
        realm: String,
        /// What is wrong with its table.
        error: SchemaError,
    },
    /// A listener cannot be opened.
    #[error(transparent)]
    Open(#[from] ListenError),
    /// The operating system refuses a thread, a socket or randomness.
    #[error("{what}: {error}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The operating system's error.
        error: std::io::Error,
    },
}
