//! The files of a configuration: the file itself, and those that it refers to, except for the certificates and keys of
//! listeners, which the listeners reload. A [`SourceWatcher`] detects changes by polling.
//!
//! 1. Files are compared with the content that was read, so a change during the read, or right after it, is detected.
//! 2. A change is reported only once the files look the same in two polls in a row, so that a file that is still being
//!    written is not read. Half of a file may be a valid configuration.
//! 3. A file with the same content has not changed, whatever its modification time.
//!
//! Symbolic links are followed in every poll, so pointing a link at another file is a change.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::environment::{Environment, System};
use crate::time::Timestamp;

/// A file's metadata that changes when its content does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The SHA-256 digest of a file's content. `None` if it could not be read.
type Content = Option<[u8; 32]>;

/// The files that were read, with their metadata and content at that time.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: BTreeMap<PathBuf, (Option<Stamp>, Content)>,
}

/// The environment of this process, which records the files that are read.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    sources: Mutex<Sources>,
}

/// Detects changes of files by polling.
#[derive(Debug)]
pub struct SourceWatcher {
    known: Sources,
    /// The metadata at the last poll, if it differed from `known`.
    pending: Option<Vec<Option<Stamp>>>,
}

impl Recorder {
    pub(super) fn into_sources(self) -> Sources {
        self.sources.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Environment for Recorder {
    fn cores(&self) -> usize {
        System.cores()
    }

    fn now(&self) -> Timestamp {
        System.now()
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        System.variable(name)
    }

    fn certificate(&self, path: &Path) -> io::Result<Vec<u8>> {
        System.certificate(path)
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        // Taken before the read, so that a write during it is detected.
        let stamp = Stamp::read(path);
        let read = System.file(path);
        let content = read.as_ref().ok().map(|bytes| Sha256::digest(bytes).into());
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.files.insert(path.to_owned(), (stamp, content));
        read
    }
}

impl SourceWatcher {
    /// Creates a watcher of the files that were read.
    pub fn new(sources: Sources) -> Self {
        Self { known: sources, pending: None }
    }

    /// Checks the files. Returns whether they have changed, and look the same as in the last poll.
    pub fn poll(&mut self) -> bool {
        let now: Vec<_> = self.known.files.keys().map(|path| Stamp::read(path)).collect();
        if now.iter().eq(self.known.files.values().map(|(stamp, _)| stamp)) {
            self.pending = None;
            return false;
        }
        if self.pending.as_ref() != Some(&now) {
            self.pending = Some(now);
            return false;
        }
        let read = |path: &PathBuf| System.file(path).ok().map(|bytes| Sha256::digest(bytes).into());
        if self.known.files.iter().any(|(path, (_, content))| read(path) != *content) {
            return true;
        }
        for ((known, _), stamp) in self.known.files.values_mut().zip(now) {
            *known = stamp;
        }
        self.pending = None;
        false
    }
}

impl Stamp {
    fn read(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(paths: &[&Path]) -> Sources {
        let recorder = Recorder::default();
        for path in paths {
            let _read = recorder.file(path);
        }
        recorder.into_sources()
    }

    #[test]
    fn change_is_reported_when_two_polls_agree() {
        let directory = tempfile::tempdir().unwrap();
        let [file, secret] = ["gateway.toml", "secret"].map(|name| directory.path().join(name));
        fs::write(&file, "one").unwrap();
        let mut watcher = SourceWatcher::new(sources(&[&file, &secret]));
        assert!(!watcher.poll() && !watcher.poll());

        fs::write(&file, "one and").unwrap();
        assert!(!watcher.poll());
        fs::write(&file, "one and two").unwrap();
        assert!(!watcher.poll(), "the file is still being written");
        assert!(watcher.poll());

        let mut watcher = SourceWatcher::new(sources(&[&file, &secret]));
        assert!(!watcher.poll() && !watcher.poll());
        fs::write(&secret, "a new file").unwrap();
        assert!(!watcher.poll());
        assert!(watcher.poll());
    }

    #[test]
    fn same_content_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        fs::write(&file, "one").unwrap();
        let mut watcher = SourceWatcher::new(sources(&[&file]));

        fs::remove_file(&file).unwrap();
        assert!(!watcher.poll());
        fs::write(&file, "one").unwrap();
        assert!(!watcher.poll() && !watcher.poll() && !watcher.poll());
        assert!(watcher.pending.is_none());
    }

    #[test]
    fn new_target_of_a_symbolic_link_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let [link, first, second] = ["link", "first", "second"].map(|name| directory.path().join(name));
        fs::write(&first, "one").unwrap();
        fs::write(&second, "two").unwrap();
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let mut watcher = SourceWatcher::new(sources(&[&link]));

        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert!(!watcher.poll());
        assert!(watcher.poll());
    }
}
