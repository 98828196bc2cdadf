//! Checks of monitored sessions: their rows are read again at the interval of their monitors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{SessionVerdict, becomes_due, judge};
use super::monitor::{MonitoredSession, Schedule, SessionMonitor, SessionStatus};
use super::realm::{Realm, Reissued};
use super::resolution::Lookup;
use super::state::Session;
use crate::format::SessionRecord;
use crate::item::Key;
use crate::time::{Now, Timestamp};

/// The time until a session that was used is checked again if it was not reissued.
const RETRY_DELAY: Duration = Duration::from_secs(10);

impl Realm {
    /// Monitors `session`, which was live at `known_at`. From then on, it is checked at least every `interval`.
    pub(crate) fn monitor(
        self: &Arc<Self>,
        session: &Arc<Session>,
        interval: Duration,
        known_at: Instant,
    ) -> SessionMonitor {
        let (now, record) = (self.clock.now(), &session.record);
        let due = self.due_instant(record, record.issued, record.expires, interval, now);
        let (monitor, new) = self.monitors.monitor(session, interval, known_at, due);
        if let Some(monitored) = new {
            // The task ends when the last monitor is dropped.
            self.tasks.spawn_on(Arc::clone(self).run_checks(monitored), &self.control);
        }
        // This gateway may have ended the session since the request was admitted.
        if self.changes.has_ended(session.key(), now.mono) {
            self.monitors.check_now(session.key(), now.mono);
        }
        monitor
    }

    /// Reports that the row of `key` does not exist. A rotation by this gateway, which deletes it in some formats, has
    /// finished by then, so that the monitors have the new key.
    pub(super) async fn end_monitors(&self, key: &Key) {
        let _guard = self.changes.lock_of(key).lock().await;
        self.monitors.end(key);
    }

    /// Checks a session whenever it is due, until it has no monitor.
    async fn run_checks(self: Arc<Self>, monitored: Arc<MonitoredSession>) {
        loop {
            tokio::select! {
                () = monitored.wait_until_due() => self.check(&monitored).await,
                () = monitored.status.closed() => if self.monitors.remove_if_unmonitored(&monitored) {
                    return;
                },
            }
        }
    }

    async fn check(self: &Arc<Self>, monitored: &MonitoredSession) {
        let now = self.clock.now();
        let Schedule { key, interval, .. } = monitored.start_check(now.mono);
        let SessionStatus::Live(known) = monitored.status.borrow().clone() else { return };
        let is_usable = |session: &Session, read_at: Instant| {
            // Another gateway may have extended an expired row, and moved a retired one.
            now.mono.saturating_duration_since(read_at) < interval
                && matches!(judge(&self.policy, &session.record, now.wall), SessionVerdict::Live(_))
                && !session.record.retired
        };
        let cached = self.cache.latest(&key).filter(|(session, read_at)| is_usable(session, *read_at));
        let lookup = match cached {
            Some((session, read_at)) => {
                monitored.schedule_by(read_at + interval);
                Lookup::Found(session)
            }
            None => {
                // After a change of the id, versions begin at 1 again.
                let version = if *known.key() == key { known.record.version } else { 0 };
                self.read_uncached(&key, version).await
            }
        };
        let session = match lookup {
            Lookup::Unavailable => return monitored.set_due(now.mono + RETRY_DELAY),
            Lookup::Absent(_) => {
                self.end_monitors(&key).await;
                // This gateway may have changed the session's key meanwhile.
                return monitored.set_due(now.mono + RETRY_DELAY);
            }
            Lookup::Found(session) => session,
        };
        if let Some(successor) = session.record.successor.as_deref().filter(|_| session.record.retired) {
            // Another gateway has changed the id.
            self.monitors.rename(&key, successor);
            return monitored.schedule_by(now.mono);
        }
        let SessionVerdict::Live(life) = judge(&self.policy, &session.record, now.wall) else {
            return self.monitors.end(&key);
        };
        monitored.publish(SessionStatus::Live(Arc::clone(&session)));
        let record = &session.record;
        monitored.set_due(match life.due {
            Some(due) if monitored.take_used() => {
                let reissued = self.reissue(&session, due, now).outcome().await;
                match reissued {
                    Some(Reissued::Won | Reissued::Gone) => {
                        self.due_instant(record, now.wall, due.expires, interval, now)
                    }
                    // It is unknown whether another writer has extended the deadline.
                    Some(Reissued::Lost | Reissued::Failed) | None => {
                        monitored.record_use();
                        now.mono + RETRY_DELAY
                    }
                }
            }
            Some(_) => now.mono,
            None => self.due_instant(record, record.issued, record.expires, interval, now),
        });
    }

    /// Returns when a session becomes due whose row is `record`, except for the times of its last reissue, or the end of
    /// `interval` if that is earlier.
    fn due_instant(
        &self,
        record: &SessionRecord,
        issued: Timestamp,
        expires: Timestamp,
        interval: Duration,
        now: Now,
    ) -> Instant {
        let due = becomes_due(&self.policy, record, issued, expires);
        now.mono + due.map_or(interval, |due| due.since(now.wall).min(interval))
    }
}
