//! How many requests may be sent again: so few that an upstream in trouble is not finished off by its own retries.
//!
//! A bucket of tokens that begins full. Each request puts a part of one in, each retry takes one out, and there is no
//! retry from an empty one. In good times it is full, and a request only reads it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What one retry takes.
const RETRY: u32 = 1000;
/// What the bucket holds: so many retries are granted whatever the rate of requests.
const FULL: u32 = 100 * RETRY;

/// The budget of one upstream.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: AtomicU32,
    /// What a request puts in.
    part: u32,
}

impl Budget {
    /// One of `ratio` retries for each request.
    pub(super) fn new(ratio: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 1000")]
        let part = (ratio.clamp(0.001, 1.0) * f64::from(RETRY)) as u32;
        Self { tokens: AtomicU32::new(FULL), part }
    }

    /// There is a request.
    pub(super) fn deposit(&self) {
        if self.tokens.load(Relaxed) < FULL {
            self.tokens.fetch_add(self.part, Relaxed);
        }
    }

    /// Whether there may be a retry, which is then counted.
    pub(super) fn withdraw(&self) -> bool {
        self.tokens.fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(RETRY)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_part_of_the_requests() {
        let budget = Budget::new(0.2);
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100, "the floor");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 10);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100, "no more than it holds");
    }
}
