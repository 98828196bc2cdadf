//! A target is one address of a server, with the state that all workers share: load, health, counters.
//!
//! Two states take a target out of load balancing. *Down*: health checks fail, and only health checks bring the target
//! back. *Ejected*: requests failed in a row (outlier detection). An ejected target is used again when the ejection period
//! is over. If the first request then fails, it is ejected again for twice as long; if it succeeds, the ejection ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::endpoint::{Address, Endpoint};
use crate::config::{Ejection, Health};
use crate::http1::Repairs;
use crate::time::Clock;

/// Limit on the ejection period, unless the configured period is longer.
const MAX_EJECTION: Duration = Duration::from_mins(5);

/// No health check has completed yet. The target is used, and the first check sets its health.
const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// One address of one server.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) address: Address,
    pub(super) label: Arc<str>,
    /// The hash of the label, for rendezvous hashing.
    pub(super) hash: u64,
    /// A permit for each request in flight; `None` if their number is not limited.
    pub(super) permits: Option<Arc<Semaphore>>,
    pub(super) in_flight: AtomicUsize,
    pub(super) connections: AtomicUsize,
    pub(super) connected: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) ejections: AtomicU64,
    pub(super) health_changes: AtomicU64,
    /// Whether the server once did not respond to `Expect: 100-continue` in time.
    pub(super) ignores_expect: AtomicBool,
    /// Bit set of the kinds of repairs that have been logged.
    logged_repairs: AtomicU8,
    health: AtomicU8,
    /// Health checks in a row that contradict `health`.
    contradictions: AtomicU32,
    /// Failed requests in a row.
    failures: AtomicU32,
    /// End of the last ejection, in milliseconds since `created`; 0 if the target was never ejected or has succeeded
    /// since.
    ejected_until: AtomicU64,
    /// The number of ejections in a row; the period doubles with each.
    level: AtomicU32,
    /// Time of the last success after an ejection, in milliseconds since `created`.
    recovered: AtomicU64,
    /// Time of the last failed request once `failures` has reached the limit, in milliseconds since `created`; 0 if a
    /// request has succeeded since, even if the target is still ejected.
    failed_at: AtomicU64,
    created: Instant,
}

/// The availability of a target for requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetStatus {
    Available,
    /// Its requests failed. Used only if no target is available.
    Ejected,
    /// Its health checks failed. Not used.
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
            permits: max_connections.map(|max| Arc::new(Semaphore::new(max))),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connected: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
            ejections: AtomicU64::new(0),
            health_changes: AtomicU64::new(0),
            ignores_expect: AtomicBool::new(false),
            logged_repairs: AtomicU8::new(0),
            health: AtomicU8::new(UNKNOWN),
            contradictions: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            level: AtomicU32::new(0),
            recovered: AtomicU64::new(0),
            failed_at: AtomicU64::new(0),
            created: Clock.mono(),
        }
    }

    /// Logs the repairs that were made to a response, once for each kind.
    pub(super) fn log_repairs(&self, upstream: &str, repairs: &Repairs) {
        for (kind, header) in repairs {
            let bit = 1 << *kind as u8;
            if self.logged_repairs.fetch_or(bit, Relaxed) & bit == 0 {
                let (server, message) = (&*self.label, kind.message());
                tracing::warn!(upstream, server, header, "{message}");
            }
        }
    }

    /// Returns whether the target is used. Reads the clock only if the target was ejected and has not succeeded since.
    pub(super) fn status(&self) -> TargetStatus {
        if self.health.load(Relaxed) == DOWN {
            return TargetStatus::Down;
        }
        match self.ejected_until.load(Relaxed) {
            0 => TargetStatus::Available,
            until if self.millis() < until => TargetStatus::Ejected,
            _ => TargetStatus::Available,
        }
    }

    /// Returns whether the target is ejected and a request to it has failed less than one period of `ejection` ago. Older
    /// failures do not count: a gateway that is not ready because of them gets no requests, and would never find out that
    /// the server works again.
    pub(super) fn is_failing(&self, ejection: Option<&Ejection>) -> bool {
        let Some(ejection) = ejection else { return false };
        let failed_at = self.failed_at.load(Relaxed);
        self.status() == TargetStatus::Ejected
            && failed_at != 0
            && self.millis().saturating_sub(failed_at) < millis(ejection.period)
    }

    /// Records a success. An ejected target stays ejected, since the request may have been sent before the ejection.
    pub(super) fn succeeded(&self, upstream: &str) {
        if self.failures.load(Relaxed) == 0 {
            return;
        }
        self.failed_at.store(0, Relaxed);
        if self.status() == TargetStatus::Ejected {
            return;
        }
        self.failures.store(0, Relaxed);
        if self.ejected_until.swap(0, Relaxed) != 0 {
            self.recovered.store(self.millis(), Relaxed);
            tracing::info!(upstream, server = %self.label, "a server is back");
        }
    }

    /// Records a failure, which may eject the target.
    pub(super) fn failed(&self, upstream: &str, ejection: Option<&Ejection>, reason: &str) {
        let Some(ejection) = ejection else { return };
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < ejection.failures {
            return;
        }
        let now = self.millis();
        self.failed_at.store(now, Relaxed);
        let until = self.ejected_until.load(Relaxed);
        // Requests that were in flight at the ejection may fail as well. They do not extend it.
        if until > now {
            return;
        }
        let level = self.level.load(Relaxed);
        let in_a_row =
            until != 0 || now.saturating_sub(self.recovered.load(Relaxed)) < period(ejection, level);
        let level = if level > 0 && in_a_row { level.saturating_add(1) } else { 1 };
        let millis = period(ejection, level);
        // If several workers get here, one of them ejects the target.
        if self.ejected_until.compare_exchange(until, now.saturating_add(millis), Relaxed, Relaxed).is_ok() {
            self.level.store(level, Relaxed);
            self.ejections.fetch_add(1, Relaxed);
            let period = humantime::format_duration(Duration::from_millis(millis));
            tracing::warn!(upstream, server = %self.label, failures, %period, reason, "a server is ejected");
        }
    }

    /// Records the result of a health check. Must be called by one task at a time.
    pub(super) fn checked(&self, upstream: &str, health: &Health, result: Result<(), String>) {
        let (health_now, threshold) = match result {
            Ok(()) => (UP, health.healthy),
            Err(_) => (DOWN, health.unhealthy),
        };
        let before = self.health.load(Relaxed);
        if before == health_now {
            self.contradictions.store(0, Relaxed);
            return;
        }
        let contradictions = self.contradictions.fetch_add(1, Relaxed).saturating_add(1);
        if before != UNKNOWN && contradictions < threshold {
            return;
        }
        self.contradictions.store(0, Relaxed);
        self.health.store(health_now, Relaxed);
        self.health_changes.fetch_add(1, Relaxed);
        match result {
            Ok(()) => {
                // The target works again, so earlier failures no longer count.
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
        // Never 0, which means "never" in the fields above.
        millis(Clock.mono().saturating_duration_since(self.created)).saturating_add(1)
    }
}

/// Returns the duration of an ejection of this level in milliseconds.
fn period(ejection: &Ejection, level: u32) -> u64 {
    let doubled = ejection.period.saturating_mul(1 << level.saturating_sub(1).min(16));
    millis(doubled.min(MAX_EJECTION.max(ejection.period)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::StatusRanges;

    #[test]
    fn ejection_period_doubles_up_to_its_limit() {
        let ejection =
            Ejection { failures: 5, period: Duration::from_secs(10), status: StatusRanges::default() };
        let periods = [1, 2, 3, 6, 20, u32::MAX].map(|level| period(&ejection, level) / 1000);
        assert_eq!(periods, [10, 20, 40, 300, 300, 300]);
        let long = Ejection { period: Duration::from_mins(10), ..ejection };
        assert_eq!(period(&long, 3), 600_000);
    }
}
