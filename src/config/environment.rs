//! Access to environment variables, files and the time, behind a trait, so that parsing a file into a
//! [`Config`](super::Config) does no IO itself.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::time::{Clock, Timestamp};

/// Access to the secrets and certificates that a configuration file refers to, the number of cores, and the time.
pub trait Environment {
    /// Returns the number of cores that this process may use.
    fn cores(&self) -> usize;

    /// Returns the time, for warnings about expired certificates.
    fn now(&self) -> Timestamp;

    /// Returns the value of an environment variable, if it is set.
    fn variable(&self, name: &str) -> Option<Vec<u8>>;

    /// Returns the content of a small file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is too large.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Returns the content of a certificate or key file. The listener reloads such a file when it changes, so the
    /// change does not reload the configuration.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is too large.
    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path)
    }
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Environment for System {
    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn now(&self) -> Timestamp {
        Clock.wall()
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        // No variable can have an invalid name, and some functions of the standard library panic on such a name.
        let is_valid = !name.is_empty() && !name.contains(['=', '\0']);
        is_valid.then(|| std::env::var_os(name))?.map(|value| value.into_encoded_bytes())
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        /// Maximum size: more than any configuration or key needs. A wrong path may refer to an endless device.
        const LIMIT: u64 = 1024 * 1024;

        let mut content = Vec::new();
        File::open(path)?.take(LIMIT + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LIMIT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(content)
    }
}
