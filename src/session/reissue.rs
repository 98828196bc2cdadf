//! Reissue: a conditional write that extends a session's idle deadline, concurrently with the upstream request.
//!
//! If several requests in several gateways find a session due, one write succeeds, since it requires that the row is still
//! due. It also requires that the row exists, so a deleted session stays deleted. The response does not wait for the write,
//! and does not fail with it.

use std::sync::Arc;

use tracing::Instrument as _;

use super::flight::Waiter;
use super::judge::Reissue;
use super::lookup::DecodedRow;
use super::realm::{Realm, Reissued};
use super::state::Session;
use crate::store::table::ConditionalWrite;
use crate::time::Now;

/// A reissue in progress; contains `None` if no reissue was started.
#[derive(Debug)]
pub struct PendingReissue(Option<Waiter<Reissued>>);

impl Realm {
    /// Starts the reissue of a session that is due, or joins the one in progress.
    pub fn reissue(self: &Arc<Self>, session: &Arc<Session>, due: Reissue, now: Now) -> PendingReissue {
        // During an outage, send the cookie without a write. A later request extends the deadline.
        if self.read_outage.is_active(now.mono) || self.reissue_outage.is_active(now.mono) {
            return PendingReissue(None);
        }
        let (realm, touched) = (Arc::clone(self), Arc::clone(session));
        let touch = || {
            let span = tracing::debug_span!("reissue", realm = %realm.name);
            async move { realm.touch(&touched, due, now).await }.instrument(span)
        };
        PendingReissue(self.reissues.join(&session.key, touch))
    }

    async fn touch(self: &Arc<Self>, session: &Arc<Session>, due: Reissue, now: Now) -> Reissued {
        let epoch = self.cache.epoch(&session.key);
        let began = self.clock.mono();
        let times = due.touch_times(now.wall);
        let touch = self.format.touch(&session.record, times);
        let written = self.table.update(&session.key, &touch.update).await;
        let read_at = self.clock.mono();
        let outcome = match written {
            Ok(ConditionalWrite::Done) => {
                let record = touch.record;
                let max_version = record.version;
                let session = self.session(session.key.clone(), record, session.size, began);
                self.cache.insert(&Arc::new(session), max_version, read_at, epoch);
                Reissued::Won
            }
            // The outcome contains the current row, so it need not be read.
            Ok(ConditionalWrite::Refused(Some(item))) => {
                match self.decode(Some(item)) {
                    DecodedRow::Session { record, size } => {
                        let max_version = record.version;
                        let session = self.session(session.key.clone(), record, size, began);
                        self.cache.insert(&Arc::new(session), max_version, read_at, epoch);
                    }
                    DecodedRow::None(_) => self.cache.invalidate(&session.key),
                }
                Reissued::Lost
            }
            Ok(ConditionalWrite::Refused(None)) => {
                self.cache.insert_negative(&session.key, session.record.version, read_at, epoch);
                // Not awaited, because the response depends on the outcome.
                let (realm, key) = (Arc::clone(self), session.key.clone());
                self.tasks.spawn_on(async move { realm.end_monitors(&key).await }, &self.control);
                Reissued::Gone
            }
            Err(error) => {
                self.reissue_outage.record(read_at);
                if let Some(suppressed) = self.failures.admit(&error, read_at) {
                    let session = session.reference;
                    tracing::warn!(realm = %self.name, %session, %error, suppressed, "a session could not be reissued");
                }
                Reissued::Failed
            }
        };
        self.metrics.reissues.count(outcome.label());
        tracing::debug!(realm = %self.name, session = %session.reference, ?outcome, "reissue");
        outcome
    }
}

impl PendingReissue {
    /// Waits for the outcome. Returns `None` if no reissue was started.
    pub(super) async fn outcome(self) -> Option<Reissued> {
        self.0?.wait().await
    }

    /// Returns whether the reissue has already found that the session no longer exists.
    pub fn is_gone(&self) -> bool {
        self.0.as_ref().and_then(Waiter::result) == Some(Reissued::Gone)
    }
}
