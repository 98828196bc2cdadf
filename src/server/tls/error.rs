//! Errors in a listener's certificates and keys.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::server::VerifierBuilderError;

use crate::tls::PemError;

/// Error in a listener's certificates and keys.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("`{}` cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        error: Arc<std::io::Error>,
    },
    /// A file has invalid contents.
    #[error("`{}` {error}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The error in its contents.
        error: PemError,
    },
    /// The certificate authorities for clients cannot be used.
    #[error("the certificate authorities for clients: {0}")]
    Clients(#[from] VerifierBuilderError),
    /// rustls cannot be configured, for example because the system provides no random bytes for the ticket keys.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// No certificate is configured.
    #[error("no certificate is configured")]
    Nothing,
}
