//! At most one line a second of what would repeat itself, and how many there would have been.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::time::Clock;

/// How long after a line the next one waits.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets one through a second.
#[derive(Debug)]
pub struct Throttle {
    began: Instant,
    /// Milliseconds after `began` until which nothing more goes through.
    until: AtomicU64,
    suppressed: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { began: Clock.mono(), until: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// Whether a line may be written at `now`, and how many were not since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let now = u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX);
        let until = self.until.load(Ordering::Relaxed);
        let next = now.saturating_add(u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX));
        // Of two at the same moment, one passes.
        if now < until
            || self.until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.suppressed.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_passes_and_the_others_are_counted() {
        let (throttle, now) = (Throttle::default(), Clock.mono());
        assert_eq!(throttle.pass(now), Some(0));
        assert_eq!((throttle.pass(now), throttle.pass(now + PAUSE / 2)), (None, None));
        assert_eq!(throttle.pass(now + 2 * PAUSE), Some(2));
        assert_eq!(throttle.pass(now + 2 * PAUSE), None);
    }
}
