//! The access log: a line for each request, written by a thread of its own.
//!
//! A worker formats its lines into a sheet that is its own, and the writer takes the sheets away a few times a second
//! and writes them: a request waits for no file, no pipe and no other worker. Lines of one worker stay in order; those
//! of two may come a moment apart.
//!
//! 1. A sheet has a bound. If the writer cannot keep up, or cannot write, lines are dropped and counted; the request is
//!    not. Once lines are written again, the log says how many were dropped.
//! 2. Lines are whole, also when the file is changed under the gateway (`SIGUSR1`, a reload), when it ends, and when a
//!    write fails halfway (`log_output.rs`).

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::config::{AccessLogTarget, LogFormat};
use crate::telemetry::line::{LogLine, Stamp};
use crate::telemetry::log_output::{LogOutput, LogTarget, WriteOutcome};
use crate::telemetry::metrics::LineMetrics;
use crate::telemetry::throttle::Throttle;
use crate::time::{Clock, Timestamp};

/// How long the writer gathers lines after the first one.
const GATHERING: Duration = Duration::from_millis(10);
/// The bound of the lines of one worker that wait to be written.
const SHEET: usize = 1024 * 1024;

/// The access log, shared by all workers.
pub struct AccessLog {
    shared: Arc<Shared>,
    /// Ends by itself after [`AccessLog::end`].
    thread: JoinHandle<()>,
}

struct Shared {
    sheets: Box<[Mutex<Sheet>]>,
    format: LogFormat,
    metrics: LineMetrics,
    /// Lines that were dropped, and not yet reported in the log.
    unreported: AtomicU64,
    /// The file is to be opened again.
    reopen: AtomicBool,
    /// What there is to be written is the last.
    ending: AtomicBool,
}

/// Lines of one worker.
#[derive(Debug, Default)]
struct Sheet {
    text: Vec<u8>,
    lines: u64,
    stamp: Stamp,
}

impl AccessLog {
    /// The access log of `workers`; none if it is off.
    ///
    /// # Errors
    /// If its file cannot be opened, or there can be no thread.
    pub fn open(
        target: &AccessLogTarget,
        format: LogFormat,
        workers: usize,
        metrics: LineMetrics,
    ) -> io::Result<Option<Arc<Self>>> {
        let output = match target {
            AccessLogTarget::Off => return Ok(None),
            AccessLogTarget::Stdout => LogTarget::stdout()?,
            AccessLogTarget::Stderr => LogTarget::stderr()?,
            AccessLogTarget::File(path) => LogTarget::file(path).map_err(|error| {
                io::Error::new(error.kind(), format!("cannot open `{}`: {error}", path.display()))
            })?,
        };
        Self::start(output, format, workers, metrics).map(Some)
    }

    /// An access log of JSON lines that goes to `output`.
    ///
    /// # Errors
    /// If there can be no thread.
    pub fn to(output: Box<dyn Write + Send>, workers: usize, metrics: LineMetrics) -> io::Result<Arc<Self>> {
        Self::start(LogTarget::Other(output), LogFormat::Json, workers, metrics)
    }

    fn start(
        target: LogTarget,
        format: LogFormat,
        workers: usize,
        metrics: LineMetrics,
    ) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared {
            sheets: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            format,
            metrics,
            unreported: AtomicU64::new(0),
            reopen: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        });
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || Writer::new(writing, target).run())?;
        Ok(Arc::new(Self { shared, thread }))
    }

    /// Writes a line of `worker` about something that happened at `time`.
    pub fn write(&self, worker: usize, time: Timestamp, fill: impl FnOnce(&mut LogLine<'_>)) {
        let Some(sheet) = self.shared.sheets.get(worker).or_else(|| self.shared.sheets.first()) else {
            return;
        };
        // Nobody else wants it but the writer, who swaps it for an empty one.
        let mut sheet = sheet.lock().unwrap_or_else(PoisonError::into_inner);
        let Sheet { text, lines, stamp } = &mut *sheet;
        if text.len() >= SHEET {
            self.shared.dropped(1);
            return;
        }
        let first = text.is_empty();
        let mut line = LogLine::begin(text, self.shared.format, stamp, time);
        fill(&mut line);
        line.end();
        *lines += 1;
        drop(sheet);
        if first {
            self.thread.thread().unpark();
        }
    }

    /// Opens the file again, by its name: whoever moves logs away does so first.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// Has what there is to write written, and waits for it: for as long as the output takes.
    pub async fn close(&self) {
        self.end();
        // A thread tells no task that it has ended, and this happens once in its life.
        while !self.thread.is_finished() {
            tokio::time::sleep(GATHERING).await;
        }
    }

    fn end(&self) {
        self.shared.ending.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// How many bytes wait to be written, of how many at most.
    pub fn fill(&self) -> (usize, usize) {
        let lock = |sheet: &Mutex<Sheet>| sheet.lock().unwrap_or_else(PoisonError::into_inner).text.len();
        (self.shared.sheets.iter().map(lock).sum(), self.shared.sheets.len() * SHEET)
    }
}

impl Shared {
    fn dropped(&self, lines: u64) {
        self.metrics.dropped.inc_by(lines);
        self.unreported.fetch_add(lines, Ordering::Relaxed);
    }
}

struct Writer {
    shared: Arc<Shared>,
    output: LogOutput,
    /// Whether the last write failed, and nothing in the log says that it works again.
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
            // Whoever writes the first line of a sheet wakes it, now or before it comes here.
            std::thread::park();
            let ending = self.shared.ending.load(Ordering::Acquire);
            if !ending {
                std::thread::sleep(GATHERING);
            }
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                // What is there by now belongs into the old file, but nothing may be lost if there is no new one.
                self.reopen();
            }
            for number in 0..self.shared.sheets.len() {
                self.take(number, &mut batch);
            }
            if ending {
                self.end();
                return;
            }
        }
    }

    fn take(&mut self, number: usize, batch: &mut Vec<u8>) {
        let Some(sheet) = self.shared.sheets.get(number) else { return };
        let mut sheet = sheet.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut sheet.text, batch);
        let lines = std::mem::take(&mut sheet.lines);
        drop(sheet);
        if batch.is_empty() {
            return;
        }
        let WriteOutcome { written, dropped, error } = self.output.write(batch, lines);
        batch.clear();
        self.shared.metrics.written.inc_by(written);
        self.shared.dropped(dropped);
        match error {
            Some(error) => {
                self.is_failing = true;
                if let Some(suppressed) = self.failures.pass(Clock.mono()) {
                    tracing::warn!(%error, suppressed, "the access log cannot be written");
                }
            }
            None => self.report(),
        }
    }

    /// Says in the log how many lines were dropped, after one was written.
    fn report(&mut self) {
        let is_silent = !self.is_failing && self.shared.unreported.load(Ordering::Relaxed) == 0;
        if is_silent || self.reports.pass(Clock.mono()).is_none() {
            return;
        }
        let dropped = self.shared.unreported.swap(0, Ordering::Relaxed);
        if std::mem::take(&mut self.is_failing) {
            tracing::warn!(dropped, "the access log is written again");
        } else {
            tracing::warn!(dropped, "the access log's output did not keep up, and lines were dropped");
        }
    }

    fn end(&mut self) {
        match self.output.finish() {
            Ok(finished) => self.shared.metrics.written.inc_by(finished),
            Err(_) => self.shared.dropped(self.output.incomplete()),
        }
        let dropped = self.shared.unreported.load(Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "the access log ends, and lines were dropped");
        }
    }

    fn reopen(&mut self) {
        let Some(path) = self.output.path().map(ToOwned::to_owned) else { return };
        match self.output.reopen() {
            Ok(incomplete) => {
                self.shared.dropped(incomplete);
                tracing::info!(path = %path.display(), "the access log was opened again");
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the access log cannot be opened again; the old file stays");
            }
        }
    }
}

/// One that a new configuration has no use for is written to its end.
impl Drop for AccessLog {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").finish_non_exhaustive()
    }
}
