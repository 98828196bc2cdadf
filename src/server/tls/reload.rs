//! Certificates' files that change while the gateway runs.
//!
//! The files are read once a second, and compared by content: that sees a file that was replaced, a link that now leads
//! elsewhere (as Kubernetes changes secrets), and a clock that went back. What was read twice alike is taken: a
//! certificate and its key are written one after the other, and are not to be judged in between. What does not make a
//! certificate is reported once, and the one before stays.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::context::{Contexts, TlsError};
use crate::config::TlsConfig;
use crate::config::environment::{Environment, System};
use crate::server::connections::Connections;

/// How often the files are read.
const PERIOD: Duration = Duration::from_secs(1);

/// The contents of all files of a listener.
#[derive(Clone)]
pub(super) struct Files(BTreeMap<PathBuf, Result<Vec<u8>, Arc<io::Error>>>);

impl Files {
    pub(super) fn read(config: &TlsConfig, environment: &dyn Environment) -> Self {
        let certificates = config.certificates.iter();
        let paths = certificates.flat_map(|certificate| {
            let ca = certificate.clients.as_ref().map(|rule| &rule.ca);
            [&certificate.cert, &certificate.key].into_iter().chain(ca)
        });
        let read = |path: &PathBuf| (path.clone(), environment.certificate(path).map_err(Arc::new));
        Self(paths.map(read).collect())
    }

    pub(super) fn get(&self, path: &Path) -> Result<&[u8], TlsError> {
        let unreadable = |error| TlsError::Unreadable { path: path.to_owned(), error };
        match self.0.get(path) {
            Some(Ok(content)) => Ok(content),
            Some(Err(error)) => Err(unreadable(Arc::clone(error))),
            None => Err(unreadable(Arc::new(io::ErrorKind::NotFound.into()))),
        }
    }

    fn is_as(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|((_, one), (_, other))| match (one, other) {
                (Ok(one), Ok(other)) => one == other,
                (Err(one), Err(other)) => one.kind() == other.kind(),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            })
    }
}

/// Contents may be keys.
impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

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
        let is_settled = files.is_as(&before);
        before = files;
        if !is_settled || before.is_as(&judged) {
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
