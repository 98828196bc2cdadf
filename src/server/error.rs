//! Errors of starting the gateway and of applying a new configuration.

use super::listener::ListenError;
use crate::store::schema::SchemaError;

/// Error of starting the gateway or of applying a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A realm's table does not exist, does not suit the realm's format, or cannot be described or created.
    #[error("realm `{realm}`: {error}")]
    Table {
        /// The realm.
        realm: String,
        /// The error in its table.
        error: SchemaError,
    },
    /// A listener cannot be opened.
    #[error(transparent)]
    Open(#[from] ListenError),
    /// A thread, a socket, a file or random bytes are not available, or TLS to an upstream cannot be set up.
    #[error("{what}: {error}")]
    System {
        /// The resource, for the message.
        what: &'static str,
        /// The reason.
        error: std::io::Error,
    },
}
