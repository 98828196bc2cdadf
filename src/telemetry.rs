//! What the gateway says of itself: its log, its access log, its metrics, and the traces that it passes on.
//!
//! Log lines go to stderr, as text for people or as JSON for machines; the access log has a way of its own.
//! `RUST_LOG` chooses what is logged; without it, everything from `info` up, and from dependencies what they warn of.
//! What dependencies may log at most is not for it to choose (`telemetry/dependencies.rs`).

pub mod access_log;
pub mod dependencies;
pub mod line;
mod log_output;
pub mod metrics;
pub mod throttle;
pub mod trace;

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::access_log::AccessLog;
use self::dependencies::DependencyLimits;
use self::metrics::Metrics;
use crate::config::{LogFormat, ServerConfig};

/// What is counted and written of requests. It outlives every configuration.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// What is counted and timed.
    pub metrics: Arc<Metrics>,
    /// Where requests write a line, if they do.
    pub access_log: Option<Arc<AccessLog>>,
}

impl Telemetry {
    /// Metrics, and the access log that is configured.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub fn open(config: &ServerConfig) -> io::Result<Self> {
        let silent = Self::silent()?;
        let access_log = silent.open_log(config)?;
        Ok(Self { access_log, ..silent })
    }

    /// Metrics, and no access log.
    ///
    /// # Errors
    /// If two metrics have one name, which is a defect that every start would show.
    pub fn silent() -> io::Result<Self> {
        Ok(Self { metrics: Arc::new(Metrics::new().map_err(io::Error::other)?), access_log: None })
    }

    /// The same metrics, and an access log of JSON lines to `output`.
    ///
    /// # Errors
    /// If there can be no thread to write it.
    pub fn writing_to(&self, output: Box<dyn Write + Send>, workers: usize) -> io::Result<Self> {
        let log = AccessLog::to(output, workers, self.metrics.access_log())?;
        Ok(Self { access_log: Some(log), metrics: Arc::clone(&self.metrics) })
    }

    /// The same, with the access log of `wanted` if it is another than that of `current`.
    ///
    /// # Errors
    /// If its file cannot be opened.
    pub fn following(&self, current: &ServerConfig, wanted: &ServerConfig) -> io::Result<Self> {
        if current.access_log == wanted.access_log {
            return Ok(self.clone());
        }
        Ok(Self { access_log: self.open_log(wanted)?, metrics: Arc::clone(&self.metrics) })
    }

    fn open_log(&self, config: &ServerConfig) -> io::Result<Option<Arc<AccessLog>>> {
        AccessLog::open(&config.access_log, config.log, config.workers, self.metrics.access_log())
    }
}

/// What is logged if `RUST_LOG` does not say.
/// h2 and hyper warn of what clients do, which is no operator's business: it is counted. The SDK calls it an error that it
/// has no connection to close if none could be made.
const DEFAULT_FILTER: &str =
    "warn,h2=error,hyper=error,aws_smithy_runtime::client::http::connection_poisoning=off,sessiongate=info";

/// Starts logging. What comes second is ignored: a process has one log.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // A span that is on, at `debug`, says when it ends how long it took.
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
        tracing::debug!("logging was started already");
    }
}
