//! The output of the access log, which contains whole lines only.
//!
//! A write that fails, for example on a full disk, may have written part of a line.
//!
//! 1. In a regular file the partial line is truncated, unless another process has appended something after it.
//! 2. Elsewhere the rest of the line is kept and written before anything else.
//! 3. If a process was killed while it wrote and left a last line without a newline, the newline is written first.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, StderrLock, StdoutLock, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long to wait for another process to finish its last line before that line counts as abandoned.
const UNFINISHED_LINE_WAIT: Duration = Duration::from_millis(10);

/// Writes whole lines to a target.
pub(super) struct LogOutput {
    target: LogTarget,
    /// Bytes to write before the next line.
    pending: Vec<u8>,
    /// Whether `pending` is the rest of a partly written line, which is counted once it is complete.
    is_line: bool,
}

/// A destination of lines. The standard streams bypass the standard library's buffer, which would keep part of the data
/// after a failed write.
pub(super) enum LogTarget {
    Stdout(File),
    Stderr(File),
    File { file: File, path: PathBuf },
    Other(Box<dyn Write + Send>),
}

/// Result of writing a batch of lines.
#[derive(Debug)]
pub(super) struct WriteOutcome {
    /// Number of lines written, including one that was completed from an earlier batch.
    pub(super) written: u64,
    /// Number of lines dropped.
    pub(super) dropped: u64,
    /// The error that stopped the write.
    pub(super) error: Option<io::Error>,
}

impl LogTarget {
    /// Returns a duplicate of stdout's descriptor.
    ///
    /// # Errors
    /// Returns an error if the descriptor cannot be duplicated.
    pub(super) fn stdout() -> io::Result<Self> {
        duplicate(io::stdout()).map(Self::Stdout)
    }

    /// Returns a duplicate of stderr's descriptor.
    ///
    /// # Errors
    /// Returns an error if the descriptor cannot be duplicated.
    pub(super) fn stderr() -> io::Result<Self> {
        duplicate(io::stderr()).map(Self::Stderr)
    }

    /// Opens a file to append to, and creates it if it does not exist.
    ///
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

    /// Queues a newline if the file's last line has none. Called before the first line, and again for each
    /// reopened file.
    pub(super) fn begin(&mut self) {
        if let LogTarget::File { file, path } = &self.target
            && lacks_final_newline(file, path)
        {
            self.pending.push(b'\n');
        }
    }

    /// Writes `lines`, which contains `count` lines.
    pub(super) fn write(&mut self, lines: &[u8], count: u64) -> WriteOutcome {
        // The lock keeps other writers of this process from writing between these lines.
        let _lock = self.target.lock();
        let finished = match self.write_pending() {
            Ok(finished) => finished,
            Err(error) => return WriteOutcome { written: 0, dropped: count, error: Some(error) },
        };
        let (written, error) = self.target.write(lines);
        if error.is_none() {
            return WriteOutcome { written: finished + count, dropped: 0, error };
        }
        let (head, tail) = lines.split_at_checked(written).unwrap_or((lines, &[]));
        let whole = u64::try_from(head.iter().filter(|&&byte| byte == b'\n').count()).unwrap_or(u64::MAX);
        let mut dropped = count.saturating_sub(whole);
        let partial = head.iter().rev().take_while(|&&byte| byte != b'\n').count();
        if partial > 0 && !self.target.truncate_partial_line(partial) {
            self.pending.extend(tail.iter().take_while(|&&byte| byte != b'\n'));
            self.pending.push(b'\n');
            self.is_line = true;
            dropped = dropped.saturating_sub(1);
        }
        WriteOutcome { written: finished + whole, dropped, error }
    }

    /// Writes the pending bytes. Returns the number of lines that this completed: 0 or 1.
    ///
    /// # Errors
    /// Returns an error if not all pending bytes could be written.
    pub(super) fn write_pending(&mut self) -> io::Result<u64> {
        if self.pending.is_empty() {
            return Ok(0);
        }
        let (written, error) = self.target.write(&self.pending);
        self.pending.drain(..written.min(self.pending.len()));
        error.map_or_else(|| Ok(u64::from(std::mem::take(&mut self.is_line))), Err)
    }

    /// Reopens the file by its path, after a log rotation. Returns the number of lines left incomplete in the old file.
    ///
    /// # Errors
    /// Returns an error if the path cannot be opened. The old file then stays open.
    pub(super) fn reopen(&mut self) -> io::Result<u64> {
        let LogTarget::File { file, path } = &mut self.target else { return Ok(0) };
        *file = append(path)?;
        let incomplete = self.incomplete();
        self.pending.clear();
        self.is_line = false;
        self.begin();
        Ok(incomplete)
    }

    /// Returns the number of partly written lines: 0 or 1.
    pub(super) fn incomplete(&self) -> u64 {
        u64::from(self.is_line)
    }

    /// Returns the file's path, if the target is a file.
    pub(super) fn path(&self) -> Option<&Path> {
        match &self.target {
            LogTarget::File { path, .. } => Some(path),
            LogTarget::Stdout(_) | LogTarget::Stderr(_) | LogTarget::Other(_) => None,
        }
    }
}

/// Lock on a standard stream, held while lines are written to it.
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

    /// Writes `bytes`. Returns the number of bytes written, and the error if that is not all of them.
    fn write(&mut self, bytes: &[u8]) -> (usize, Option<io::Error>) {
        let writer: &mut dyn Write = match self {
            Self::Stdout(file) | Self::Stderr(file) | Self::File { file, .. } => file,
            Self::Other(writer) => writer,
        };
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            match writer.write(rest) {
                Ok(0) => return (written, Some(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Some(error)),
            }
        }
        (written, None)
    }

    /// Removes a partial line, the last `length` bytes that were written. Returns whether that was possible.
    fn truncate_partial_line(&mut self, length: usize) -> bool {
        match self {
            Self::Stdout(file) | Self::Stderr(file) | Self::File { file, .. } => {
                truncate_end(file, length).unwrap_or(false)
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

/// Truncates a regular file by `length` bytes, if this process wrote the file's last bytes. Returns whether it did.
fn truncate_end(file: &mut File, length: usize) -> io::Result<bool> {
    let position = file.stream_position()?;
    let metadata = file.metadata()?;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    if !metadata.is_file() || metadata.len() != position || position < length {
        return Ok(false);
    }
    file.set_len(position - length)?;
    file.seek(SeekFrom::Start(position - length))?;
    Ok(true)
}

/// Returns whether the file's last line has no newline, and no other process writes one shortly.
fn lacks_final_newline(file: &File, path: &Path) -> bool {
    // Reading the last byte of a pipe would block.
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let lacks_newline = || matches!(last_byte(path), Ok(Some(byte)) if byte != b'\n');
    if !is_file || !lacks_newline() {
        return false;
    }
    std::thread::sleep(UNFINISHED_LINE_WAIT);
    lacks_newline()
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

    /// Writer that accepts a limited number of bytes and then fails as a full disk does.
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
    fn rest_of_a_partial_line_is_written_before_the_next_line() {
        let limited = Limited::with_room(6);
        let mut output = LogOutput::new(LogTarget::Other(Box::new(limited.clone())));
        let partial = output.write(b"one\ntwo\nthree\n", 3);
        assert_eq!((partial.written, partial.dropped, partial.error.is_some()), (1, 1, true));
        assert_eq!(limited.text(), "one\ntw");
        let still_full = output.write(b"four\n", 1);
        assert_eq!((still_full.written, still_full.dropped), (0, 1));
        limited.set_room(100);
        let whole = output.write(b"five\n", 1);
        assert_eq!((whole.written, whole.dropped, whole.error.is_none()), (2, 0, true));
        assert_eq!(limited.text(), "one\ntwo\nfive\n");
    }

    #[test]
    fn missing_final_newline_is_written_before_the_next_line() {
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
    fn file_is_truncated_only_if_this_process_wrote_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut file = append(&path).unwrap();
        file.write_all(b"one\nhalf").unwrap();
        assert!(truncate_end(&mut file, 4).unwrap());
        file.write_all(b"two\nhalf").unwrap();
        append(&path).unwrap().write_all(b"of another process\n").unwrap();
        assert!(!truncate_end(&mut file, 4).unwrap());
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
            written += output.write_pending().unwrap();
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
