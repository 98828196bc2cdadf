//! The retry budget of an upstream, so that retries do not overload servers that already fail.
//!
//! The budget is a token bucket that starts full. Each request adds a fraction of a token and each retry takes a token.
//! Without a token, no retry is made. While the bucket is full, a request only reads it.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One token, in thousandths.
const TOKEN: u32 = 1000;
/// The size of the bucket: this many retries are allowed at any request rate.
const FULL: u32 = 100 * TOKEN;

/// The retry budget of one upstream.
#[derive(Debug)]
pub(super) struct Budget {
    tokens: AtomicU32,
    /// The part of a token that a request adds, in thousandths.
    fraction: u32,
}

impl Budget {
    /// Returns a full budget that allows for `ratio` retries per request.
    pub(super) fn new(ratio: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 1000")]
        let fraction = (ratio.clamp(0.001, 1.0) * f64::from(TOKEN)) as u32;
        Self { tokens: AtomicU32::new(FULL), fraction }
    }

    /// Adds a request's fraction of a token.
    pub(super) fn deposit(&self) {
        if self.tokens.load(Relaxed) < FULL {
            self.tokens.fetch_add(self.fraction, Relaxed);
        }
    }

    /// Takes a token. Returns `false` if the bucket has none.
    pub(super) fn withdraw(&self) -> bool {
        self.tokens.fetch_update(Relaxed, Relaxed, |tokens| tokens.checked_sub(TOKEN)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_limited_to_the_bucket_and_a_ratio_of_requests() {
        let budget = Budget::new(0.2);
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100, "the full bucket");
        for _ in 0..50 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 10);
        for _ in 0..10_000 {
            budget.deposit();
        }
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100, "no more than the bucket holds");
    }
}
