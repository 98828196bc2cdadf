//! Observability: the log, the access log, the metrics, and the propagation of trace context.
//!
//! Log lines go to stderr, as text or as JSON. The access log has its own writer (`telemetry/access_log.rs`).
//! `RUST_LOG` sets the log filter. By default, the gateway logs at `info` and above, and dependencies at `warn` and
//! above.
//! `RUST_LOG` cannot lift the limits on what dependencies log (`telemetry/dependencies.rs`).

pub mod access_log;
pub mod dependencies;
pub mod line;
mod log_output;
pub mod metrics;
pub mod throttle;
pub mod trace;

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::access_log::AccessLog;
use self::dependencies::DependencyLimits;
use self::metrics::Metrics;
use crate::config::{LogFormat, ServerConfig};

/// The metrics and the access log. The metrics survive reloads of the configuration.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The counters and histograms.
    pub metrics: Arc<Metrics>,
    /// The access log, or `None` if it is off.
    pub access_log: Option<Arc<AccessLog>>,
    /// Tracks the writer threads of this access log and of those that it has replaced.
    writers: TaskTracker,
}

impl Telemetry {
    /// Creates new metrics and opens the configured access log.
    ///
    /// # Errors
    /// Returns an error if the access log's file cannot be opened.
    pub fn open(config: &ServerConfig) -> io::Result<Self> {
        let metrics_only = Self::without_access_log()?;
        let access_log = metrics_only.open_log(config)?;
        Ok(Self { access_log, ..metrics_only })
    }

    /// Creates new metrics without an access log.
    ///
    /// # Errors
    /// Returns an error if two metrics have the same name. That is a programming error, and every start would show it.
    pub fn without_access_log() -> io::Result<Self> {
        let metrics = Arc::new(Metrics::new().map_err(io::Error::other)?);
        Ok(Self { metrics, access_log: None, writers: TaskTracker::new() })
    }

    /// Returns the same metrics with an access log that writes JSON lines to `output`.
    ///
    /// # Errors
    /// Returns an error if the writer thread cannot be started.
    pub fn with_access_log(&self, output: Box<dyn Write + Send>, workers: usize) -> io::Result<Self> {
        let log = AccessLog::to_writer(output, workers, self.metrics.access_log(), self.writers.token())?;
        Ok(Self { access_log: Some(log), ..self.clone() })
    }

    /// Returns the telemetry for a reload from the configuration `old` to `new`: the metrics stay, and the access log is
    /// replaced if its target has changed.
    ///
    /// # Errors
    /// Returns an error if the new access log's file cannot be opened.
    pub fn for_reload(&self, old: &ServerConfig, new: &ServerConfig) -> io::Result<Self> {
        if old.access_log == new.access_log {
            return Ok(self.clone());
        }
        Ok(Self { access_log: self.open_log(new)?, ..self.clone() })
    }

    /// Writes the buffered lines of the access log and of those that it has replaced, and waits until they are written,
    /// however long the outputs take.
    pub async fn close_access_logs(&self) {
        if let Some(log) = &self.access_log {
            log.stop();
        }
        self.writers.close();
        self.writers.wait().await;
    }

    fn open_log(&self, config: &ServerConfig) -> io::Result<Option<Arc<AccessLog>>> {
        let (metrics, token) = (self.metrics.access_log(), self.writers.token());
        AccessLog::open(&config.access_log, config.log, config.workers, metrics, token)
    }
}

/// The log filter if `RUST_LOG` is not set.
///
/// Warnings of h2 and hyper are off: they are about the behaviour of clients, which the metrics count. The SDK's module
/// `connection_poisoning` is off because it logs an error whenever a connection could not be opened.
const DEFAULT_FILTER: &str =
    "warn,h2=error,hyper=error,aws_smithy_runtime::client::http::connection_poisoning=off,sessiongate=info";

/// Installs the process-wide log subscriber. Later calls have no effect.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // An enabled span (at `debug`) logs its duration when it closes.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(io::stderr);
    let limits = DependencyLimits::default();
    let started = match format {
        LogFormat::Text => {
            let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).finish().with(limits).try_init()
        }
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).finish().with(limits).try_init()
        }
    };
    if started.is_err() {
        tracing::debug!("a log subscriber is already installed");
    }
}
