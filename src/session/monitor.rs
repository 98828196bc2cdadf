//! Monitoring of the sessions of long-lived responses: WebSockets, event streams, downloads.
//!
//! 1. A monitored session is read again at the shortest interval of its monitors: one read for all of them, and none if a
//!    request has read the row meanwhile.
//! 2. Only an absent, invalid or expired row ends the session. An unavailable store does not.
//! 3. A change that this gateway makes to the session is reported at once.
//! 4. A message over a WebSocket is a use of the session, and reissues it as a request does. A session that was used is
//!    checked when it becomes due, even if the interval is longer.
//!
//! Monitors receive each row that is read, and check other conditions than expiry themselves.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::{Notify, watch};

use super::state::Session;
use crate::item::Key;

/// A realm's monitored sessions. Their number is bounded by that of the long-lived responses, each of which has at most
/// one monitor.
#[derive(Debug, Default)]
pub(super) struct SessionMonitors {
    sessions: Mutex<MonitoredSessions>,
}

/// The monitored sessions of each key. A key has several if a session has got the key of another monitored one: if another
/// gateway changed the id, both the old and the new id may have been used in this one.
type MonitoredSessions = HashMap<Key, Vec<Arc<MonitoredSession>>, RandomState>;

/// A monitored session.
#[derive(Debug)]
pub(super) struct MonitoredSession {
    pub(super) status: watch::Sender<SessionStatus>,
    schedule: Mutex<Schedule>,
    /// Notified when `Schedule::next` is brought forward.
    rescheduled: Notify,
    /// Whether the session was used since its last reissue.
    used: AtomicBool,
}

/// The schedule of a session's checks.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// The session's key, which a rotation changes.
    pub(super) key: Key,
    /// The shortest interval of all monitors so far, including those that were dropped.
    pub(super) interval: Duration,
    /// The time of the next check.
    next: Instant,
    /// When the session becomes due for a reissue. If it is used, it is then checked. `None` while it is checked.
    due: Option<Instant>,
}

/// The status of a monitored session.
#[derive(Clone, Debug)]
pub(crate) enum SessionStatus {
    /// The session is live, with the row that was read last.
    Live(Arc<Session>),
    /// The session has ended.
    Ended,
}

/// Receives the status of a session. The session is monitored until its last monitor is dropped.
#[derive(Debug)]
pub(crate) struct SessionMonitor {
    status: watch::Receiver<SessionStatus>,
    session: Arc<MonitoredSession>,
}

/// Records uses of a monitored session.
#[derive(Clone, Debug)]
pub(crate) struct Usage(Arc<MonitoredSession>);

impl SessionMonitors {
    /// Monitors `session`, which was live at `known_at` and becomes due for a reissue at `due`, at least every `interval`. If
    /// it has no other monitor, also returns the session, whose checks the caller must run.
    pub(super) fn monitor(
        &self,
        session: &Arc<Session>,
        interval: Duration,
        known_at: Instant,
        due: Instant,
    ) -> (SessionMonitor, Option<Arc<MonitoredSession>>) {
        let next = known_at + interval;
        let mut sessions = self.lock();
        if let Some(monitored) = sessions.get(session.key()).and_then(|all| all.first()) {
            monitored.check_by(next, interval);
            return (SessionMonitor::new(monitored), None);
        }
        let monitored = Arc::new(MonitoredSession {
            status: watch::Sender::new(SessionStatus::Live(Arc::clone(session))),
            schedule: Mutex::new(Schedule { key: session.key().clone(), interval, next, due: Some(due) }),
            rescheduled: Notify::new(),
            used: AtomicBool::new(false),
        });
        sessions.insert(session.key().clone(), vec![Arc::clone(&monitored)]);
        (SessionMonitor::new(&monitored), Some(monitored))
    }

    /// Reports that the session of `key` has ended.
    pub(super) fn end(&self, key: &Key) {
        // A monitor that is created later learns it from its first check, which is at once if this gateway ended the session.
        for monitored in self.lock().remove(key).into_iter().flatten() {
            monitored.publish(SessionStatus::Ended);
        }
    }

    /// Records that the key of a session has changed from `old` to `new`.
    pub(super) fn rename(&self, old: &Key, new: &Key) {
        let mut sessions = self.lock();
        if let Some(renamed) = sessions.remove(old) {
            for monitored in &renamed {
                monitored.schedule().key = new.clone();
            }
            sessions.entry(new.clone()).or_default().extend(renamed);
        }
    }

    /// Reports a session that has just been written.
    pub(super) fn publish(&self, session: &Arc<Session>) {
        for monitored in self.lock().get(session.key()).into_iter().flatten() {
            monitored.publish(SessionStatus::Live(Arc::clone(session)));
        }
    }

    /// Checks the session of `key` now, since the app may have changed or ended it.
    pub(super) fn check_now(&self, key: &Key, now: Instant) {
        for monitored in self.lock().get(key).into_iter().flatten() {
            monitored.schedule_by(now);
        }
    }

    /// Removes a session if it has no monitor, and returns whether it had none.
    pub(super) fn remove_if_unmonitored(&self, monitored: &Arc<MonitoredSession>) -> bool {
        let mut sessions = self.lock();
        if monitored.status.receiver_count() > 0 {
            return false;
        }
        let key = &monitored.schedule().key;
        if let Some(all) = sessions.get_mut(key) {
            all.retain(|other| !Arc::ptr_eq(other, monitored));
            if all.is_empty() {
                sessions.remove(key);
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, MonitoredSessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MonitoredSession {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Schedules a check at `next` or earlier, and then at least every `interval`.
    pub(super) fn check_by(&self, next: Instant, interval: Duration) {
        let mut schedule = self.schedule();
        schedule.interval = schedule.interval.min(interval);
        drop(schedule);
        self.schedule_by(next);
    }

    /// Schedules a check at `next` or earlier.
    pub(super) fn schedule_by(&self, next: Instant) {
        let mut schedule = self.schedule();
        if next < schedule.next {
            schedule.next = next;
            self.rescheduled.notify_one();
        }
    }

    /// Starts a check: schedules the next one after an interval.
    pub(super) fn start_check(&self, now: Instant) -> Schedule {
        let mut schedule = self.schedule();
        schedule.next = now + schedule.interval;
        schedule.due = None;
        schedule.clone()
    }

    /// Sets when the session becomes due. If it has been used, it is then checked.
    pub(super) fn set_due(&self, due: Instant) {
        self.schedule().due = Some(due);
        if self.used.load(Ordering::Relaxed) {
            self.schedule_by(due);
        }
    }

    /// Waits until the next check is due.
    pub(super) async fn wait_until_due(&self) {
        loop {
            let next = self.schedule().next;
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => return,
                () = self.rescheduled.notified() => {}
            }
        }
    }

    /// Returns whether the session was used since the last call.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Records that the session is used. If it is due, it is checked at once, and otherwise when it becomes due.
    pub(super) fn record_use(&self) {
        // Only the first use can bring the check forward. Read first, since this runs for every message.
        if self.used.load(Ordering::Relaxed) || self.used.swap(true, Ordering::Relaxed) {
            return;
        }
        let due = self.schedule().due;
        if let Some(due) = due {
            self.schedule_by(due);
        }
    }

    /// Sends `status` to the monitors, unless the session has ended: a read that started earlier must not revive it.
    pub(super) fn publish(&self, status: SessionStatus) {
        self.status.send_if_modified(|current| {
            let is_live = matches!(current, SessionStatus::Live(_));
            if is_live {
                *current = status;
            }
            is_live
        });
    }
}

impl SessionMonitor {
    fn new(session: &Arc<MonitoredSession>) -> Self {
        let mut status = session.status.subscribe();
        // The current status is new to this monitor.
        status.mark_changed();
        Self { status, session: Arc::clone(session) }
    }

    /// Waits for the session's status: returns the current one first, and then each one that is published.
    pub(crate) async fn changed(&mut self) -> SessionStatus {
        match self.status.changed().await {
            Ok(()) => self.status.borrow_and_update().clone(),
            // Impossible: this monitor holds the sender.
            Err(_) => SessionStatus::Ended,
        }
    }

    /// Returns a recorder of the session's uses.
    pub(crate) fn usage(&self) -> Usage {
        Usage(Arc::clone(&self.session))
    }
}

impl Usage {
    /// Records that the session is used.
    pub(crate) fn record(&self) {
        self.0.record_use();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::time::Clock;

    const HOUR: Duration = Duration::from_hours(1);

    fn session(key: &str) -> Arc<Session> {
        Arc::new(Session::for_test(Key::string(key), 1, 1))
    }

    fn is_ended(monitor: &mut SessionMonitor) -> bool {
        matches!(monitor.changed().now_or_never(), Some(SessionStatus::Ended))
    }

    #[tokio::test]
    async fn session_that_is_used_is_checked_when_it_is_due() {
        let (monitors, now) = (SessionMonitors::default(), Clock.mono());
        let (monitor, monitored) = monitors.monitor(&session("a"), HOUR, now, now + HOUR / 2);
        let monitored = monitored.unwrap();
        let next = || monitored.schedule().next;
        assert_eq!(next(), now + HOUR);
        monitor.usage().record();
        assert_eq!(next(), now + HOUR / 2, "used before it is due");

        monitored.start_check(now);
        monitored.set_due(now + HOUR / 4);
        assert_eq!(next(), now + HOUR / 4, "the use is not forgotten by a check before it is due");
        assert!(monitored.take_used());
        monitored.start_check(now);
        monitored.set_due(now);
        assert_eq!(next(), now + HOUR, "not used");
        assert!(monitored.wait_until_due().now_or_never().is_none());
        monitor.usage().record();
        assert_eq!(next(), now, "used when it is due");
        monitored.wait_until_due().await;
    }

    #[test]
    fn renamed_session_keeps_its_monitors_even_if_the_new_key_is_monitored() {
        let (monitors, now) = (SessionMonitors::default(), Clock.mono());
        let (mut old, _) = monitors.monitor(&session("a"), HOUR, now, now + HOUR);
        let (mut new, _) = monitors.monitor(&session("b"), HOUR, now, now + HOUR);
        monitors.rename(&Key::string("a"), &Key::string("b"));
        monitors.end(&Key::string("a"));
        assert!(!is_ended(&mut old) && !is_ended(&mut new));
        monitors.end(&Key::string("b"));
        assert!(is_ended(&mut old) && is_ended(&mut new));
        assert!(monitors.lock().is_empty());
    }

    #[test]
    fn session_without_a_monitor_is_removed() {
        let (monitors, now) = (SessionMonitors::default(), Clock.mono());
        let (first, monitored) = monitors.monitor(&session("a"), HOUR, now, now + HOUR);
        let (monitored, (second, none)) =
            (monitored.unwrap(), monitors.monitor(&session("a"), HOUR, now, now + HOUR));
        assert!(none.is_none(), "one session for both monitors");
        drop(first);
        assert!(!monitors.remove_if_unmonitored(&monitored));
        drop(second);
        assert!(monitors.remove_if_unmonitored(&monitored));
        assert!(monitors.lock().is_empty());
    }
}
