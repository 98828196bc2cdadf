//! Outages of the store: when it failed last, and which of its errors are logged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::StoreError;
use crate::telemetry::throttle::Throttle;
use crate::time::Clock;

/// How long after a failure the store counts as unavailable, for operations that can do without it.
const OUTAGE_DURATION: Duration = Duration::from_secs(1);

/// Limits the log messages of an outage to one per second for each kind of failure.
#[derive(Debug, Default)]
pub(super) struct FailureLog {
    throttled: Throttle,
    unavailable: Throttle,
    denied: Throttle,
    other: Throttle,
}

impl FailureLog {
    /// Returns the number of messages suppressed since the last one if `error` is to be logged, or `None` if not.
    pub(super) fn admit(&self, error: &StoreError, now: Instant) -> Option<u64> {
        let kind = match error {
            StoreError::Throttled => &self.throttled,
            StoreError::Unavailable(_) => &self.unavailable,
            StoreError::Denied(_) => &self.denied,
            StoreError::NoSuchTable(_) | StoreError::TooLarge | StoreError::Invalid(_) => &self.other,
        };
        kind.pass(now)
    }
}

/// The time of the latest failure of one kind of operation.
#[derive(Debug)]
pub(super) struct Outage {
    created_at: Instant,
    /// The time of the latest failure, in milliseconds after `created_at`, plus one; 0 before the first one.
    latest: AtomicU64,
}

impl Outage {
    pub(super) fn new(clock: Clock) -> Self {
        Self { created_at: clock.mono(), latest: AtomicU64::new(0) }
    }

    /// Records a failure.
    pub(super) fn record(&self, now: Instant) {
        self.latest.store(self.millis(now) + 1, Ordering::Relaxed);
    }

    /// Returns whether an operation has failed within [`OUTAGE_DURATION`].
    pub(super) fn is_active(&self, now: Instant) -> bool {
        let latest = self.latest.load(Ordering::Relaxed);
        latest != 0 && u128::from(self.millis(now).saturating_sub(latest - 1)) < OUTAGE_DURATION.as_millis()
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.created_at).as_millis()).unwrap_or(u64::MAX - 1)
    }
}
