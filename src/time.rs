//! Time as a value. The rest of the crate takes `now` as an argument; [`Clock`] is the only reader of the system's
//! clocks, so that everything which judges time can be tested by tables.

mod alarm;

use std::time::{Duration, Instant, SystemTime};

pub(crate) use alarm::Alarm;

/// A moment of wall-clock time, in milliseconds since the Unix epoch.
///
/// Rows store seconds, some with a fraction; milliseconds hold every unit that a framework writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// One reading of both clocks: the wall clock judges sessions, the monotonic one judges the freshness of what is
/// cached, so that a step of the wall clock neither revives nor drops a cached row.
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
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn now(self) -> Now {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            wall: Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)),
            mono: Instant::now(),
        }
    }

    /// Reads the monotonic clock alone.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clocks")]
    pub fn mono(self) -> Instant {
        Instant::now()
    }
}

impl Timestamp {
    /// A moment that never comes: the deadline of what does not expire.
    pub const NEVER: Self = Self(i64::MAX);

    /// The moment `secs` seconds after the epoch; saturates.
    pub fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// The moment `millis` milliseconds after the epoch.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Whole seconds since the epoch, rounded down.
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// This moment plus `duration`; saturates.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// This moment minus `duration`; saturates.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How long after `earlier` this moment is; zero if it is not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
