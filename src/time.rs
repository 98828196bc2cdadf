//! Timestamps and clocks. Only [`Clock`] reads the system's clocks; most functions take the current time as an
//! argument, so that tests can choose it.

mod alarm;

use std::time::{Duration, Instant, SystemTime};

pub(crate) use alarm::Alarm;

/// A wall-clock time, in milliseconds since the Unix epoch.
///
/// Frameworks store seconds, some with a fraction, or milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// One reading of both clocks. Sessions expire by the wall clock and cache entries by the monotonic clock, so that a
/// step of the wall clock does not change the age of a cache entry.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall-clock time.
    pub wall: Timestamp,
    /// Monotonic time.
    pub mono: Instant,
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// Reads both clocks.
    pub fn now(self) -> Now {
        Now { wall: self.wall(), mono: self.mono() }
    }

    /// Reads the wall clock.
    #[expect(clippy::disallowed_methods, reason = "one of two places that read the clocks")]
    pub fn wall(self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// Reads the monotonic clock.
    #[expect(clippy::disallowed_methods, reason = "one of two places that read the clocks")]
    pub fn mono(self) -> Instant {
        Instant::now()
    }
}

impl Timestamp {
    /// A deadline that is never reached.
    pub const NEVER: Self = Self(i64::MAX);

    /// Converts from seconds since the epoch; saturates.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Converts from milliseconds since the epoch.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Returns the seconds since the epoch, rounded down.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Returns the milliseconds since the epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Adds `duration`; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Subtracts `duration`; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// Returns the time elapsed since `earlier`, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
