//! The state of the gateway that health checks and metrics report: whether it is draining, whether its workers are
//! alive, and the outcomes of reloads. The server and the reloader (`cli/serve/reloader.rs`)
//! write it, and nothing in the server depends on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::proxy::Tunnels;
use crate::time::{Clock, Timestamp};

/// A worker counts as stuck when its last heartbeat is this old. Workers send one every second from their event loop.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

/// The state of a running gateway.
#[derive(Debug)]
pub struct State {
    draining: AtomicBool,
    /// The time of each worker's last heartbeat, in milliseconds since `started`; `u64::MAX` for a worker that has ended.
    heartbeats: Box<[AtomicU64]>,
    started: Instant,
    generation: AtomicU64,
    reloaded: AtomicU64,
    failed_reloads: AtomicU64,
    /// When the current configuration was applied, in milliseconds since the Unix epoch.
    last_reload: AtomicI64,
    tunnels: Arc<Tunnels>,
}

/// The outcomes of reloads since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadCounters {
    /// Reloads that were applied.
    pub done: u64,
    /// Reloads that failed and changed nothing.
    pub failed: u64,
    /// Time at which the current configuration was applied: the start, or the last successful reload.
    pub last: Timestamp,
    /// The number of the current generation; the first is 1.
    pub generation: u64,
}

impl State {
    pub(super) fn new(workers: usize) -> Self {
        let now = Clock.now();
        Self {
            draining: AtomicBool::new(false),
            heartbeats: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            started: now.mono,
            generation: AtomicU64::new(1),
            reloaded: AtomicU64::new(0),
            failed_reloads: AtomicU64::new(0),
            last_reload: AtomicI64::new(now.wall.as_millis()),
            tunnels: Arc::default(),
        }
    }

    /// Returns whether the gateway is about to end, so that load balancers should send requests elsewhere.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns whether every worker has sent a heartbeat recently or has ended.
    pub fn is_alive(&self) -> bool {
        let age = Clock.mono().saturating_duration_since(self.started);
        self.heartbeats.iter().all(|heartbeat| {
            let last = Duration::from_millis(heartbeat.load(Ordering::Relaxed));
            age.saturating_sub(last) < HEARTBEAT_TIMEOUT
        })
    }

    /// Returns the counters of WebSocket tunnels.
    pub fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    /// Returns the outcomes of reloads since the start.
    pub fn reloads(&self) -> ReloadCounters {
        ReloadCounters {
            done: self.reloaded.load(Ordering::Relaxed),
            failed: self.failed_reloads.load(Ordering::Relaxed),
            last: Timestamp::from_millis(self.last_reload.load(Ordering::Relaxed)),
            generation: self.generation.load(Ordering::Relaxed),
        }
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Records a heartbeat of worker `number`.
    pub(super) fn record_heartbeat(&self, number: usize, now: Instant) {
        if let Some(heartbeat) = self.heartbeats.get(number) {
            let age = now.saturating_duration_since(self.started).as_millis();
            heartbeat.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Records that worker `number` has ended. It sends no more heartbeats, and does not count as stuck.
    pub(super) fn record_end(&self, number: usize) {
        if let Some(heartbeat) = self.heartbeats.get(number) {
            heartbeat.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Counts a reload that was applied.
    pub(super) fn reloaded(&self) {
        self.reloaded.fetch_add(1, Ordering::Relaxed);
        self.last_reload.store(Clock.wall().as_millis(), Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reload that failed.
    pub fn reload_failed(&self) {
        self.failed_reloads.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_is_not_alive_without_a_heartbeat_of_every_worker() {
        let state = State::new(2);
        assert!(state.is_alive());
        let state = State { started: state.started.checked_sub(HEARTBEAT_TIMEOUT * 2).unwrap(), ..state };
        state.record_heartbeat(0, Clock.mono());
        assert!(!state.is_alive());
        state.record_heartbeat(1, Clock.mono());
        assert!(state.is_alive());
    }

    #[test]
    fn draining_gateway_is_alive_when_a_worker_has_ended() {
        let state = State::new(2);
        let state = State { started: state.started.checked_sub(HEARTBEAT_TIMEOUT * 2).unwrap(), ..state };
        state.record_end(0);
        assert!(!state.is_alive());
        state.record_heartbeat(1, Clock.mono());
        assert!(state.is_alive());
    }

    #[test]
    fn reloads_are_counted_by_outcome() {
        let state = State::new(1);
        assert_eq!((state.reloads().generation, state.reloads().done), (1, 0));
        state.reloaded();
        state.reload_failed();
        let reloads = state.reloads();
        assert_eq!((reloads.generation, reloads.done, reloads.failed), (2, 1, 1));
    }
}
