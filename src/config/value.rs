//! Parsers of single values: pure functions from a TOML value to a typed value or a [`Fault`].
//!
//! A fault's message follows the key's name (`` `server.drain` `` …). It need not repeat the value, which the report
//! shows.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;
use toml::de::{DeInteger, DeValue};

/// Maximum duration of a session or its cookie: ten years. A longer duration is a mistake, and could exceed what clocks
/// can represent.
pub(super) const MAX_SESSION_DURATION: Duration = Duration::from_secs(10 * 31_557_600);

/// The reason why a value is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// The location of another key that the value was compared with. If that key is broken, this fault is not reported.
    pub(super) needs: Option<&'static str>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, needs: None }
    }

    #[must_use]
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Returns the fault of a value whose type is not the one `wanted`.
pub(super) fn wrong_type(value: &DeValue<'_>, wanted: &str) -> Fault {
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    Fault::new(format!("must be {wanted}, not {found}"))
}

/// Parses a string. Rejects empty strings and control characters. `respond.body`, which may have them, is not parsed
/// with this.
pub(super) fn string(value: &DeValue<'_>) -> Result<String, Fault> {
    let text = value.as_str().ok_or_else(|| wrong_type(value, "a string"))?;
    if text.is_empty() {
        return Err(Fault::new("must not be empty"));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::new("must not contain control characters"));
    }
    Ok(text.to_owned())
}

/// Parses a string with `parse`.
pub(super) fn text<T>(parse: impl Fn(&str) -> Result<T, Fault>) -> impl Fn(&DeValue<'_>) -> Result<T, Fault> {
    move |value| parse(&string(value)?)
}

/// Parses a boolean.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Fault> {
    value.as_bool().ok_or_else(|| wrong_type(value, "`true` or `false`"))
}

/// Parses an integer in `range`.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Result<T, Fault>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |value| {
        let number = value.as_integer().ok_or_else(|| wrong_type(value, "an integer"))?;
        let number = whole(number).and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| Fault::new(format!("must be from {} to {}", range.start(), range.end())))
    }
}

/// Returns the value of a TOML integer, which may be hexadecimal, octal or binary, or `None` if it exceeds 64 bits.
pub(super) fn whole(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Parses a number in `range`.
#[expect(clippy::cast_precision_loss, reason = "no range needs more than 53 bits")]
pub(super) fn number(range: RangeInclusive<f64>) -> impl Fn(&DeValue<'_>) -> Result<f64, Fault> {
    move |value| {
        let number = match value {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => whole(integer).map(|whole| whole as f64),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => return Err(wrong_type(value, "a number")),
        };
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| Fault::new(format!("must be from {} to {}", range.start(), range.end())))
    }
}

/// Parses a duration in `range`: a string with units, such as `"20m"`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, Fault> {
    /// Maximum number of digits: more than any range needs. With many more, humantime's one unchecked addition (the
    /// carry of nanoseconds) could overflow, and humantime would panic.
    const DIGITS: usize = 12;

    move |value| {
        let example = "write a number with a unit, such as \"500ms\", \"30s\", \"20m\" or \"1h 30m\"";
        let text = value.as_str().ok_or_else(|| wrong_type(value, "a duration").hint(example))?;
        let parsed = (text.chars().filter(char::is_ascii_digit).count() <= DIGITS)
            .then(|| humantime::parse_duration(text).ok())
            .flatten()
            .ok_or_else(|| Fault::new("is not a duration").hint(example))?;
        if range.contains(&parsed) {
            return Ok(parsed);
        }
        let (least, most) =
            (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        Err(Fault::new(format!("must be from {least} to {most}")))
    }
}

/// Parses a size in `range`, in bytes: a string with a unit, such as `"64KiB"`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&DeValue<'_>) -> Result<usize, Fault> {
    move |value| {
        let example = "write a number with a unit, such as \"512B\", \"8KiB\" or \"64 KiB\"";
        let text = value.as_str().ok_or_else(|| wrong_type(value, "a size").hint(example))?;
        let parsed: ByteSize = text.parse().map_err(|_| Fault::new("is not a size").hint(example))?;
        usize::try_from(parsed.as_u64()).ok().filter(|size| range.contains(size)).ok_or_else(|| {
            let bytes = |size: usize| ByteSize(size as u64).display().iec();
            Fault::new(format!("must be from {} to {}", bytes(*range.start()), bytes(*range.end())))
        })
    }
}

/// Parses one of a few keywords.
pub(super) fn one_of<T: Copy>(choices: &[(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, Fault> {
    move |value| {
        let words = || choices.iter().map(|(word, _)| *word);
        let fault = || format!("must be {}", alternatives(words()));
        let text = value.as_str().ok_or_else(|| Fault::new(fault()))?;
        choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice).ok_or_else(|| Fault {
            hint: nearest(text, words()).map(|near| format!("did you mean `{near}`?")),
            ..Fault::new(fault())
        })
    }
}

/// Parses `host:port`, where the host is an IP address or `localhost`.
pub(super) fn address(text: &str) -> Result<SocketAddr, Fault> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let fault = Fault::new("must be an IP address, or `localhost`, and a port");
    match text.rsplit_once(':') {
        Some(("localhost", port)) => {
            let port = port.parse().map_err(|_| fault.hint("for example \"localhost:8080\""))?;
            Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        }
        Some(("" | "*", port)) => {
            Err(fault.hint(format!("\"0.0.0.0:{port}\" listens on every address of this machine")))
        }
        Some(_) | None => Err(fault.hint("for example \"127.0.0.1:8080\" or \"[::1]:8080\"")),
    }
}

/// Parses a table name by DynamoDB's rules.
pub(super) fn table_name(text: &str) -> Result<String, Fault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (3..=255).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(Fault::new("is not a valid DynamoDB table name")
        .hint("use 3 to 255 letters, digits, `_`, `-` and `.`"))
}

/// Parses an attribute name by DynamoDB's rules.
pub(super) fn attribute_name(text: &str) -> Result<String, Fault> {
    if text.len() <= 255 {
        return Ok(text.to_owned());
    }
    Err(Fault::new("is longer than 255 bytes, DynamoDB's limit on the names of key attributes"))
}

/// Returns the word of `known` that `text` most likely misspells, by Damerau-Levenshtein distance.
pub(super) fn nearest<'k>(text: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let text = text.to_ascii_lowercase();
    // The comparison takes time proportional to the product of the lengths.
    if text.len() > 64 {
        return None;
    }
    let near = known.map(|word| (strsim::damerau_levenshtein(&text, &word.to_ascii_lowercase()), word));
    near.filter(|(distance, word)| *distance <= (word.len().max(text.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Formats words as `` `a`, `b`, `c` ``.
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Formats words as `` `a`, `b` or `c` ``.
fn alternatives<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let words: Vec<_> = words.collect();
    match words.split_last() {
        Some((last, [])) => listed(&[last]),
        Some((last, rest)) => format!("{} or `{last}`", listed(rest)),
        None => String::new(),
    }
}
