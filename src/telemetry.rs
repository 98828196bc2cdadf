//! Where log lines go: to stderr, as text for people or as JSON for machines.
//!
//! `RUST_LOG` chooses what is logged; without it, everything from `info` up, and from dependencies what they warn of.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What is logged if `RUST_LOG` does not say.
const DEFAULT_FILTER: &str = "warn,sessiongate=info,access=info";

/// Starts logging. What comes second is ignored: a process has one log.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colour).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started already");
    }
}
