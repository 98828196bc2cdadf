//! A token bucket for read capacity. The cost of a page is known only after it was read, so the bucket may go into debt,
//! and the next page waits until the debt is paid. Over a longer time, the rate is exact.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The bucket, whose size is the refill of one second.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Refill, in units per second.
    rate: f64,
    /// The units in the bucket; negative for debt.
    balance: f64,
    /// The time of `balance`.
    updated_at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self { rate: f64::from(rate.get()), balance: 0.0, updated_at: now }
    }

    /// Returns the time until the bucket has no debt, which may be zero.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let refill = self.rate * now.saturating_duration_since(self.updated_at).as_secs_f64();
        self.balance = (self.balance + refill).min(self.rate);
        self.updated_at = now;
        let debt = (-self.balance).max(0.0);
        // At least 1 ms, since a wait of zero means that there is no debt.
        if debt > 0.0 {
            Duration::from_secs_f64(debt / self.rate).max(Duration::from_millis(1))
        } else {
            Duration::ZERO
        }
    }

    pub(super) fn debit(&mut self, units: f64) {
        self.balance -= units.max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debt_is_paid_at_the_rate() {
        let start = crate::time::Clock.mono();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::new(NonZeroU32::new(10).unwrap(), start);
        assert_eq!(bucket.wait(at(0)), Duration::ZERO);
        bucket.debit(25.0);
        assert_eq!(bucket.wait(at(0)), Duration::from_millis(2500));
        assert_eq!(bucket.wait(at(1000)), Duration::from_millis(1500));
        assert_eq!(bucket.wait(at(2500)), Duration::ZERO);
        bucket.debit(1.0);
        assert_eq!(bucket.wait(at(2500)), Duration::from_millis(100));
        // The bucket never contains more than the refill of one second.
        assert_eq!(bucket.wait(at(60_000)), Duration::ZERO);
        bucket.debit(20.0);
        assert_eq!(bucket.wait(at(60_000)), Duration::from_secs(1));
    }
}
