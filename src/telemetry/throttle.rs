//! Limits a repeated log message to one a second, and counts the suppressed ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::time::Clock;

/// Minimum interval between two messages.
const INTERVAL: Duration = Duration::from_secs(1);

/// Rate limit of one message a second.
#[derive(Debug)]
pub struct Throttle {
    created: Instant,
    /// When the next message may pass, in milliseconds after `created`.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { created: Clock.mono(), next: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }
}

impl Throttle {
    /// Returns the number of messages suppressed since the last one if a message may be logged at `now`, or `None` if it
    /// is suppressed.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let now = u64::try_from(now.saturating_duration_since(self.created).as_millis()).unwrap_or(u64::MAX);
        let next = self.next.load(Ordering::Relaxed);
        let following = now.saturating_add(u64::try_from(INTERVAL.as_millis()).unwrap_or(u64::MAX));
        // Of two concurrent callers, one passes.
        if now < next
            || self.next.compare_exchange(next, following, Ordering::Relaxed, Ordering::Relaxed).is_err()
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
    fn one_message_a_second_passes_and_others_are_counted() {
        let (throttle, now) = (Throttle::default(), Clock.mono());
        assert_eq!(throttle.pass(now), Some(0));
        assert_eq!((throttle.pass(now), throttle.pass(now + INTERVAL / 2)), (None, None));
        assert_eq!(throttle.pass(now + 2 * INTERVAL), Some(2));
        assert_eq!(throttle.pass(now + 2 * INTERVAL), None);
    }
}
