//! What the rest of the process may know of the gateway at any time: whether it takes requests, whether its workers are
//! alive, and what became of its reloads. Read by probes and metrics, written by the server alone; it never decides
//! anything itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::proxy::Tunnels;
use crate::time::{Clock, Timestamp};

/// A worker that has not been heard of for this long is stuck. They report every second, between requests.
const SILENCE: Duration = Duration::from_secs(5);

/// The state of a running gateway, shared by all who want to know.
#[derive(Debug)]
pub struct State {
    draining: AtomicBool,
    /// Of each worker, when it reported last: milliseconds since `born`.
    pulses: Box<[AtomicU64]>,
    born: Instant,
    generation: AtomicU64,
    reloaded: AtomicU64,
    refused: AtomicU64,
    /// Milliseconds since the epoch.
    last_reload: AtomicI64,
    tunnels: Arc<Tunnels>,
}

/// What became of the reloads so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReloadCounters {
    /// How many were carried out.
    pub done: u64,
    /// How many changed nothing because something was wrong.
    pub failed: u64,
    /// When the configuration in force came into force: at the start, or by the last reload that was carried out.
    pub last: Timestamp,
    /// The number of the configuration in force; the first is 1.
    pub generation: u64,
}

impl State {
    pub(super) fn new(workers: usize) -> Self {
        let now = Clock.now();
        Self {
            draining: AtomicBool::new(false),
            pulses: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            born: now.mono,
            generation: AtomicU64::new(1),
            reloaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            last_reload: AtomicI64::new(now.wall.as_millis()),
            tunnels: Arc::default(),
        }
    }

    /// Whether the gateway is about to end: whoever sends it requests should look for another.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether every worker has got round to reporting lately.
    pub fn is_alive(&self) -> bool {
        let age = Clock.mono().saturating_duration_since(self.born);
        self.pulses.iter().all(|pulse| {
            let last = Duration::from_millis(pulse.load(Ordering::Relaxed));
            age.saturating_sub(last) < SILENCE
        })
    }

    /// The WebSockets that are open, and what became of those that were.
    pub fn tunnels(&self) -> &Arc<Tunnels> {
        &self.tunnels
    }

    /// What became of the reloads.
    pub fn reloads(&self) -> ReloadCounters {
        ReloadCounters {
            done: self.reloaded.load(Ordering::Relaxed),
            failed: self.refused.load(Ordering::Relaxed),
            last: Timestamp::from_millis(self.last_reload.load(Ordering::Relaxed)),
            generation: self.generation.load(Ordering::Relaxed),
        }
    }

    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Worker `number` is alive.
    pub(super) fn beat(&self, number: usize, now: Instant) {
        if let Some(pulse) = self.pulses.get(number) {
            let age = now.saturating_duration_since(self.born).as_millis();
            pulse.store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// A reload was carried out.
    pub(super) fn reloaded(&self) {
        self.reloaded.fetch_add(1, Ordering::Relaxed);
        self.last_reload.store(Clock.now().wall.as_millis(), Ordering::Relaxed);
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    /// A reload changed nothing because something was wrong.
    pub fn reload_failed(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_worker_is_enough() {
        let state = State::new(2);
        assert!(state.is_alive());
        let state = State { born: state.born.checked_sub(SILENCE * 2).unwrap(), ..state };
        state.beat(0, Clock.mono());
        assert!(!state.is_alive());
        state.beat(1, Clock.mono());
        assert!(state.is_alive());
    }

    #[test]
    fn reloads_are_counted() {
        let state = State::new(1);
        assert_eq!((state.reloads().generation, state.reloads().done), (1, 0));
        state.reloaded();
        state.reload_failed();
        let reloads = state.reloads();
        assert_eq!((reloads.generation, reloads.done, reloads.failed), (2, 1, 1));
    }
}
