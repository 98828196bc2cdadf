//! Reloads of the configuration.
//!
//! The new configuration is checked first, as at startup. A file with errors changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::config::diagnostic::{DiagnosticReport, Severity};
use crate::config::{self, Difference, SourceWatcher};
use crate::server::Server;
use crate::store::Store;

/// Interval at which the files are checked for changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reloads one configuration file.
#[derive(Debug)]
pub(super) struct Reloader {
    file: PathBuf,
    watcher: Arc<Mutex<SourceWatcher>>,
    interval: tokio::time::Interval,
}

impl Reloader {
    /// Creates a reloader of `file`. `watcher` watches the sources that were loaded at startup.
    pub(super) fn new(file: PathBuf, watcher: SourceWatcher) -> Self {
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, watcher: Arc::new(Mutex::new(watcher)), interval }
    }

    /// Waits until the files have changed. Cancel safe: a detected change is detected again.
    pub(super) async fn changed(&mut self) {
        loop {
            self.interval.tick().await;
            let watcher = Arc::clone(&self.watcher);
            // On a blocking thread, because file systems may block, and the control threads also run store operations.
            let poll = move || watcher.lock().unwrap_or_else(PoisonError::into_inner).poll();
            if tokio::task::spawn_blocking(poll).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Loads the configuration and applies it. On any error nothing changes.
    pub(super) async fn reload(&self, server: &mut Server, store: &Store) {
        let file = self.file.clone();
        let Ok((sources, loaded)) = tokio::task::spawn_blocking(move || config::load_sources(&file)).await
        else {
            // The task panicked, and the panic hook has printed the message.
            server.state().reload_failed();
            return;
        };
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = SourceWatcher::new(sources);
        let config = match loaded {
            Ok((config, warnings)) => {
                log(warnings.report());
                config
            }
            Err(problems) => {
                log(problems.report());
                server.state().reload_failed();
                tracing::error!(
                    reason = "the file has errors",
                    "configuration not reloaded: the current one remains active"
                );
                return;
            }
        };
        match server.reload(&config, store).await {
            Ok(difference) => log_reload(&difference, server.state().reloads().generation),
            Err(error) => {
                server.state().reload_failed();
                tracing::error!(reason = %error, "configuration not reloaded: the current one remains active");
            }
        }
    }
}

fn log_reload(difference: &Difference, generation: u64) {
    let keys = |keys: &[&str]| (!keys.is_empty()).then(|| keys.join(", "));
    tracing::info!(
        generation,
        server = keys(&difference.server),
        listeners = difference.listeners.summary(),
        realms = difference.realms.summary(),
        upstreams = difference.upstreams.summary(),
        routes = difference.routes.summary(),
        waiting_for_restart = keys(&difference.restart),
        "configuration reloaded"
    );
}

/// Logs each error and warning, without the file's lines, which may contain secrets.
fn log(report: &DiagnosticReport) {
    for problem in report.diagnostics() {
        let (at, hint) = (report.location(problem), problem.hint.as_deref());
        match problem.severity {
            Severity::Error => tracing::error!(%at, problem = %problem.message, hint, "configuration error"),
            Severity::Warning => {
                tracing::warn!(%at, problem = %problem.message, hint, "configuration warning");
            }
        }
    }
}
