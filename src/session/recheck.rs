//! Checks of monitored sessions: their rows are read again at the interval of their monitors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::{SessionVerdict, judge};
use super::monitor::{MonitoredSession, Schedule, SessionMonitor, SessionStatus};
use super::realm::Realm;
use super::resolution::Lookup;
use super::state::Session;

impl Realm {
    /// Monitors `session`, which was live at `known_at`. From then on, it is checked at least every `interval`.
    pub(crate) fn monitor(
        self: &Arc<Self>,
        session: &Arc<Session>,
        interval: Duration,
        known_at: Instant,
    ) -> SessionMonitor {
        let (monitor, new) = self.monitors.monitor(session, interval, known_at);
        if let Some(monitored) = new {
            // The task ends when the last monitor is dropped.
            self.tasks.spawn_on(Arc::clone(self).run_checks(monitored), &self.control);
        }
        monitor
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
        let is_recent = |read_at: &Instant| now.mono.saturating_duration_since(*read_at) < interval;
        let lookup = match self.cache.latest(&key).filter(|(_, read_at)| is_recent(read_at)) {
            Some((session, read_at)) => {
                monitored.check_by(read_at + interval, interval);
                Lookup::Found(session)
            }
            None => self.read_uncached(&key, known.record.version).await,
        };
        let session = match lookup {
            Lookup::Unavailable => return,
            Lookup::Absent(_) => return self.monitors.end(&key),
            Lookup::Found(session) => session,
        };
        match judge(&self.policy, &session.record, now.wall) {
            SessionVerdict::Idle | SessionVerdict::TooOld => self.monitors.end(&key),
            SessionVerdict::Live(life) => {
                let used = monitored.take_used();
                if let Some(due) = life.due.filter(|_| used) {
                    // Not awaited: the next check shows its outcome.
                    self.reissue(&session, due, now);
                }
                monitored.publish(SessionStatus::Live(session));
            }
        }
    }
}
