//! Whether a session is alive, and whether it is due for a reissue. Pure and total; the clock is an argument.

use std::time::Duration;

use crate::config::RealmConfig;
use crate::format::{Renewal, SessionRecord, TouchTimes};
use crate::time::Timestamp;

/// How far the clock of another machine may be ahead of ours.
const SKEW: Duration = Duration::from_mins(5);

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
pub enum SessionVerdict {
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
/// time: a deadline is never moved back, neither by a clock that is behind nor by a lifetime that is reached. The one
/// exception is a deadline that the row's own timeout says cannot be.
pub fn judge(policy: &Policy, record: &SessionRecord, now: Timestamp) -> SessionVerdict {
    let end = match (policy.lifetime, record.created) {
        (None, _) => None,
        (Some(lifetime), Some(created)) => Some(created.plus(lifetime)),
        (Some(_), None) => return SessionVerdict::TooOld,
    };
    if end.is_some_and(|end| end < now) {
        return SessionVerdict::TooOld;
    }
    let expires = end.map_or(record.expires, |end| end.min(record.expires));
    if expires < now {
        return SessionVerdict::Idle;
    }
    let (timeout, own_end) = match record.renewal {
        Renewal::Never => return SessionVerdict::Live(Life { expires, due: None }),
        Renewal::Realm => (policy.timeout, Timestamp::NEVER),
        Renewal::Own { timeout, end } => (timeout, end),
    };
    // Where the row's own timeout is the shorter one, waiting for `reissue_time` would let the session end under its user.
    let due_before = now.minus(policy.reissue_time.min(timeout / 2));
    let deadline = Policy { timeout, ..*policy }.deadline(record.created, now).min(own_end);
    let is_own = matches!(record.renewal, Renewal::Own { .. });
    if is_own && record.expires > deadline.plus(SKEW) {
        // No framework sets a deadline beyond a session's own timeout. One that is there was written by mistake
        // (connect-dynamodb 3.0.0 added milliseconds to seconds), and is put right.
        return SessionVerdict::Live(Life {
            expires: deadline.min(expires),
            due: Some(Reissue { expires: deadline, due_before }),
        });
    }
    let due = record.issued < due_before && deadline > record.expires;
    SessionVerdict::Live(Life { expires, due: due.then_some(Reissue { expires: deadline, due_before }) })
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

    fn record(created: i64, issued: i64, expires: i64) -> SessionRecord {
        SessionRecord {
            claims: Claims::new(),
            version: 1,
            created: Some(Timestamp::from_secs(created)),
            issued: Timestamp::from_secs(issued),
            expires: Timestamp::from_secs(expires),
            retired: false,
            successor: None,
            predecessor: None,
            renewal: Renewal::Realm,
            stored: crate::item::Item::new(),
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn by_age() {
        let live = |expires, due: Option<(i64, i64)>| {
            SessionVerdict::Live(Life {
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
            ("past the deadline", record(0, 0, 1200), 1_200_001, SessionVerdict::Idle),
            ("cut by the lifetime", record(0, 9_000, 10_200), 9_500_000, live(10_000_000, None)),
            (
                "reissued up to the lifetime",
                record(0, 8_000, 9_200),
                9_100_000,
                live(9_200_000, Some((10_000_000, 8_980_000))),
            ),
            ("past the lifetime", record(0, 9_900, 11_100), 10_000_001, SessionVerdict::TooOld),
            ("issued in the future", record(0, 5_000, 6_200), 1_000_000, live(6_200_000, None)),
        ] {
            assert_eq!(judge(&POLICY, &record, at(now)), expected, "{what}");
        }
    }

    #[test]
    fn without_a_creation_time_a_lifetime_cannot_be_kept() {
        let record = SessionRecord { created: None, ..record(0, 0, 1200) };
        assert_eq!(judge(&POLICY, &record, at(0)), SessionVerdict::TooOld);
        assert!(matches!(
            judge(&Policy { lifetime: None, ..POLICY }, &record, at(0)),
            SessionVerdict::Live(_)
        ));
    }

    #[test]
    fn what_never_ends_is_never_due_and_ends_with_its_lifetime() {
        let record = SessionRecord { expires: Timestamp::NEVER, ..record(0, 0, 0) };
        let endless = Policy { lifetime: None, ..POLICY };
        for now in [at(0), at(5_000_000_000_000), at(i64::MAX)] {
            let live = SessionVerdict::Live(Life { expires: Timestamp::NEVER, due: None });
            assert_eq!(judge(&endless, &record, now), live);
        }
        let live = SessionVerdict::Live(Life { expires: at(10_000_000), due: None });
        assert_eq!(judge(&POLICY, &record, at(9_000_000)), live);
        assert_eq!(judge(&POLICY, &record, at(10_000_001)), SessionVerdict::TooOld);
    }

    #[test]
    fn a_row_with_a_timeout_of_its_own_is_renewed_by_that() {
        let policy = Policy { lifetime: None, ..POLICY };
        let own = |timeout, end, issued: i64, expires| {
            let timeout = Duration::from_secs(timeout);
            SessionRecord { renewal: Renewal::Own { timeout, end }, ..record(0, issued, expires) }
        };
        let judged = |record: &SessionRecord, now| match judge(&policy, record, at(now)) {
            SessionVerdict::Live(life) => (life.expires.as_secs(), life.due.map(|due| due.expires.as_secs())),
            SessionVerdict::Idle | SessionVerdict::TooOld => panic!("{record:?}"),
        };
        let never = Timestamp::NEVER;
        assert_eq!(judged(&own(3600, never, 0, 3600), 200_000), (3600, Some(3800)));
        assert_eq!(judged(&own(3600, at(3_700_000), 0, 3600), 200_000), (3600, Some(3700)));
        assert_eq!(judged(&own(3600, at(3_600_000), 0, 3600), 200_000), (3600, None));
        // Shorter than `reissue_time`: due at half of it.
        assert_eq!(judged(&own(60, never, 0, 60), 30_000), (60, None));
        assert_eq!(judged(&own(60, never, 0, 60), 30_001), (60, Some(90)));
        // A deadline that cannot be is cut, and put right; one that is early by another clock stays.
        assert_eq!(judged(&own(3600, never, 3_596_400, 3_600_000), 1_000), (3601, Some(3601)));
        assert_eq!(judged(&own(3600, never, 200, 3800), 1_000), (3800, None));
    }

    #[test]
    fn what_cannot_be_touched_is_never_due() {
        let record = SessionRecord { renewal: Renewal::Never, ..record(0, 0, 1200) };
        let life = Life { expires: at(1_200_000), due: None };
        assert_eq!(judge(&POLICY, &record, at(1_199_000)), SessionVerdict::Live(life));
        assert_eq!(judge(&POLICY, &record, at(1_200_001)), SessionVerdict::Idle);
    }

    proptest! {
        #[test]
        fn a_reissue_only_ever_lengthens_and_never_past_the_lifetime(
            created in 0i64..20_000, issued in 0i64..20_000, expires in 0i64..20_000, now in 0i64..20_000_000,
        ) {
            if let SessionVerdict::Live(Life { expires: end, due }) = judge(&POLICY, &record(created, issued, expires), at(now)) {
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
