//! Whether a table can be written, by what became of its last writes.
//!
//! Each kind of write is watched apart: a role may be allowed to make rows and not to change them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many writes of a kind have to fail in a row. One may fail for itself, such as that of a row that is written too
/// often.
const FAILURES: u32 = 3;
/// How long a failure counts. A gateway that gets no requests for reporting it gets some again, and finds out.
const MEMORY: Duration = Duration::from_secs(30);

/// What became of the last writes of a table, by operation.
#[derive(Debug, Default)]
pub(super) struct WriteHealth(Mutex<BTreeMap<&'static str, WriteFailures>>);

/// Failures in a row.
#[derive(Clone, Copy, Debug)]
struct WriteFailures {
    count: u32,
    latest: Instant,
    outcome: &'static str,
}

impl WriteHealth {
    /// Records that a write ended at `now` with this outcome, as the metrics name it.
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
            // The fault of what was to be written.
            _ => {}
        }
    }

    /// Returns the outcome of the last writes of some kind, if they have failed.
    pub(super) fn failing(&self, now: Instant) -> Option<&'static str> {
        let failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_failing = |failures: &&WriteFailures| {
            failures.count >= FAILURES && now.saturating_duration_since(failures.latest) < MEMORY
        };
        failures.values().find(is_failing).map(|failures| failures.outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    #[test]
    fn writes_of_a_kind_fail_after_three_failures_in_a_row_for_a_while() {
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
        assert_eq!(health.failing(now + MEMORY), None);
        health.record("update", "unavailable", now + MEMORY);
        assert_eq!(health.failing(now + MEMORY), Some("unavailable"));
        health.record("update", "done", now + MEMORY);
        assert_eq!(health.failing(now + MEMORY), None);
    }
}
