//! Whether a table accepts writes, judged by the outcomes of recent writes.
//!
//! Each operation is judged separately: a role may be allowed to create rows and not to change them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The number of consecutive failures of an operation at which it counts as failing. A single write may fail for a reason
/// of its own, such as a row that is written too often.
const FAILURES: u32 = 3;
/// How long a failure counts. A load balancer sends no requests to a gateway that is not ready; after
/// this time, the gateway is ready again, and the next writes show whether they still fail.
const FAILURE_TTL: Duration = Duration::from_secs(30);

/// The outcomes of a table's recent writes, by operation.
#[derive(Debug, Default)]
pub(super) struct WriteHealth(Mutex<BTreeMap<&'static str, WriteFailures>>);

/// Consecutive failures.
#[derive(Clone, Copy, Debug)]
struct WriteFailures {
    count: u32,
    latest: Instant,
    outcome: &'static str,
}

impl WriteHealth {
    /// Records that a write ended at `now` with this outcome, by its label in the metrics.
    pub(super) fn record(&self, operation: &'static str, outcome: &'static str, now: Instant) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            "done" | "refused" => {
                failures.remove(operation);
            }
            "throttled" | "unavailable" | "denied" | "no-table" => {
                let count = failures.get(operation).map_or(0, |failures| failures.count).saturating_add(1);
                failures.insert(operation, WriteFailures { count, latest: now, outcome });
            }
            // The row or the request was invalid.
            _ => {}
        }
    }

    /// Returns the outcome of the latest write of an operation that is failing, or `None` if none is.
    pub(super) fn failing(&self, now: Instant) -> Option<&'static str> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_failing = |failures: &&WriteFailures| {
            failures.count >= FAILURES && now.saturating_duration_since(failures.latest) < FAILURE_TTL
        };
        failures.values().find(is_failing).map(|failures| failures.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    #[test]
    fn operation_is_failing_after_three_consecutive_failures_for_a_while() {
        let (health, now) = (WriteHealth::default(), Clock.mono());
        for outcomes in [
            &["denied", "denied", "done"][..],
            &["denied", "denied", "refused", "denied", "denied"],
            &["too-large", "invalid", "too-large", "invalid"],
        ] {
            outcomes.iter().for_each(|outcome| health.record("update", outcome, now));
            assert_eq!(health.failing(now), None, "{outcomes:?}");
        }
        health.record("update", "throttled", now);
        health.record("create", "done", now);
        assert_eq!(health.failing(now), Some("throttled"));
        assert_eq!(health.failing(now + FAILURE_TTL), None);
        health.record("update", "unavailable", now + FAILURE_TTL);
        assert_eq!(health.failing(now + FAILURE_TTL), Some("unavailable"));
        health.record("update", "done", now + FAILURE_TTL);
        assert_eq!(health.failing(now + FAILURE_TTL), None);
    }
}
