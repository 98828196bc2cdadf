//! Expiry: whether a session is live, and whether it is due for a reissue. Pure functions; the current time is an argument.

use std::time::Duration;

use crate::config::RealmConfig;
use crate::format::{Renewal, SessionRecord, TouchTimes};
use crate::time::Timestamp;

/// Tolerance for other machines' clocks that are ahead of this machine's clock.
const CLOCK_SKEW: Duration = Duration::from_mins(5);

/// A realm's timeouts.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Idle timeout: a reissue sets the deadline to this long from now.
    pub timeout: Duration,
    /// A session is due for a reissue when it was issued longer ago than this.
    pub reissue_time: Duration,
    /// Absolute timeout, from the session's creation.
    pub lifetime: Option<Duration>,
}

/// The result of [`judge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionVerdict {
    /// The session is live.
    Live(Life),
    /// Its idle deadline has passed.
    Idle,
    /// Its absolute lifetime has passed, or its row does not record when it was created.
    TooOld,
}

/// When a live session expires, and whether it is due for a reissue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// When it expires if it is not reissued.
    pub expires: Timestamp,
    /// The reissue, if one is due.
    pub due: Option<Reissue>,
}

/// A reissue that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reissue {
    /// The new idle deadline.
    pub expires: Timestamp,
    /// The session is no longer due if its row was issued at or after this time.
    pub due_before: Timestamp,
}

impl Policy {
    /// Returns the timeouts of `realm`.
    pub fn new(realm: &RealmConfig) -> Self {
        Self { timeout: realm.timeout, reissue_time: realm.reissue_time, lifetime: realm.lifetime }
    }

    /// Returns the deadline of a session created at `created` and used at `now`, in whole seconds, as rows store it.
    pub fn deadline(&self, created: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let idle = Timestamp::from_secs(now.as_secs()).plus(self.timeout);
        match (self.lifetime, created) {
            (Some(lifetime), Some(created)) => idle.min(created.plus(lifetime)),
            _ => idle,
        }
    }
}

impl Reissue {
    /// Returns the times of the write that executes this reissue at `now`.
    pub(crate) fn touch_times(self, now: Timestamp) -> TouchTimes {
        TouchTimes { now, expires: self.expires, due_before: self.due_before }
    }
}

/// Determines whether the session `record` is live at `now`, and whether it is due for a reissue.
///
/// A session is live at its deadline and expired after it, as in pyramid-dynamodb-sessions (`exp < time()` is expired). It
/// is due if it was issued more than `reissue_time` ago, or half of the row's own timeout if that is shorter, and a reissue would extend it. A reissue never moves a deadline
/// back, even if this machine's clock is behind or the lifetime ends first, with one exception: a deadline that exceeds the
/// row's own timeout.
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
    let Some(RenewalTimes { timeout, reissue_time, end: own_end }) = renewal_times(policy, record) else {
        return SessionVerdict::Live(Life { expires, due: None });
    };
    let due_before = now.minus(reissue_time);
    let deadline = Policy { timeout, ..*policy }.deadline(record.created, now).min(own_end);
    let is_own = matches!(record.renewal, Renewal::Own { .. });
    if is_own && record.expires > deadline.plus(CLOCK_SKEW) {
        // No framework intends a deadline beyond the session's own timeout. Such a deadline is an error
        // (connect-dynamodb 3.0.0 added milliseconds to seconds), which the reissue corrects.
        return SessionVerdict::Live(Life {
            expires: deadline.min(expires),
            due: Some(Reissue { expires: deadline, due_before }),
        });
    }
    let due = record.issued < due_before && deadline > record.expires;
    SessionVerdict::Live(Life { expires, due: due.then_some(Reissue { expires: deadline, due_before }) })
}

/// Returns when a live session becomes due whose row is `record`, except that it was issued at `issued` and has the deadline
/// `expires`. Returns `None` if no reissue would extend it.
pub(super) fn becomes_due(
    policy: &Policy,
    record: &SessionRecord,
    issued: Timestamp,
    expires: Timestamp,
) -> Option<Timestamp> {
    let RenewalTimes { timeout, reissue_time, end } = renewal_times(policy, record)?;
    let end = match (policy.lifetime, record.created) {
        (Some(lifetime), Some(created)) => end.min(created.plus(lifetime)),
        _ => end,
    };
    // Deadlines are whole seconds.
    let extends = expires.minus(timeout).plus(Duration::from_secs(1));
    (expires < end).then(|| issued.plus(reissue_time).plus(Duration::from_millis(1)).max(extends))
}

/// The timeouts that apply to a row.
struct RenewalTimes {
    timeout: Duration,
    reissue_time: Duration,
    /// The end of the row's own lifetime.
    end: Timestamp,
}

/// Returns `None` if the row is never reissued.
fn renewal_times(policy: &Policy, record: &SessionRecord) -> Option<RenewalTimes> {
    let &Policy { timeout, reissue_time, .. } = policy;
    match record.renewal {
        Renewal::Never => None,
        Renewal::Realm => Some(RenewalTimes { timeout, reissue_time, end: Timestamp::NEVER }),
        // If the row's own timeout is shorter than `reissue_time`, the session would expire before it is due.
        Renewal::Own { timeout, end } => {
            Some(RenewalTimes { timeout, reissue_time: reissue_time.min(timeout / 2), end })
        }
    }
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
    fn session_is_live_or_due_or_expired_by_its_age() {
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
            ("at the end of the lifetime", record(0, 9_950, 11_150), 10_000_000, live(10_000_000, None)),
            ("past the lifetime", record(0, 9_900, 11_100), 10_000_001, SessionVerdict::TooOld),
            ("issued in the future", record(0, 5_000, 6_200), 1_000_000, live(6_200_000, None)),
        ] {
            assert_eq!(judge(&POLICY, &record, at(now)), expected, "{what}");
        }
    }

    #[test]
    fn reissue_time_may_be_longer_than_half_of_the_timeout() {
        let policy = Policy { reissue_time: Duration::from_secs(1000), ..POLICY };
        let due = |seconds| match judge(&policy, &record(0, 0, 1200), Timestamp::from_secs(seconds)) {
            SessionVerdict::Live(life) => life.due.is_some(),
            SessionVerdict::Idle | SessionVerdict::TooOld => panic!("expired"),
        };
        assert!(!due(1000));
        assert!(due(1001));
    }

    #[test]
    fn session_without_creation_time_is_too_old_if_there_is_a_lifetime() {
        let record = SessionRecord { created: None, ..record(0, 0, 1200) };
        assert_eq!(judge(&POLICY, &record, at(0)), SessionVerdict::TooOld);
        assert!(matches!(
            judge(&Policy { lifetime: None, ..POLICY }, &record, at(0)),
            SessionVerdict::Live(_)
        ));
    }

    #[test]
    fn session_without_deadline_is_never_due_and_expires_with_its_lifetime() {
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
    fn row_with_its_own_timeout_is_reissued_with_it() {
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
        // A timeout shorter than `reissue_time`: due at half the timeout.
        assert_eq!(judged(&own(60, never, 0, 60), 30_000), (60, None));
        assert_eq!(judged(&own(60, never, 0, 60), 30_001), (60, Some(90)));
        // A deadline beyond the timeout is limited and corrected, unless another machine's clock explains it.
        assert_eq!(judged(&own(3600, never, 3_596_400, 3_600_000), 1_000), (3601, Some(3601)));
        assert_eq!(judged(&own(3600, never, 200, 3800), 1_000), (3800, None));
        // The most that another clock explains.
        assert_eq!(judged(&own(3600, never, 301, 3901), 1_000), (3901, None));
    }

    #[test]
    fn session_that_is_never_renewed_is_never_due() {
        let record = SessionRecord { renewal: Renewal::Never, ..record(0, 0, 1200) };
        let life = Life { expires: at(1_200_000), due: None };
        assert_eq!(judge(&POLICY, &record, at(1_199_000)), SessionVerdict::Live(life));
        assert_eq!(judge(&POLICY, &record, at(1_200_001)), SessionVerdict::Idle);
    }

    proptest! {
        #[test]
        fn reissue_extends_the_deadline_and_not_beyond_the_lifetime(
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
        fn session_that_is_not_due_becomes_due_at_the_returned_time(
            created in 0i64..20_000, issued in 0i64..20_000, expires in 0i64..20_000, now in 0i64..20_000_000,
        ) {
            let record = record(created, issued, expires);
            let is_due = |now| match judge(&POLICY, &record, now) {
                SessionVerdict::Live(life) => Some(life.due.is_some()),
                SessionVerdict::Idle | SessionVerdict::TooOld => None,
            };
            let becomes_due = becomes_due(&POLICY, &record, record.issued, record.expires);
            match becomes_due {
                Some(at) => prop_assert_ne!(is_due(at), Some(false)),
                None => prop_assert_ne!(is_due(Timestamp::from_millis(now)), Some(true)),
            }
            let is_early = becomes_due.is_none_or(|at| at.minus(Duration::from_secs(1)) > Timestamp::from_millis(now));
            prop_assert!(!is_early || is_due(Timestamp::from_millis(now)) != Some(true));
        }

        #[test]
        fn judging_never_panics(created in any::<i64>(), issued in any::<i64>(), expires in any::<i64>(), now in any::<i64>()) {
            let record = record(created, issued, expires);
            let _ = judge(&POLICY, &record, at(now));
            let _ = becomes_due(&POLICY, &record, record.issued, record.expires);
        }
    }
}
