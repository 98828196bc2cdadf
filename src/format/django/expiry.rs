//! `_session_expiry`: the claim that `request.session.set_expiry` writes.

use serde_json::Value;

use crate::claims::Claims;
use crate::time::Timestamp;

const CLAIM: &str = "_session_expiry";

/// The expiry that the app has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// The app has set no expiry: the session expires with its cookie, the realm's timeout after the last save.
    Cookie,
    /// `set_expiry(0)`: like [`Self::Cookie`] for the row, but the browser deletes the cookie when it is closed.
    Browser,
    /// This many milliseconds after the last save.
    After(i64),
    /// At this time.
    At(Timestamp),
}

impl Expiry {
    /// Parses the claim. Returns `None` if it has a value that Django does not write.
    pub(super) fn from_claims(claims: &Claims) -> Option<Self> {
        match claims.get(CLAIM) {
            None | Some(Value::Null) => Some(Self::Cookie),
            Some(Value::Number(number)) => {
                let seconds = number.as_f64()?;
                // 10^14 s is three million years: a larger value is an error.
                #[expect(clippy::cast_possible_truncation, reason = "range checked")]
                let millis = (seconds.abs() < 1e14).then_some((seconds * 1000.0) as i64)?;
                Some(if millis == 0 { Self::Browser } else { Self::After(millis) })
            }
            Some(Value::String(text)) => parse_isoformat(text).map(Self::At),
            Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => None,
        }
    }
}

/// Parses the output of `datetime.isoformat()`: `2026-12-21T01:02:03.456789+00:00`, fraction and offset optional. A
/// time without an offset is in the app's time zone, which is not known here; it is read as UTC.
fn parse_isoformat(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once('T')?;
    let (time, offset) = match time.find(['+', '-']).and_then(|at| time.split_at_checked(at)) {
        Some((time, offset)) => (time, parse_offset(offset)?),
        None => (time, 0),
    };
    let local = humantime::parse_rfc3339_weak(&format!("{date}T{time}")).ok()?;
    let since = local.duration_since(std::time::UNIX_EPOCH).ok()?;
    let millis = i64::try_from(since.as_millis()).ok()?;
    Some(Timestamp::from_millis(millis.checked_sub(offset * 1000)?))
}

/// Parses `±HH:MM` to seconds, or `±HH:MM:SS`, which some historical time zones need.
fn parse_offset(offset: &str) -> Option<i64> {
    let (sign, digits) = match offset.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        (_, _) => return None,
    };
    let mut total = 0;
    let mut parts = 0;
    for (part, unit) in digits.split(':').zip([3600, 60, 1]) {
        let whole = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        total += part.parse::<i64>().ok().filter(|value| whole && *value < 60)? * unit;
        parts += 1;
    }
    (parts >= 2 && digits.len() == parts * 3 - 1).then_some(sign * total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn expiry(value: Value) -> Option<Expiry> {
        Expiry::from_claims(&Claims::from_iter([(CLAIM.to_owned(), value)]))
    }

    #[test]
    fn values_of_set_expiry_are_parsed_and_others_rejected() {
        assert_eq!(Expiry::from_claims(&Claims::new()), Some(Expiry::Cookie));
        let at = |millis| Some(Expiry::At(Timestamp::from_millis(millis)));
        for (value, expected) in [
            (Value::Null, Some(Expiry::Cookie)),
            (json!(0), Some(Expiry::Browser)),
            (json!(3600), Some(Expiry::After(3_600_000))),
            (json!(-1), Some(Expiry::After(-1000))),
            (json!(1.5), Some(Expiry::After(1500))),
            (json!("2026-12-21T01:02:03.456789+00:00"), at(1_797_814_923_456)),
            (json!("2026-12-21T01:02:03+00:00"), at(1_797_814_923_000)),
            (json!("2026-12-21T01:02:03"), at(1_797_814_923_000)),
            (json!("2026-12-21T02:32:03+01:30"), at(1_797_814_923_000)),
            (json!("2026-12-20T20:02:03-05:00"), at(1_797_814_923_000)),
            (json!("2026-12-21T01:12:04+00:10:01"), at(1_797_814_923_000)),
        ] {
            assert_eq!(expiry(value.clone()), expected, "{value}");
        }
        for value in [
            json!(true),
            json!([]),
            json!({}),
            json!(1e300),
            json!(i64::MAX),
            json!(""),
            json!("soon"),
            json!("2026-12-21"),
            json!("2026-13-21T01:02:03"),
            json!("2026-12-21T01:02:03+"),
            json!("2026-12-21T01:02:03+1:00"),
            json!("2026-12-21T01:02:03+01"),
            json!("2026-12-21T01:02:03+01:00:00:00"),
            json!("2026-12-21T01:02:03+01:xx"),
            json!("1969-12-21T01:02:03"),
        ] {
            assert_eq!(expiry(value.clone()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".{0,40}|[0-9T:+.-]{0,40}") {
            let _ = expiry(Value::String(text));
        }
    }
}
