//! Sessions that something long depends on: a WebSocket, a stream of events, a download.
//!
//! 1. A watched session is read again at its watchers' pace: one read for all of them, and none where a request has
//!    read the row meanwhile.
//! 2. Only *absent* and *expired* end it. A store that does not answer says nothing.
//! 3. What this gateway itself does to a session, its watchers learn at once.
//! 4. What comes over a WebSocket is a use of the session, and written down as one of a request would be.
//!
//! What a session must be like besides alive is the watchers' own business: they are handed each row that is read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::{Notify, watch};

use super::judge::{SessionVerdict, judge};
use super::{Lookup, Realm, Session};
use crate::item::Key;

/// A realm's watched sessions. There are as many as there are watchers at most, and those are connections.
#[derive(Debug, Default)]
pub(super) struct SessionMonitors {
    watched: Mutex<HashMap<Key, Arc<MonitoredSession>, RandomState>>,
}

/// One of them.
#[derive(Debug)]
struct MonitoredSession {
    status: watch::Sender<SessionStatus>,
    schedule: Mutex<Schedule>,
    /// Told when `Schedule::next` has been brought forward.
    sooner: Notify,
    used: AtomicBool,
}

#[derive(Clone, Debug)]
struct Schedule {
    /// A change of id changes it.
    key: Key,
    /// The shortest that a watcher has asked for.
    interval: Duration,
    next: Instant,
}

/// How it stands with a watched session.
#[derive(Clone, Debug)]
pub(crate) enum SessionStatus {
    /// It is good, by the row that was read last.
    Live(Arc<Session>),
    /// It has ended.
    Ended,
}

/// A watcher's view. The session is watched for as long as one is held.
#[derive(Debug)]
pub(crate) struct SessionMonitor {
    status: watch::Receiver<SessionStatus>,
    watched: Arc<MonitoredSession>,
}

/// Where a watcher notes that the session is used.
#[derive(Clone, Debug)]
pub(crate) struct Usage(Arc<MonitoredSession>);

impl Realm {
    /// SessionMonitors `session`, which was good at `known`: from then on it is read again at least every `interval`.
    pub(crate) fn monitor(
        self: &Arc<Self>,
        session: &Arc<Session>,
        interval: Duration,
        known: Instant,
    ) -> SessionMonitor {
        let next = known + interval;
        let mut all = self.monitors.lock();
        if let Some(watched) = all.get(&session.key) {
            watched.join(interval, next);
            return SessionMonitor::of(watched);
        }
        let watched = Arc::new(MonitoredSession {
            status: watch::Sender::new(SessionStatus::Live(Arc::clone(session))),
            schedule: Mutex::new(Schedule { key: session.key.clone(), interval, next }),
            sooner: Notify::new(),
            used: AtomicBool::new(false),
        });
        all.insert(session.key.clone(), Arc::clone(&watched));
        drop(all);
        let watch = SessionMonitor::of(&watched);
        // Ends with its last watcher.
        self.tasks.spawn_on(Arc::clone(self).keep(watched), &self.control);
        watch
    }

    /// Reads a watched session again whenever it is time, until nobody watches it any more.
    async fn keep(self: Arc<Self>, watched: Arc<MonitoredSession>) {
        loop {
            tokio::select! {
                () = watched.due() => self.check(&watched).await,
                () = watched.status.closed() => if self.monitors.leave(&watched) {
                    return;
                },
            }
        }
    }

    async fn check(self: &Arc<Self>, watched: &MonitoredSession) {
        let now = self.clock.now();
        let Schedule { key, interval, .. } = watched.begin(now.mono);
        let SessionStatus::Live(last) = watched.status.borrow().clone() else { return };
        let is_recent = |read_at: &Instant| now.mono.saturating_duration_since(*read_at) < interval;
        let lookup = match self.cache.last(&key).filter(|(_, read_at)| is_recent(read_at)) {
            Some((session, read_at)) => {
                watched.join(interval, read_at + interval);
                Lookup::Found(session)
            }
            None => self.read_anew(&key, last.record.version).await,
        };
        let session = match lookup {
            Lookup::Unavailable => return,
            Lookup::Absent(_) => return self.monitors.end(&key),
            Lookup::Found(session) => session,
        };
        match judge(&self.policy, &session.record, now.wall) {
            SessionVerdict::Idle | SessionVerdict::TooOld => self.monitors.end(&key),
            SessionVerdict::Live(life) => {
                let used = watched.used.swap(false, Ordering::Relaxed);
                if let Some(due) = life.due.filter(|_| used) {
                    // It runs on by itself; what comes of it shows at the next check.
                    self.reissue(&session, due, now);
                }
                watched.publish(SessionStatus::Live(session));
            }
        }
    }
}

impl SessionMonitors {
    /// The session of `key` has ended.
    pub(super) fn end(&self, key: &Key) {
        // Whoever comes later asks the table.
        if let Some(watched) = self.lock().remove(key) {
            watched.publish(SessionStatus::Ended);
        }
    }

    /// The session of `old` goes on under the key `new`.
    pub(super) fn rename(&self, old: &Key, new: &Key) {
        let mut all = self.lock();
        if let Some(watched) = all.remove(old) {
            watched.schedule().key = new.clone();
            all.insert(new.clone(), watched);
        }
    }

    /// The session has just been written, as it is now.
    pub(super) fn publish(&self, session: &Arc<Session>) {
        if let Some(watched) = self.lock().get(&session.key) {
            watched.publish(SessionStatus::Live(Arc::clone(session)));
        }
    }

    /// Somebody else has changed the session of `key`, if not ended it.
    pub(super) fn hasten(&self, key: &Key, now: Instant) {
        if let Some(watched) = self.lock().get(key) {
            let interval = watched.schedule().interval;
            watched.join(interval, now);
        }
    }

    /// Takes a session off that nobody watches any more; whether that is so.
    fn leave(&self, watched: &Arc<MonitoredSession>) -> bool {
        let mut all = self.lock();
        if watched.status.receiver_count() > 0 {
            return false;
        }
        let key = &watched.schedule().key;
        if all.get(key).is_some_and(|other| Arc::ptr_eq(other, watched)) {
            all.remove(key);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<MonitoredSession>, RandomState>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MonitoredSession {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the session is read by `next`, and then every `interval`.
    fn join(&self, interval: Duration, next: Instant) {
        let mut schedule = self.schedule();
        schedule.interval = schedule.interval.min(interval);
        if next < schedule.next {
            schedule.next = next;
            self.sooner.notify_one();
        }
    }

    /// A check begins; the next is due after a whole interval, unless somebody brings it forward.
    fn begin(&self, now: Instant) -> Schedule {
        let mut schedule = self.schedule();
        schedule.next = now + schedule.interval;
        schedule.clone()
    }

    /// Waits until the next check is due.
    async fn due(&self) {
        loop {
            let next = self.schedule().next;
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => return,
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Tells the watchers. A session that has ended stays so, whatever a read that began before has seen.
    fn publish(&self, status: SessionStatus) {
        self.status.send_if_modified(|last| {
            let goes_on = matches!(last, SessionStatus::Live(_));
            if goes_on {
                *last = status;
            }
            goes_on
        });
    }
}

impl SessionMonitor {
    fn of(watched: &Arc<MonitoredSession>) -> Self {
        let mut status = watched.status.subscribe();
        // What is known already is news to who has just come.
        status.mark_changed();
        Self { status, watched: Arc::clone(watched) }
    }

    /// How it stands with the session: now, and then whenever it has been read again.
    pub(crate) async fn changed(&mut self) -> SessionStatus {
        match self.status.changed().await {
            Ok(()) => self.status.borrow_and_update().clone(),
            // Not to be: the other end is held by this one.
            Err(_) => SessionStatus::Ended,
        }
    }

    /// Where to note that the session is used.
    pub(crate) fn usage(&self) -> Usage {
        Usage(Arc::clone(&self.watched))
    }
}

impl Usage {
    /// The session is used.
    pub(crate) fn record(&self) {
        self.0.used.store(true, Ordering::Relaxed);
    }
}
