//! Monitoring of the sessions of long-lived responses: WebSockets, event streams, downloads.
//!
//! 1. A monitored session is read again at the shortest interval of its monitors: one read for all of them, and none if a
//!    request has read the row meanwhile.
//! 2. Only an absent or expired row ends the session. An unavailable store does not.
//! 3. A change that this gateway makes to the session is reported at once.
//! 4. A message over a WebSocket is a use of the session, and reissues it as a request does.
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
    sessions: Mutex<HashMap<Key, Arc<MonitoredSession>, RandomState>>,
}

/// A monitored session.
#[derive(Debug)]
pub(super) struct MonitoredSession {
    pub(super) status: watch::Sender<SessionStatus>,
    schedule: Mutex<Schedule>,
    /// Notified when `Schedule::next` is brought forward.
    rescheduled: Notify,
    /// Whether the session was used since the last check.
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
    /// Monitors `session`, which was live at `known_at`, at least every `interval`. If it has no other monitor, also
    /// returns the session, whose checks the caller must run.
    pub(super) fn monitor(
        &self,
        session: &Arc<Session>,
        interval: Duration,
        known_at: Instant,
    ) -> (SessionMonitor, Option<Arc<MonitoredSession>>) {
        let next = known_at + interval;
        let mut sessions = self.lock();
        if let Some(monitored) = sessions.get(session.key()) {
            monitored.check_by(next, interval);
            return (SessionMonitor::new(monitored), None);
        }
        let monitored = Arc::new(MonitoredSession {
            status: watch::Sender::new(SessionStatus::Live(Arc::clone(session))),
            schedule: Mutex::new(Schedule { key: session.key().clone(), interval, next }),
            rescheduled: Notify::new(),
            used: AtomicBool::new(false),
        });
        sessions.insert(session.key().clone(), Arc::clone(&monitored));
        (SessionMonitor::new(&monitored), Some(monitored))
    }

    /// Reports that the session of `key` has ended.
    pub(super) fn end(&self, key: &Key) {
        // A monitor that is created later learns it from its first check.
        if let Some(monitored) = self.lock().remove(key) {
            monitored.publish(SessionStatus::Ended);
        }
    }

    /// Records that the key of a session has changed from `old` to `new`.
    pub(super) fn rename(&self, old: &Key, new: &Key) {
        let mut sessions = self.lock();
        if let Some(monitored) = sessions.remove(old) {
            monitored.schedule().key = new.clone();
            sessions.insert(new.clone(), monitored);
        }
    }

    /// Reports a session that has just been written.
    pub(super) fn publish(&self, session: &Arc<Session>) {
        if let Some(monitored) = self.lock().get(session.key()) {
            monitored.publish(SessionStatus::Live(Arc::clone(session)));
        }
    }

    /// Checks the session of `key` now, since the app may have changed or ended it.
    pub(super) fn check_now(&self, key: &Key, now: Instant) {
        if let Some(monitored) = self.lock().get(key) {
            let interval = monitored.schedule().interval;
            monitored.check_by(now, interval);
        }
    }

    /// Removes a session if it has no monitor, and returns whether it had none.
    pub(super) fn remove_if_unmonitored(&self, monitored: &Arc<MonitoredSession>) -> bool {
        let mut sessions = self.lock();
        if monitored.status.receiver_count() > 0 {
            return false;
        }
        let key = &monitored.schedule().key;
        if sessions.get(key).is_some_and(|other| Arc::ptr_eq(other, monitored)) {
            sessions.remove(key);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<MonitoredSession>, RandomState>> {
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
        if next < schedule.next {
            schedule.next = next;
            self.rescheduled.notify_one();
        }
    }

    /// Starts a check: schedules the next one after an interval.
    pub(super) fn start_check(&self, now: Instant) -> Schedule {
        let mut schedule = self.schedule();
        schedule.next = now + schedule.interval;
        schedule.clone()
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
        self.0.used.store(true, Ordering::Relaxed);
    }
}
