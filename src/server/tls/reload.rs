//! Certificates' files that change while the gateway runs.
//!
//! The files are read once a second, and compared by content: that sees a file that was replaced, a link that now leads
//! elsewhere (as Kubernetes changes secrets), and a clock that went back. What was read twice alike is taken: a
//! certificate and its key are written one after the other, and are not to be judged in between. What does not make a
//! certificate is reported once, and the one before stays.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::context::Contexts;
use super::files::Files;
use crate::config::TlsConfig;
use crate::config::environment::System;
use crate::server::connections::Connections;

/// How often the files are read.
const PERIOD: Duration = Duration::from_secs(1);

/// Follows the files of a configuration, with or without HTTP/2, which were `judged` last.
pub(super) async fn follow(
    (config, http2): (TlsConfig, bool),
    mut judged: Files,
    contexts: watch::Sender<Arc<Contexts>>,
    connections: Arc<Connections>,
) {
    let config = Arc::new(config);
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = judged.clone();
    loop {
        tick.tick().await;
        let read = Arc::clone(&config);
        // A slow disk is to delay nobody else. Reading cannot panic; if it did, the next time would be as good.
        let Ok(files) = tokio::task::spawn_blocking(move || Files::read(&read, &System)).await else {
            continue;
        };
        let is_settled = files.same_as(&before);
        before = files;
        if !is_settled || before.same_as(&judged) {
            continue;
        }
        judged = before.clone();
        match Contexts::new(&config, http2, &judged) {
            Ok(new) => {
                tracing::info!(certificates = config.certificates.len(), "certificates reloaded");
                contexts.send_replace(Arc::new(new));
                connections.counters.reloaded_certificates.add();
            }
            Err(error) => {
                tracing::error!(%error, "changed certificates are not used; those before stay");
                connections.counters.failed_reloads.add();
            }
        }
    }
}
