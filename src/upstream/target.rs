//! One address of one server, and what all workers know of it: what is under way, whether it is well, what it has done.
//!
//! A target is out for one of two reasons. *Down*: it did not answer health checks, and only they bring it back.
//! *Ejected*: requests failed on it, one after the other, and it comes back when its time is over; then the first
//! failure ejects it again, for twice as long, and the first success makes it whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::endpoint::{Address, Endpoint};
use super::wire::Mends;
use crate::config::{Ejection, Health};
use crate::time::Clock;

/// The longest time that a target is ejected for, unless its first is longer.
const LONGEST: Duration = Duration::from_mins(5);

/// What nobody has looked at yet; it is used, and one check decides.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// One address of one server.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) address: Address,
    pub(super) label: Arc<str>,
    /// Of the label: the same in every process.
    pub(super) hash: u64,
    /// Requests under way, each holding one; none: any number.
    pub(super) permits: Option<Arc<Semaphore>>,
    pub(super) in_flight: AtomicUsize,
    pub(super) connections: AtomicUsize,
    pub(super) connected: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) ejections: AtomicU64,
    pub(super) health_changes: AtomicU64,
    /// What of its responses was mended so far, a bit each: it is logged once.
    mended: AtomicU8,
    health: AtomicU8,
    /// Checks in a row that contradict `health`.
    contradictions: AtomicU32,
    /// Failures in a row.
    failures: AtomicU32,
    /// In milliseconds since `born`; 0: not ejected, nor returned without having proved itself.
    ejected_until: AtomicU64,
    /// How often it was ejected with no good time between.
    level: AtomicU32,
    /// When it last proved itself after an ejection, in milliseconds since `born`.
    recovered: AtomicU64,
    born: Instant,
}

/// How a target stands, for who chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetStatus {
    /// In.
    In,
    /// Ejected: for when nothing else is left.
    Ejected,
    /// Down.
    Down,
}

impl Target {
    pub(super) fn new(endpoint: &Arc<Endpoint>, address: Address, max_connections: Option<usize>) -> Self {
        let label = endpoint.label_of(&address);
        Self {
            endpoint: Arc::clone(endpoint),
            address,
            hash: super::balance::hash(label.as_bytes()),
            label,
            permits: max_connections.map(|most| Arc::new(Semaphore::new(most))),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connected: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            health_changes: AtomicU64::new(0),
            mended: AtomicU8::new(0),
            health: AtomicU8::new(UNKNOWN),
            contradictions: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            level: AtomicU32::new(0),
            recovered: AtomicU64::new(0),
            born: Clock.mono(),
        }
    }

    /// A response of it was mended: logged once for each kind.
    pub(super) fn mended(&self, upstream: &str, mends: &Mends) {
        for (mend, header) in mends {
            let bit = 1 << *mend as u8;
            if self.mended.fetch_or(bit, Relaxed) & bit == 0 {
                let (server, what) = (&*self.label, mend.what());
                tracing::warn!(upstream, server, header, "{what}");
            }
        }
    }

    /// Whether requests go to it. Reads no clock unless it was ejected lately.
    pub(super) fn standing(&self) -> TargetStatus {
        if self.health.load(Relaxed) == DOWN {
            return TargetStatus::Down;
        }
        match self.ejected_until.load(Relaxed) {
            0 => TargetStatus::In,
            until if self.millis() < until => TargetStatus::Ejected,
            _ => TargetStatus::In,
        }
    }

    /// A request was answered. Whoever was ejected meanwhile stays so: what answers may have been sent before.
    pub(super) fn succeeded(&self, upstream: &str) {
        if self.failures.load(Relaxed) == 0 || self.standing() == TargetStatus::Ejected {
            return;
        }
        self.failures.store(0, Relaxed);
        if self.ejected_until.swap(0, Relaxed) != 0 {
            self.recovered.store(self.millis(), Relaxed);
            tracing::info!(upstream, server = %self.label, "a server is back");
        }
    }

    /// A request failed, for this reason.
    pub(super) fn failed(&self, upstream: &str, ejection: Option<&Ejection>, reason: &str) {
        let Some(ejection) = ejection else { return };
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < ejection.failures {
            return;
        }
        let now = self.millis();
        let until = self.ejected_until.load(Relaxed);
        // What was under way when it was ejected fails too, and adds nothing.
        if until > now {
            return;
        }
        let level = self.level.load(Relaxed);
        let unbroken = until != 0 || now.saturating_sub(self.recovered.load(Relaxed)) < span(ejection, level);
        let level = if level > 0 && unbroken { level.saturating_add(1) } else { 1 };
        let out = span(ejection, level);
        // One of the workers that see this ejects it, and says so.
        if self.ejected_until.compare_exchange(until, now.saturating_add(out), Relaxed, Relaxed).is_ok() {
            self.level.store(level, Relaxed);
            self.ejections.fetch_add(1, Relaxed);
            let period = humantime::format_duration(Duration::from_millis(out));
            tracing::warn!(upstream, server = %self.label, failures, %period, reason, "a server is ejected");
        }
    }

    /// A health check came to this. Only one task checks a target.
    pub(super) fn checked(&self, upstream: &str, health: &Health, result: Result<(), String>) {
        let (verdict, threshold) = match result {
            Ok(()) => (UP, health.healthy),
            Err(_) => (DOWN, health.unhealthy),
        };
        let before = self.health.load(Relaxed);
        if before == verdict {
            self.contradictions.store(0, Relaxed);
            return;
        }
        let contradictions = self.contradictions.fetch_add(1, Relaxed).saturating_add(1);
        if before != UNKNOWN && contradictions < threshold {
            return;
        }
        self.contradictions.store(0, Relaxed);
        self.health.store(verdict, Relaxed);
        self.health_changes.fetch_add(1, Relaxed);
        match result {
            Ok(()) => {
                // It has just answered, so what was held against it is over.
                self.failures.store(0, Relaxed);
                self.ejected_until.store(0, Relaxed);
                tracing::info!(upstream, server = %self.label, "a server is healthy");
            }
            Err(reason) => {
                tracing::warn!(upstream, server = %self.label, reason, "a server is not healthy");
            }
        }
    }

    fn millis(&self) -> u64 {
        // Never 0, which says that there was no such moment.
        millis(Clock.mono().saturating_duration_since(self.born)).saturating_add(1)
    }
}

/// How long the ejection of this level lasts, in milliseconds.
fn span(ejection: &Ejection, level: u32) -> u64 {
    let doubled = ejection.period.saturating_mul(1 << level.saturating_sub(1).min(16));
    millis(doubled.min(LONGEST.max(ejection.period)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusRanges;

    #[test]
    fn each_ejection_that_follows_upon_the_last_is_twice_as_long() {
        let ejection =
            Ejection { failures: 5, period: Duration::from_secs(10), status: StatusRanges::default() };
        let spans = [1, 2, 3, 6, 20, u32::MAX].map(|level| span(&ejection, level) / 1000);
        assert_eq!(spans, [10, 20, 40, 300, 300, 300]);
        let long = Ejection { period: Duration::from_mins(10), ..ejection };
        assert_eq!(span(&long, 3), 600_000);
    }
}
