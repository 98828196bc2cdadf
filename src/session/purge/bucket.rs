//! A token bucket over read capacity. What a page costs is known only when it is there, so the bucket goes into debt,
//! and the next page waits until the debt is paid: over any longer time the rate is kept.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// The bucket. It holds at most what a second brings.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Units a second.
    rate: f64,
    /// Below zero: debt.
    balance: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self { rate: f64::from(rate.get()), balance: 0.0, at: now }
    }

    /// How long it takes until something may be spent; zero: now.
    pub(super) fn wait(&mut self, now: Instant) -> Duration {
        let earned = self.rate * now.saturating_duration_since(self.at).as_secs_f64();
        self.balance = (self.balance + earned).min(self.rate);
        self.at = now;
        let debt = (-self.balance).max(0.0);
        // Rounded up, so that who has waited is not told to wait for another nothing.
        if debt > 0.0 {
            Duration::from_secs_f64(debt / self.rate).max(Duration::from_millis(1))
        } else {
            Duration::ZERO
        }
    }

    pub(super) fn spend(&mut self, units: f64) {
        self.balance -= units.max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_are_paid_at_the_rate() {
        let start = crate::time::Clock.mono();
        let at = |millis| start + Duration::from_millis(millis);
        let mut bucket = Bucket::new(NonZeroU32::new(10).unwrap(), start);
        assert_eq!(bucket.wait(at(0)), Duration::ZERO);
        bucket.spend(25.0);
        assert_eq!(bucket.wait(at(0)), Duration::from_millis(2500));
        assert_eq!(bucket.wait(at(1000)), Duration::from_millis(1500));
        assert_eq!(bucket.wait(at(2500)), Duration::ZERO);
        bucket.spend(1.0);
        assert_eq!(bucket.wait(at(2500)), Duration::from_millis(100));
        // However long nothing was spent, a second's worth is all there is.
        assert_eq!(bucket.wait(at(60_000)), Duration::ZERO);
        bucket.spend(20.0);
        assert_eq!(bucket.wait(at(60_000)), Duration::from_secs(1));
    }
}
