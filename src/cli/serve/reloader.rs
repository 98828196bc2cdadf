//! Brings a new configuration into force: when it is due, whether it is good, and what is said of it.
//!
//! Everything is checked first, as at the start. A file with an error in it changes nothing.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::config::diagnostic::{DiagnosticReport, Severity};
use crate::config::{self, Difference, Watch};
use crate::server::Server;
use crate::store::Store;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Reloads one configuration file.
#[derive(Debug)]
pub(super) struct Reloader {
    file: PathBuf,
    watch: Arc<Mutex<Watch>>,
    look: tokio::time::Interval,
}

impl Reloader {
    /// Reloads `file`, of which `watch` knows what was read first.
    pub(super) fn new(file: PathBuf, watch: Watch) -> Self {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { file, watch: Arc::new(Mutex::new(watch)), look }
    }

    /// Waits until the files have changed. Nothing is lost where this is dropped: what was found is found again.
    pub(super) async fn changed(&mut self) {
        loop {
            self.look.tick().await;
            let watch = Arc::clone(&self.watch);
            // File systems may take their time, and the store's answers are on these threads, too.
            let look = move || watch.lock().unwrap_or_else(PoisonError::into_inner).look();
            if tokio::task::spawn_blocking(look).await.unwrap_or(false) {
                return;
            }
        }
    }

    /// Loads the configuration and puts it into force. If that is broken off, nothing has changed.
    pub(super) async fn reload(&self, server: &mut Server, store: &Store) {
        let file = self.file.clone();
        let Ok((sources, loaded)) = tokio::task::spawn_blocking(move || config::load_sources(&file)).await
        else {
            // A panic, which has been written to stderr.
            server.state().reload_failed();
            return;
        };
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Watch::new(sources);
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
                    "configuration not reloaded: the one in force stays"
                );
                return;
            }
        };
        match server.reload(&config, store).await {
            Ok(difference) => announce(&difference, server.state().reloads().generation),
            Err(error) => {
                server.state().reload_failed();
                tracing::error!(reason = %error, "configuration not reloaded: the one in force stays");
            }
        }
    }
}

fn announce(difference: &Difference, generation: u64) {
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

/// Each problem as an event. Messages never repeat a value, so no secret gets into the log.
fn log(report: &DiagnosticReport) {
    for problem in report.diagnostics() {
        let (at, hint) = (report.place(problem), problem.hint.as_deref());
        match problem.severity {
            Severity::Error => tracing::error!(%at, problem = %problem.message, hint, "configuration error"),
            Severity::Warning => {
                tracing::warn!(%at, problem = %problem.message, hint, "configuration warning");
            }
        }
    }
}
