//! The files that a configuration comes from: the file itself, and those that it names. A [`Watch`] tells when they have
//! changed and have come to rest.
//!
//! 1. What was read is what counts: a file that changes while it is read, or right after, has changed.
//! 2. A file that is being written is not read: what has changed must look the same twice in a row. Half of a file may
//!    well be a configuration, too.
//! 3. A file whose content is what it was has not changed, whatever its dates say.
//!
//! Paths are followed through symbolic links every time, so that a link that is pointed elsewhere counts as a change.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::environment::{Environment, System};
use crate::time::Timestamp;

/// What a look at a file shows without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// A digest of a file's content; none: it could not be read.
type Content = Option<[u8; 32]>;

/// Files as they were when they were read.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: BTreeMap<PathBuf, (Option<Stamp>, Content)>,
}

/// The process's environment, taking down which files are read.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    sources: Mutex<Sources>,
}

/// Looks after files.
#[derive(Debug)]
pub struct Watch {
    known: Sources,
    /// What the last look showed, if that was not what is known.
    seen: Option<Vec<Option<Stamp>>>,
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
        // Before it is read: what is written from now on shows.
        let stamp = Stamp::of(path);
        let read = System.file(path);
        let content = read.as_ref().ok().map(|bytes| Sha256::digest(bytes).into());
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.files.insert(path.to_owned(), (stamp, content));
        read
    }
}

impl Watch {
    /// Looks after the files of what was read last.
    pub fn new(sources: Sources) -> Self {
        Self { known: sources, seen: None }
    }

    /// Looks at the files; whether they have changed, and are as they were at the last look.
    pub fn look(&mut self) -> bool {
        let now: Vec<_> = self.known.files.keys().map(|path| Stamp::of(path)).collect();
        if now.iter().eq(self.known.files.values().map(|(stamp, _)| stamp)) {
            self.seen = None;
            return false;
        }
        if self.seen.as_ref() != Some(&now) {
            self.seen = Some(now);
            return false;
        }
        let read = |path: &PathBuf| System.file(path).ok().map(|bytes| Sha256::digest(bytes).into());
        if self.known.files.iter().any(|(path, (_, content))| read(path) != *content) {
            return true;
        }
        for ((known, _), stamp) in self.known.files.values_mut().zip(now) {
            *known = stamp;
        }
        self.seen = None;
        false
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
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
    fn a_change_counts_when_it_has_come_to_rest() {
        let directory = tempfile::tempdir().unwrap();
        let [file, secret] = ["gateway.toml", "secret"].map(|name| directory.path().join(name));
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(sources(&[&file, &secret]));
        assert!(!watch.look() && !watch.look());

        fs::write(&file, "one and").unwrap();
        assert!(!watch.look());
        fs::write(&file, "one and two").unwrap();
        assert!(!watch.look(), "it is still being written");
        assert!(watch.look());

        let mut watch = Watch::new(sources(&[&file, &secret]));
        assert!(!watch.look() && !watch.look());
        fs::write(&secret, "it was not there before").unwrap();
        assert!(!watch.look());
        assert!(watch.look());
    }

    #[test]
    fn the_same_content_is_no_change() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("gateway.toml");
        fs::write(&file, "one").unwrap();
        let mut watch = Watch::new(sources(&[&file]));

        fs::remove_file(&file).unwrap();
        assert!(!watch.look());
        fs::write(&file, "one").unwrap();
        assert!(!watch.look() && !watch.look() && !watch.look());
        assert!(watch.seen.is_none());
    }

    #[test]
    fn a_link_that_is_pointed_elsewhere_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let [link, first, second] = ["link", "first", "second"].map(|name| directory.path().join(name));
        fs::write(&first, "one").unwrap();
        fs::write(&second, "two").unwrap();
        std::os::unix::fs::symlink(&first, &link).unwrap();
        let mut watch = Watch::new(sources(&[&link]));

        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&second, &link).unwrap();
        assert!(!watch.look());
        assert!(watch.look());
    }
}
