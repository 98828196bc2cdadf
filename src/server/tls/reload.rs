//! Reloads certificates when their files change.
//!
//! The files are read every second and compared by content. This detects replaced files and swapped symlinks (as
//! Kubernetes updates secrets), and does not depend on the clock. New contents are used when two reads in a row agree,
//! because a certificate and its key are written one after the other. If the contents are invalid, one error is logged
//! and the previous certificates stay in use.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::context::Contexts;
use super::files::Files;
use crate::config::TlsConfig;
use crate::config::environment::System;
use crate::server::connections::Connections;

/// Interval at which the files are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// Sends new contexts to `contexts` whenever the files change. `loaded` has the contents that were last loaded or found
/// invalid.
pub(super) async fn run(
    (config, http2): (TlsConfig, bool),
    mut loaded: Files,
    contexts: watch::Sender<Arc<Contexts>>,
    connections: Arc<Connections>,
) {
    let config = Arc::new(config);
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut previous = loaded.clone();
    loop {
        tick.tick().await;
        let to_read = Arc::clone(&config);
        // Reads on a blocking thread, since the disk may be slow. If reading panics, the next interval tries again.
        let Ok(files) = tokio::task::spawn_blocking(move || Files::read(&to_read, &System)).await else {
            continue;
        };
        let is_stable = files.same_as(&previous);
        previous = files;
        if !is_stable || previous.same_as(&loaded) {
            continue;
        }
        loaded = previous.clone();
        match Contexts::new(&config, http2, &loaded) {
            Ok(new) => {
                contexts.send_replace(Arc::new(new));
                tracing::info!(certificates = config.certificates.len(), "certificates reloaded");
                connections.counters.reloaded_certificates.increment();
            }
            Err(error) => {
                tracing::error!(%error, "changed certificates are invalid; the previous ones stay in use");
                connections.counters.failed_reloads.increment();
            }
        }
    }
}
