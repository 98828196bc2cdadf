//! Whether a session is alive, and whether it is due for a reissue. Pure and total; the clock is an argument.

use std::time::Duration;

use crate::config::RealmConfig;
use crate::format::{Record, TouchTimes};
use crate::time::Timestamp;

/// A realm's rules of time.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Idle timeout: how far a reissue moves the deadline.
    pub timeout: Duration,
    /// A session issued longer ago than this is due.
    pub reissue_time: Duration,
    /// Absolute lifetime from creation.
    pub lifetime: Option<Duration>,
}

/// The judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The session is good.
    Live(Life),
    /// Its idle deadline has passed.
    Idle,
    /// Its absolute lifetime has passed, or its row does not say when it began.
    TooOld,
}

/// What a live session has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it ends, if nothing happens.
    pub expires: Timestamp,
    /// The times of the reissue, if one is due.
    pub due: Option<Reissue>,
}

/// The times of a reissue that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reissue {
    /// The new idle deadline.
    pub expires: Timestamp,
    /// A row issued at or after this moment is not due any more.
    pub due_before: Timestamp,
}

impl Policy {
    /// The rules of `realm`.
    pub fn new(realm: &RealmConfig) -> Self {
        Self { timeout: realm.timeout, reissue_time: realm.reissue_time, lifetime: realm.lifetime }
    }

    /// The deadline of a session created at `created` and active at `now`, in whole seconds, as rows store it.
    pub fn deadline(&self, created: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let idle = Timestamp::from_secs(now.as_secs()).plus(self.timeout);
        match (self.lifetime, created) {
            (Some(lifetime), Some(created)) => idle.min(created.plus(lifetime)),
            _ => idle,
        }
    }
}

impl Reissue {
    /// The times of the touch that carries this reissue out at `now`.
    pub(crate) fn touch_times(self, now: Timestamp) -> TouchTimes {
        TouchTimes { now, expires: self.expires, due_before: self.due_before }
    }
}

/// Judges `record` at `now`.
///
/// A session lives through the moment of its deadline and is dead after it, as pyramid-dynamodb-sessions has it
/// (`exp < time()` is dead). One is due when it was issued more than `reissue_time` ago and a reissue would gain it
/// time: a deadline is never moved back, neither by a clock that is behind nor by a lifetime that is reached. One whose
/// deadline is fixed is never due.
pub fn judge(policy: &Policy, record: &Record, now: Timestamp) -> Verdict {
    let end = match (policy.lifetime, record.created) {
        (None, _) => None,
        (Some(lifetime), Some(created)) => Some(created.plus(lifetime)),
        (Some(_), None) => return Verdict::TooOld,
    };
    if end.is_some_and(|end| end < now) {
        return Verdict::TooOld;
    }
    let expires = end.map_or(record.expires, |end| end.min(record.expires));
    if expires < now {
        return Verdict::Idle;
    }
    let due_before = now.minus(policy.reissue_time);
    let deadline = policy.deadline(record.created, now);
    let due = !record.closed && !record.fixed && record.issued < due_before && deadline > record.expires;
    Verdict::Live(Life { expires, due: due.then_some(Reissue { expires: deadline, due_before }) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::claims::Claims;

    const POLICY: Policy = Policy {
        timeout: Duration::from_secs(1200),
        reissue_time: Duration::from_secs(120),
        lifetime: Some(Duration::from_secs(10_000)),
    };

    fn record(created: i64, issued: i64, expires: i64) -> Record {
        Record {
            claims: Claims::new(),
            version: 1,
            created: Some(Timestamp::from_secs(created)),
            issued: Timestamp::from_secs(issued),
            expires: Timestamp::from_secs(expires),
            closed: false,
            fixed: false,
            stored: crate::item::Item::new(),
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn by_age() {
        let live = |expires, due: Option<(i64, i64)>| {
            Verdict::Live(Life {
                expires: at(expires),
                due: due.map(|(expires, due_before)| Reissue {
                    expires: at(expires),
                    due_before: at(due_before),
                }),
            })
        };
        for (what, record, now, expected) in [
            ("new", record(0, 0, 1200), 1_000, live(1_200_000, None)),
            ("just not due", record(0, 0, 1200), 120_000, live(1_200_000, None)),
            ("just due", record(0, 0, 1200), 120_001, live(1_200_000, Some((1_320_000, 1)))),
            ("at the deadline", record(0, 0, 1200), 1_200_000, live(1_200_000, Some((2_400_000, 1_080_000)))),
            ("past the deadline", record(0, 0, 1200), 1_200_001, Verdict::Idle),
            ("cut by the lifetime", record(0, 9_000, 10_200), 9_500_000, live(10_000_000, None)),
            (
                "reissued up to the lifetime",
                record(0, 8_000, 9_200),
                9_100_000,
                live(9_200_000, Some((10_000_000, 8_980_000))),
            ),
            ("past the lifetime", record(0, 9_900, 11_100), 10_000_001, Verdict::TooOld),
            ("issued in the future", record(0, 5_000, 6_200), 1_000_000, live(6_200_000, None)),
        ] {
            assert_eq!(judge(&POLICY, &record, at(now)), expected, "{what}");
        }
    }

    #[test]
    fn without_a_creation_time_a_lifetime_cannot_be_kept() {
        let record = Record { created: None, ..record(0, 0, 1200) };
        assert_eq!(judge(&POLICY, &record, at(0)), Verdict::TooOld);
        assert!(matches!(judge(&Policy { lifetime: None, ..POLICY }, &record, at(0)), Verdict::Live(_)));
    }

    #[test]
    fn a_fixed_deadline_is_kept_and_never_moved() {
        let record = Record { fixed: true, ..record(0, 0, 1200) };
        let live = Verdict::Live(Life { expires: at(1_200_000), due: None });
        assert_eq!(judge(&POLICY, &record, at(1_000_000)), live);
        assert_eq!(judge(&POLICY, &record, at(1_200_001)), Verdict::Idle);
    }

    #[test]
    fn what_never_ends_is_never_due_and_ends_with_its_lifetime() {
        let record = Record { expires: Timestamp::NEVER, ..record(0, 0, 0) };
        let endless = Policy { lifetime: None, ..POLICY };
        for now in [at(0), at(5_000_000_000_000), at(i64::MAX)] {
            let live = Verdict::Live(Life { expires: Timestamp::NEVER, due: None });
            assert_eq!(judge(&endless, &record, now), live);
        }
        let live = Verdict::Live(Life { expires: at(10_000_000), due: None });
        assert_eq!(judge(&POLICY, &record, at(9_000_000)), live);
        assert_eq!(judge(&POLICY, &record, at(10_000_001)), Verdict::TooOld);
    }

    proptest! {
        #[test]
        fn a_reissue_only_ever_lengthens_and_never_past_the_lifetime(
            created in 0i64..20_000, issued in 0i64..20_000, expires in 0i64..20_000, now in 0i64..20_000_000,
        ) {
            if let Verdict::Live(Life { expires: end, due }) = judge(&POLICY, &record(created, issued, expires), at(now)) {
                prop_assert!(end >= at(now) && end <= Timestamp::from_secs(expires));
                if let Some(due) = due {
                    prop_assert!(due.expires > Timestamp::from_secs(expires));
                    prop_assert!(due.expires <= Timestamp::from_secs(created + 10_000));
                }
            }
        }

        #[test]
        fn total(created in any::<i64>(), issued in any::<i64>(), expires in any::<i64>(), now in any::<i64>()) {
            let _ = judge(&POLICY, &record(created, issued, expires), at(now));
        }
    }
}
