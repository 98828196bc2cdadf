//! What a configuration takes from outside its file. Behind a trait, so that reading a file into a
//! [`Config`](super::Config) does no IO of its own.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use crate::time::{Clock, Timestamp};

/// Secrets that a file only names, the size of the machine, and the time.
pub trait Environment {
    /// How many cores this process may run on.
    fn cores(&self) -> usize;

    /// The time: whether a certificate has expired is worth a word.
    fn now(&self) -> Timestamp;

    /// The value of an environment variable, if it is set.
    fn variable(&self, name: &str) -> Option<Vec<u8>>;

    /// The content of a small file.
    ///
    /// # Errors
    /// If it cannot be read, or is not small.
    fn file(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The content of a file of a certificate or its key, which whoever uses it follows: a change of it is no change of
    /// the configuration.
    ///
    /// # Errors
    /// The same.
    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.file(path)
    }
}

/// The process's own environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Environment for System {
    fn cores(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn now(&self) -> Timestamp {
        Clock.now().wall
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        // The standard library panics at such a name in some calls, and no variable has one.
        let possible = !name.is_empty() && !name.contains(['=', '\0']);
        possible.then(|| std::env::var_os(name))?.map(|value| value.into_encoded_bytes())
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        /// More than any configuration or key needs; a wrong path may name something endless.
        const LIMIT: u64 = 1024 * 1024;

        let mut content = Vec::new();
        File::open(path)?.take(LIMIT + 1).read_to_end(&mut content)?;
        if content.len() as u64 > LIMIT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"));
        }
        Ok(content)
    }
}
