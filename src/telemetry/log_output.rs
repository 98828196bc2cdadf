//! Where the access log's lines go: whole, or not at all.
//!
//! A write that fails, such as on a full disk, may have written its first part, which ends within a line.
//!
//! 1. In a regular file, that part of a line is cut off again, unless something was appended after it.
//! 2. Where that cannot be done, the rest of the line is kept and written before anything else.
//! 3. A file whose last line has no end, since a process was killed while it wrote, gets one before the next line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, StderrLock, StdoutLock, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another process may take for a write, before a line without an end is one that nobody ends.
const WRITING: Duration = Duration::from_millis(10);

/// Where lines go.
pub(super) struct LogOutput {
    target: LogTarget,
    /// What has to be written before the next line.
    pending: Vec<u8>,
    /// Whether that is the rest of a line.
    is_line: bool,
}

/// What lines are written to. The standard streams are written without the buffer of the standard library, which would
/// keep a part of what it could not write.
pub(super) enum LogTarget {
    Stdout(File),
    Stderr(File),
    File { file: File, path: PathBuf },
    Other(Box<dyn Write + Send>),
}

/// What became of some lines.
#[derive(Debug)]
pub(super) struct WriteOutcome {
    /// How many were written.
    pub(super) written: u64,
    /// How many were not.
    pub(super) dropped: u64,
    /// Why they were not.
    pub(super) error: Option<io::Error>,
}

impl LogTarget {
    /// # Errors
    /// Returns an error if there is no descriptor left.
    pub(super) fn stdout() -> io::Result<Self> {
        duplicate(io::stdout()).map(Self::Stdout)
    }

    /// # Errors
    /// Returns an error if there is no descriptor left.
    pub(super) fn stderr() -> io::Result<Self> {
        duplicate(io::stderr()).map(Self::Stderr)
    }

    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub(super) fn file(path: &Path) -> io::Result<Self> {
        Ok(Self::File { file: append(path)?, path: path.to_owned() })
    }
}

impl LogOutput {
    pub(super) fn new(target: LogTarget) -> Self {
        Self { target, pending: Vec::new(), is_line: false }
    }

    /// Ends the last line of the file with the next write, if it has no end. Called once before the first line.
    pub(super) fn begin(&mut self) {
        if let LogTarget::File { file, path } = &self.target
            && is_unfinished(file, path)
        {
            self.pending.push(b'\n');
        }
    }

    /// Writes `lines`, of which there are `count`.
    pub(super) fn write(&mut self, lines: &[u8], count: u64) -> WriteOutcome {
        // Nobody else's line comes in between.
        let _lock = self.target.lock();
        let finished = match self.finish() {
            Ok(finished) => finished,
            Err(error) => return WriteOutcome { written: 0, dropped: count, error: Some(error) },
        };
        let (done, error) = self.target.transfer(lines);
        if error.is_none() {
            return WriteOutcome { written: finished + count, dropped: 0, error };
        }
        let (head, tail) = lines.split_at_checked(done).unwrap_or((lines, &[]));
        let whole = u64::try_from(head.iter().filter(|&&byte| byte == b'\n').count()).unwrap_or(u64::MAX);
        let mut dropped = count.saturating_sub(whole);
        let torn = head.iter().rev().take_while(|&&byte| byte != b'\n').count();
        if torn > 0 && !self.target.undo(torn) {
            self.pending.extend(tail.iter().take_while(|&&byte| byte != b'\n'));
            self.pending.push(b'\n');
            self.is_line = true;
            dropped = dropped.saturating_sub(1);
        }
        WriteOutcome { written: finished + whole, dropped, error }
    }

    /// Writes what has to be written before the next line. Returns how many lines were completed by that.
    ///
    /// # Errors
    /// Returns an error if it could not be written to its end.
    pub(super) fn finish(&mut self) -> io::Result<u64> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let (done, error) = self.target.transfer(&self.pending);
        self.pending.drain(..done.min(self.pending.len()));
        error.map_or_else(|| Ok(u64::from(std::mem::take(&mut self.is_line))), Err)
    }

    /// Opens the file again, by its name. Returns how many lines remain incomplete in the old one.
    ///
    /// # Errors
    /// Returns an error if it cannot be opened; the old file stays.
    pub(super) fn reopen(&mut self) -> io::Result<u64> {
        let LogTarget::File { file, path } = &mut self.target else { return Ok(0) };
        *file = append(path)?;
        let incomplete = self.incomplete();
        self.pending.clear();
        self.is_line = false;
        self.begin();
        Ok(incomplete)
    }

    /// Returns how many lines have been written in part.
    pub(super) fn incomplete(&self) -> u64 {
        u64::from(self.is_line)
    }

    /// The file's path, for the log.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.target {
            LogTarget::File { path, .. } => Some(path),
            LogTarget::Stdout(_) | LogTarget::Stderr(_) | LogTarget::Other(_) => None,
        }
    }
}

/// Held while lines are written to a standard stream.
#[expect(dead_code, reason = "the locks are held, not used")]
enum StreamLock {
    Stdout(StdoutLock<'static>),
    Stderr(StderrLock<'static>),
    None,
}

impl LogTarget {
    fn lock(&self) -> StreamLock {
        match self {
            Self::Stdout(_) => StreamLock::Stdout(io::stdout().lock()),
            Self::Stderr(_) => StreamLock::Stderr(io::stderr().lock()),
            Self::File { .. } | Self::Other(_) => StreamLock::None,
        }
    }

    /// Writes `bytes`. Returns how many of them were written, and why it stopped before the end.
    fn transfer(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let writer: &mut dyn Write = match self {
            Self::Stdout(file) | Self::Stderr(file) | Self::File { file, .. } => file,
            Self::Other(writer) => writer,
        };
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match writer.write(rest) {
                Ok(0) => return (done, Some(io::ErrorKind::WriteZero.into())),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    /// Removes the last `torn` bytes that were written. Returns whether it did.
    fn undo(&mut self, torn: usize) -> bool {
        match self {
            Self::Stdout(file) | Self::Stderr(file) | Self::File { file, .. } => {
                cut(file, torn).unwrap_or(false)
            }
            Self::Other(_) => false,
        }
    }
}

fn duplicate(stream: impl AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Cuts the last `torn` bytes off a regular file, if its end is where this process has just written.
fn cut(file: &mut File, torn: usize) -> io::Result<bool> {
    let position = file.stream_position()?;
    let metadata = file.metadata()?;
    let torn = u64::try_from(torn).unwrap_or(u64::MAX);
    if !metadata.is_file() || metadata.len() != position || position < torn {
        return Ok(false);
    }
    file.set_len(position - torn)?;
    file.seek(SeekFrom::Start(position - torn))?;
    Ok(true)
}

/// Returns whether the file's last line has no end, nor gets one from another process that is just writing it.
fn is_unfinished(file: &File, path: &Path) -> bool {
    // A pipe would be read here, and waited for.
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let is_unfinished = || matches!(last_byte(path), Ok(Some(byte)) if byte != b'\n');
    if !is_file || !is_unfinished() {
        return false;
    }
    std::thread::sleep(WRITING);
    is_unfinished()
}

fn last_byte(path: &Path) -> io::Result<Option<u8>> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(Some(u8::from_ne_bytes(byte)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    /// Something that takes only so many more bytes.
    #[derive(Clone)]
    struct Limited(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Limited {
        fn with_room(room: usize) -> Self {
            Self(Arc::new(Mutex::new((room, Vec::new()))))
        }

        fn set_room(&self, room: usize) {
            self.0.lock().unwrap().0 = room;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().1.clone()).unwrap()
        }
    }

    impl Write for Limited {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, text) = &mut *self.0.lock().unwrap();
            if *room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(*room);
            *room -= taken;
            text.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn rest_of_a_torn_line_comes_before_the_next_line() {
        let limited = Limited::with_room(6);
        let mut output = LogOutput::new(LogTarget::Other(Box::new(limited.clone())));
        let torn = output.write(b"one\ntwo\nthree\n", 3);
        assert_eq!((torn.written, torn.dropped, torn.error.is_some()), (1, 1, true));
        assert_eq!(limited.text(), "one\ntw");
        let still_full = output.write(b"four\n", 1);
        assert_eq!((still_full.written, still_full.dropped), (0, 1));
        limited.set_room(100);
        let whole = output.write(b"five\n", 1);
        assert_eq!((whole.written, whole.dropped, whole.error.is_none()), (2, 0, true));
        assert_eq!(limited.text(), "one\ntwo\nfive\n");
    }

    #[test]
    fn line_without_an_end_is_ended_before_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for (before, after) in [("", "a\n"), ("x\n", "x\na\n"), ("x\nhalf", "x\nhalf\na\n")] {
            std::fs::write(&path, before).unwrap();
            let mut output = LogOutput::new(LogTarget::file(&path).unwrap());
            output.begin();
            let written = output.write(b"a\n", 1);
            assert_eq!((written.written, written.dropped), (1, 0));
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }

    #[test]
    fn only_what_was_just_written_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = append(&path).unwrap();
        file.write_all(b"one\nhalf").unwrap();
        assert!(cut(&mut file, 4).unwrap());
        file.write_all(b"two\nhalf").unwrap();
        append(&path).unwrap().write_all(b"of another process\n").unwrap();
        assert!(!cut(&mut file, 4).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\nhalfof another process\n");
    }

    proptest! {
        #[test]
        fn lines_are_whole_and_counted_however_writes_fail(
            batches in prop::collection::vec((1..5_usize, 0..40_usize), 1..20),
        ) {
            let limited = Limited::with_room(0);
            let mut output = LogOutput::new(LogTarget::Other(Box::new(limited.clone())));
            let (mut written, mut dropped, mut number) = (0, 0, 0);
            for (lines, room) in batches {
                let mut batch = String::new();
                for _ in 0..lines {
                    number += 1;
                    batch.push_str(&format!("line {number} {number}\n"));
                }
                limited.set_room(room);
                let outcome = output.write(batch.as_bytes(), lines as u64);
                prop_assert_eq!(outcome.error.is_none(), outcome.dropped == 0 && output.pending.is_empty());
                written += outcome.written;
                dropped += outcome.dropped;
            }
            limited.set_room(1000);
            written += output.finish().unwrap();
            prop_assert_eq!(written + dropped, number);
            let text = limited.text();
            prop_assert_eq!(text.lines().count() as u64, written);
            for line in text.lines() {
                let (one, other) = line.strip_prefix("line ").unwrap().split_once(' ').unwrap();
                prop_assert_eq!(one, other);
            }
        }
    }
}
