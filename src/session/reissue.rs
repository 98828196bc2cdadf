//! The reissue: one conditional write that moves a session's idle deadline, started while the upstream works.
//!
//! Of many requests that find a session due, in any number of gateways, exactly one write succeeds: its condition is
//! that the row is still due. A row that was deleted is not there, so it stays deleted. The write runs on its own; the
//! response neither waits for it nor fails with it.

use std::sync::Arc;

use tracing::Instrument as _;

use super::flight::Waiter;
use super::judge::Reissue;
use super::lookup::DecodedRow;
use super::{Realm, Session};
use crate::store::table::ConditionalWrite;
use crate::time::Now;

/// How a reissue ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reissued {
    /// This gateway moved the deadline.
    Won,
    /// Somebody else did, or changed the session.
    Lost,
    /// The session is gone.
    Gone,
    /// The store failed. The session lives on as it is; the next request tries again.
    Failed,
}

/// A reissue under way.
#[derive(Debug)]
pub struct Reissuing(Option<Waiter<Reissued>>);

impl Reissued {
    /// The outcome in one word, for counts.
    pub fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

impl Realm {
    /// Starts the reissue of a session that is due, or joins the one that is under way.
    pub fn reissue(self: &Arc<Self>, session: &Arc<Session>, due: Reissue, now: Now) -> Reissuing {
        // A store that is down is not asked to write as well; the cookie goes out, the deadline moves later.
        if self.outage.is_on(now.mono) {
            return Reissuing(None);
        }
        let (realm, touched) = (Arc::clone(self), Arc::clone(session));
        let touch = || {
            let span = tracing::debug_span!("reissue", realm = %realm.name);
            async move { realm.touch(&touched, due, now).await }.instrument(span)
        };
        Reissuing(self.reissues.join(&session.key, touch))
    }

    async fn touch(&self, session: &Arc<Session>, due: Reissue, now: Now) -> Reissued {
        let epoch = self.cache.epoch(&session.key);
        let began = self.clock.mono();
        let times = due.touch_times(now.wall);
        let touch = self.format.touch(&session.record, times);
        let written = self.table.update(&session.key, &touch.update).await;
        let read_at = self.clock.mono();
        let outcome = match written {
            Ok(ConditionalWrite::Done) => {
                let record = touch.record;
                let answers = record.version;
                let session = self.session(session.key.clone(), record, session.size, began);
                self.cache.remember(&Arc::new(session), answers, read_at, epoch);
                Reissued::Won
            }
            // The refusal carries the row as it is now, which saves reading it.
            Ok(ConditionalWrite::Refused(Some(item))) => {
                match self.row(Some(item)) {
                    DecodedRow::Session { record, size } => {
                        let answers = record.version;
                        let session = self.session(session.key.clone(), record, size, began);
                        self.cache.remember(&Arc::new(session), answers, read_at, epoch);
                    }
                    DecodedRow::None(_) => self.cache.forget(&session.key),
                }
                Reissued::Lost
            }
            Ok(ConditionalWrite::Refused(None)) => {
                self.cache.remember_missing(&session.key, session.record.version, read_at, epoch);
                self.monitors.end(&session.key);
                Reissued::Gone
            }
            Err(error) => {
                self.outage.report(read_at);
                if let Some(suppressed) = self.failures.pass(&error, read_at) {
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

impl Reissuing {
    /// Whether it is known by now that there is no session to give the browser a cookie of.
    pub fn is_gone(&self) -> bool {
        self.0.as_ref().and_then(Waiter::peek) == Some(Reissued::Gone)
    }
}
