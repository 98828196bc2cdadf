//! The access log: one line per request, written by a dedicated thread.
//!
//! Each worker formats its lines into its own buffer. The writer thread swaps the buffers for empty ones and writes them,
//! so a request never waits for a file, a pipe or another worker. The lines of one worker stay in order; lines of different
//! workers may be slightly out of order.
//!
//! 1. Each buffer is bounded. If the output is too slow or fails, lines are dropped and counted, and requests go on. When
//!    lines can be written again, the log says how many were dropped.
//! 2. Lines are written whole, even after a failed write (`log_output.rs`). Only reopening (`SIGUSR1`, a reload) and
//!    exit can leave a partial line, if its rest could not be written before. It then counts as dropped.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::config::{AccessLogTarget, LogFormat};
use crate::telemetry::line::{LogLine, TimestampWriter};
use crate::telemetry::log_output::{LogOutput, LogTarget, WriteOutcome};
use crate::telemetry::metrics::LineMetrics;
use crate::telemetry::throttle::Throttle;
use crate::time::{Clock, Timestamp};

/// How long the writer collects lines after the first one, before it writes them.
const FLUSH_DELAY: Duration = Duration::from_millis(10);
/// Maximum size of one worker's buffer, in bytes. The last line may exceed it.
const BUFFER_LIMIT: usize = 1024 * 1024;

/// The access log, shared by all workers.
pub struct AccessLog {
    shared: Arc<Shared>,
    /// Writer thread, which ends after [`AccessLog::stop`].
    thread: Thread,
}

/// State shared by the workers and the writer thread.
struct Shared {
    /// One buffer per worker.
    buffers: Box<[Mutex<Buffer>]>,
    format: LogFormat,
    metrics: LineMetrics,
    /// Number of dropped lines that the log has not reported yet.
    unreported: AtomicU64,
    /// Tells the writer to open the file again.
    reopen: AtomicBool,
    /// Tells the writer to write the buffers one last time and stop.
    stopping: AtomicBool,
}

/// Lines of one worker that wait to be written.
#[derive(Debug, Default)]
struct Buffer {
    text: Vec<u8>,
    lines: u64,
    stamp: TimestampWriter,
}

impl AccessLog {
    /// Opens the access log for a number of workers. Returns `None` if it is off. The writer thread holds `token` until all
    /// lines are written.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened or the writer thread cannot be started.
    pub fn open(
        target: &AccessLogTarget,
        format: LogFormat,
        workers: usize,
        metrics: LineMetrics,
        token: TaskTrackerToken,
    ) -> io::Result<Option<Arc<Self>>> {
        let output = match target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => LogTarget::stdout()?,
            AccessLogTarget::Stderr => LogTarget::stderr()?,
            AccessLogTarget::File(path) => LogTarget::file(path).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot open `{}`: {error}", path.display()))
            })?,
        };
        Self::start(output, format, workers, metrics, token).map(Some)
    }

    /// Starts an access log that writes JSON lines to `output`. The writer thread holds `token` until all lines are written.
    ///
    /// # Errors
    /// Returns an error if the writer thread cannot be started.
    pub fn to_writer(
        output: Box<dyn Write + Send>,
        workers: usize,
        metrics: LineMetrics,
        token: TaskTrackerToken,
    ) -> io::Result<Arc<Self>> {
        Self::start(LogTarget::Other(output), LogFormat::Json, workers, metrics, token)
    }

    fn start(
        target: LogTarget,
        format: LogFormat,
        workers: usize,
        metrics: LineMetrics,
        token: TaskTrackerToken,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            buffers: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            format,
            metrics,
            unreported: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let writer = Writer::new(Arc::clone(&shared), target);
        let write = move || {
            writer.run();
            drop(token);
        };
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(write)?;
        Ok(Arc::new(Self { shared, thread: thread.thread().clone() }))
    }

    /// Appends a line with the timestamp `time` to the buffer of `worker`; `fill` adds the fields.
    pub fn write(&self, worker: usize, time: Timestamp, fill: impl FnOnce(&mut LogLine<'_>)) {
        let Some(buffer) = self.shared.buffers.get(worker).or_else(|| self.shared.buffers.first()) else {
            return;
        };
        // Only the writer thread and `usage` contend for the lock, and they hold it only to swap or measure the buffer.
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let Buffer { text, lines, stamp } = &mut *buffer;
        if text.len() >= BUFFER_LIMIT {
            self.shared.count_dropped(1);
            return;
        }
        let was_empty = text.is_empty();
        let mut line = LogLine::begin(text, self.shared.format, stamp, time);
        fill(&mut line);
        line.end();
        *lines += 1;
        drop(buffer);
        if was_empty {
            self.thread.unpark();
        }
    }

    /// Reopens the file by its path, after log rotation has renamed the old file.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Makes the writer thread write the buffered lines and end.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Returns the number of buffered bytes and its limit.
    pub fn usage(&self) -> (usize, usize) {
        let length =
            |buffer: &Mutex<Buffer>| buffer.lock().unwrap_or_else(PoisonError::into_inner).text.len();
        (self.shared.buffers.iter().map(length).sum(), self.shared.buffers.len() * BUFFER_LIMIT)
    }
}

impl Shared {
    fn count_dropped(&self, lines: u64) {
        self.metrics.dropped.inc_by(lines);
        self.unreported.fetch_add(lines, Ordering::Relaxed);
    }
}

/// State of the writer thread.
struct Writer {
    shared: Arc<Shared>,
    output: LogOutput,
    /// Whether a write has failed and the log has not reported the recovery yet.
    is_failing: bool,
    failures: Throttle,
    reports: Throttle,
}

impl Writer {
    fn new(shared: Arc<Shared>, target: LogTarget) -> Self {
        Self {
            shared,
            output: LogOutput::new(target),
            is_failing: false,
            failures: Throttle::default(),
            reports: Throttle::default(),
        }
    }

    fn run(mut self) {
        self.output.begin();
        let mut batch = Vec::new();
        loop {
            // The first line in an empty buffer unparks the thread. An earlier unpark makes this return at once.
            std::thread::park();
            let stopping = self.shared.stopping.load(Ordering::Acquire);
            if !stopping {
                std::thread::sleep(FLUSH_DELAY);
            }
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                // The buffered lines go to the new file, or to the old one if the new one cannot be opened.
                self.reopen();
            }
            for number in 0..self.shared.buffers.len() {
                self.write_buffer(number, &mut batch);
            }
            if stopping {
                self.finish();
                return;
            }
        }
    }

    /// Writes the lines of one worker. `batch` is an empty buffer that is swapped with the worker's.
    fn write_buffer(&mut self, number: usize, batch: &mut Vec<u8>) {
        let Some(buffer) = self.shared.buffers.get(number) else { return };
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut buffer.text, batch);
        let lines = std::mem::take(&mut buffer.lines);
        drop(buffer);
        if batch.is_empty() {
            return;
        }
        let WriteOutcome { written, dropped, error } = self.output.write(batch, lines);
        batch.clear();
        self.shared.metrics.written.inc_by(written);
        self.shared.count_dropped(dropped);
        match error {
            Some(error) => {
                self.is_failing = true;
                if let Some(suppressed) = self.failures.pass(Clock.mono()) {
                    tracing::warn!(%error, suppressed, "the access log cannot be written");
                }
            }
            None => self.report_recovery(),
        }
    }

    /// After a successful write, logs that writing works again and how many lines were dropped.
    fn report_recovery(&mut self) {
        let nothing_to_report = !self.is_failing && self.shared.unreported.load(Ordering::Relaxed) == 0;
        if nothing_to_report || self.reports.pass(Clock.mono()).is_none() {
            return;
        }
        let dropped = self.shared.unreported.swap(0, Ordering::Relaxed);
        if std::mem::take(&mut self.is_failing) {
            tracing::warn!(dropped, "the access log is being written again");
        } else {
            tracing::warn!(dropped, "access log lines were dropped because the output is too slow");
        }
    }

    fn finish(&mut self) {
        match self.output.write_pending() {
            Ok(completed) => self.shared.metrics.written.inc_by(completed),
            Err(_) => self.shared.count_dropped(self.output.incomplete()),
        }
        let dropped = self.shared.unreported.load(Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "the access log was closed, and lines were dropped");
        }
    }

    fn reopen(&mut self) {
        let Some(path) = self.output.path().map(ToOwned::to_owned) else { return };
        match self.output.reopen() {
            Ok(incomplete) => {
                self.shared.count_dropped(incomplete);
                tracing::info!(path = %path.display(), "the access log was reopened");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the access log cannot be reopened; the old file stays open");
            }
        }
    }
}

/// Writes the buffered lines when a reload has replaced this access log.
impl Drop for AccessLog {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}
