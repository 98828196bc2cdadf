//! ISO 8601 timestamps, as Python's `isoformat` and JavaScript's `toISOString` write them.

use crate::time::Timestamp;

const DAY: i64 = 86_400;

/// Parses `2026-11-21T19:39:33.189527+00:00`. An offset or `Z` is required; the fraction is optional.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let (date, time) = text.split_once(['T', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let zone = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at_checked(zone)?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    let digits = !fraction.is_empty() && fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok().filter(|_| digits)?;
    let offset = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            (hours * 60 + minutes) * if sign == "-" { -60 } else { 60 }
        }
    };
    let valid =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let secs = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    valid.then(|| Timestamp::from_millis(secs * 1000 + millis))
}

/// Formats as `isoformat` does for an aware time in UTC. Returns `None` outside of the years 1 to 9999.
pub(super) fn write(secs: i64, micros: u32) -> Option<String> {
    let (year, month, day) = date(secs.div_euclid(DAY)).filter(|(year, ..)| (1..=9999).contains(year))?;
    let rest = secs.rem_euclid(DAY);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}+00:00"))
}

/// Formats as `toISOString` does.
pub(super) fn write_js(time: Timestamp) -> Option<String> {
    let text = write(time.as_secs(), 0)?;
    let millis = time.as_millis().rem_euclid(1000);
    text.strip_suffix("+00:00").map(|text| format!("{text}.{millis:03}Z"))
}

fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next()?;
        let digits = part.len() == width && part.bytes().all(|byte| byte.is_ascii_digit());
        *number = part.parse().ok().filter(|_| digits)?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Converts a Gregorian date to days since the epoch: Howard Hinnant's `days_from_civil`. Years begin in March, so that
/// a leap day is the last day of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Converts days since the epoch to a Gregorian date: Howard Hinnant's `civil_from_days`.
fn date(days: i64) -> Option<(i64, i64, i64)> {
    let days = days.checked_add(719_468)?;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    Some((year + era * 400 + carry, month, day))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timestamps_of_the_frameworks_are_parsed() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-21T19:39:33.189527+00:00", 1_795_289_973_189),
            ("2026-11-21T19:39:33.1Z", 1_795_289_973_100),
            ("2026-11-21 20:39:33+01:00", 1_795_289_973_000),
            ("2026-11-21T14:09:33-05:30", 1_795_289_973_000),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
        ] {
            assert_eq!(parse(text), Some(Timestamp::from_millis(millis)), "{text}");
        }
        for wrong in [
            "",
            "2026-11-21",
            "2026-11-21T19:39:33",
            "2026-13-21T00:00:00Z",
            "2026-1-21T00:00:00Z",
            "1795289973",
            "2026-11-21T24:00:00Z",
            "2026-11-21T00:00:00.Z",
            "2026-11-21T00:00:00+1:00",
            "+026-11-21T00:00:00Z",
            "é",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn formatted_times_parse_back(secs in -62_135_596_800_i64..253_402_300_800, micros in 0u32..1_000_000) {
            let text = write(secs, micros).unwrap();
            let expected = Timestamp::from_millis(secs * 1000 + i64::from(micros / 1000));
            prop_assert_eq!(parse(&text), Some(expected));
            prop_assert_eq!(parse(&write_js(expected).unwrap()), Some(expected));
        }

        #[test]
        fn formatting_and_parsing_never_panic(secs in any::<i64>(), text in ".*") {
            let _ = write(secs, 0);
            let _ = parse(&text);
        }
    }
}
