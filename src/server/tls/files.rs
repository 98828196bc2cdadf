//! The certificate and key files of a listener.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::TlsError;
use crate::config::TlsConfig;
use crate::config::environment::Environment;

/// The contents of all certificate, key and CA files of a listener, or why a file cannot be read.
#[derive(Clone)]
pub(super) struct Files(BTreeMap<PathBuf, Result<Vec<u8>, Arc<io::Error>>>);

impl Files {
    pub(super) fn read(config: &TlsConfig, environment: &dyn Environment) -> Self {
        let certificates = config.certificates.iter();
        let paths = certificates.flat_map(|certificate| {
            let ca = certificate.clients.as_ref().map(|rule| &rule.ca);
            [&certificate.cert, &certificate.key].into_iter().chain(ca)
        });
        let read = |path: &PathBuf| (path.clone(), environment.certificate(path).map_err(Arc::new));
        Self(paths.map(read).collect())
    }

    pub(super) fn get(&self, path: &Path) -> Result<&[u8], TlsError> {
        let unreadable = |error| TlsError::Unreadable { path: path.to_owned(), error };
        match self.0.get(path) {
            Some(Ok(content)) => Ok(content),
            Some(Err(error)) => Err(unreadable(Arc::clone(error))),
            None => Err(unreadable(Arc::new(io::ErrorKind::NotFound.into()))),
        }
    }

    /// Returns whether all contents are equal. Two unreadable files count as equal if their errors have
    /// the same kind.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((_, one), (_, other))| match (one, other) {
                (Ok(one), Ok(other)) => one == other,
                (Err(one), Err(other)) => one.kind() == other.kind(),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            })
    }
}

/// Shows paths only: the contents are secret.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
