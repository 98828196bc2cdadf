//! Formats a line of the access log, as text or JSON, into an existing buffer.
//!
//! Data from clients is quoted, so that it can neither end the line nor begin another field. The code avoids allocations
//! and `std::fmt` where it can, since it runs for every request.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

use crate::config::LogFormat;
use crate::time::Timestamp;

/// A line that is being written.
#[derive(Debug)]
pub struct LogLine<'b> {
    buffer: &'b mut Vec<u8>,
    format: LogFormat,
}

impl<'b> LogLine<'b> {
    /// Begins a line with the timestamp `time`.
    pub(super) fn begin(
        buffer: &'b mut Vec<u8>,
        format: LogFormat,
        stamp: &mut TimestampWriter,
        time: Timestamp,
    ) -> Self {
        match format {
            LogFormat::Text => {
                stamp.write(time, buffer);
                buffer.extend_from_slice(b" request");
            }
            LogFormat::Json => {
                buffer.extend_from_slice(b"{\"timestamp\":\"");
                stamp.write(time, buffer);
                buffer.extend_from_slice(b"\",\"target\":\"access\",\"message\":\"request\"");
            }
        }
        Self { buffer, format }
    }

    /// Appends a field with arbitrary bytes, quoted if necessary.
    pub fn text(&mut self, name: &str, value: &[u8]) -> &mut Self {
        self.name(name);
        match self.format {
            LogFormat::Text if is_bare(value) => self.buffer.extend_from_slice(value),
            LogFormat::Text | LogFormat::Json => self.quote(value),
        }
        self
    }

    /// Appends a text field if there is a value.
    pub fn text_if(&mut self, name: &str, value: Option<impl AsRef<[u8]>>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value.as_ref()),
            None => self,
        }
    }

    /// Appends a value that consists of letters, digits and `.:[]-/`, such as an address, without escaping it.
    pub fn plain(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.name(name);
        let quote: &[u8] = match self.format {
            LogFormat::Text => b"",
            LogFormat::Json => b"\"",
        };
        self.buffer.extend_from_slice(quote);
        // Writing to a `Vec` does not fail.
        let _ = write!(self.buffer, "{value}");
        self.buffer.extend_from_slice(quote);
        self
    }

    /// Appends an integer.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Self {
        self.name(name);
        decimal(self.buffer, value);
        self
    }

    /// Appends `true` or `false`.
    pub fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.name(name);
        self.buffer.extend_from_slice(if value { b"true" } else { b"false" });
        self
    }

    /// Appends a duration in milliseconds with three decimal places.
    pub fn millis(&mut self, name: &str, value: Duration) -> &mut Self {
        self.name(name);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        decimal(self.buffer, micros / 1000);
        self.buffer.push(b'.');
        padded(self.buffer, micros % 1000, 3);
        self
    }

    pub(super) fn end(self) {
        self.buffer.extend_from_slice(match self.format {
            LogFormat::Text => b"\n",
            LogFormat::Json => b"}\n",
        });
    }

    fn name(&mut self, name: &str) {
        match self.format {
            LogFormat::Text => {
                self.buffer.push(b' ');
                self.buffer.extend_from_slice(name.as_bytes());
                self.buffer.push(b'=');
            }
            LogFormat::Json => {
                self.buffer.extend_from_slice(b",\"");
                self.buffer.extend_from_slice(name.as_bytes());
                self.buffer.extend_from_slice(b"\":");
            }
        }
    }

    /// Appends a JSON string (RFC 8259, 7). Characters other than printable ASCII and letters are escaped.
    fn quote(&mut self, value: &[u8]) {
        self.buffer.push(b'"');
        if value.iter().all(|&byte| matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\') {
            self.buffer.extend_from_slice(value);
        } else {
            for character in String::from_utf8_lossy(value).chars() {
                self.escape(character);
            }
        }
        self.buffer.push(b'"');
    }

    fn escape(&mut self, character: char) {
        match character {
            '"' => self.buffer.extend_from_slice(b"\\\""),
            '\\' => self.buffer.extend_from_slice(b"\\\\"),
            _ if matches!(character, ' '..='~') || is_visible_letter(character) => {
                self.buffer.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // Terminals interpret control characters (C0 and C1) and bidirectional marks; some line readers also break
            // lines at U+2028 and U+2029.
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    self.buffer.extend_from_slice(b"\\u");
                    for shift in [12, 8, 4, 0] {
                        let digit = char::from_digit((u32::from(*unit) >> shift) & 15, 16).unwrap_or('0');
                        self.buffer.push(u8::try_from(digit).unwrap_or(b'0'));
                    }
                }
            }
        }
    }
}

/// Returns whether a character is a visible letter. The Hangul fillers are letters by their category, but blank.
fn is_visible_letter(character: char) -> bool {
    character.is_alphabetic() && !matches!(character, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}')
}

/// Returns whether a value needs no quotes.
fn is_bare(value: &[u8]) -> bool {
    !value.is_empty()
        && value.iter().all(|&byte| matches!(byte, 0x21..=0x7e) && !matches!(byte, b'"' | b'\\' | b'='))
}

fn decimal(buffer: &mut Vec<u8>, mut value: u64) {
    let start = buffer.len();
    loop {
        buffer.push(digit(value));
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(digits) = buffer.get_mut(start..) {
        digits.reverse();
    }
}

/// Appends the last `width` digits of a number, padded with zeros.
fn padded(buffer: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        buffer.push(digit(value / 10_u64.pow(place)));
    }
}

fn digit(value: u64) -> u8 {
    b'0' + u8::try_from(value % 10).unwrap_or(0)
}

/// Writes timestamps in RFC 3339 format, and formats all but the fraction only once per second.
#[derive(Debug, Default)]
pub(super) struct TimestampWriter {
    second: i64,
    /// `second` as text.
    text: Vec<u8>,
}

impl TimestampWriter {
    fn write(&mut self, time: Timestamp, buffer: &mut Vec<u8>) {
        let second = time.as_secs();
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.text.clear();
            write_date_time(&mut self.text, u64::try_from(second).unwrap_or(0));
        }
        buffer.extend_from_slice(&self.text);
        buffer.push(b'.');
        padded(buffer, u64::try_from(time.as_millis().rem_euclid(1000)).unwrap_or(0), 3);
        buffer.push(b'Z');
    }
}

/// Appends a Unix time as `YYYY-MM-DDThh:mm:ss`. The algorithm counts in eras of 400 Gregorian years that begin in March
/// (Howard Hinnant's `civil_from_days`).
fn write_date_time(text: &mut Vec<u8>, second: u64) {
    let (days, rest) = (second / 86_400 + 719_468, second % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    for (value, width, separator) in
        [(year, 4, b'-'), (month, 2, b'-'), (day, 2, b'T'), (rest / 3600, 2, b':'), (rest / 60 % 60, 2, b':')]
    {
        padded(text, value, width);
        text.push(separator);
    }
    padded(text, rest % 60, 2);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(format: LogFormat, fill: impl FnOnce(&mut LogLine<'_>)) -> String {
        let (mut buffer, mut stamp) = (Vec::new(), TimestampWriter::default());
        let mut line =
            LogLine::begin(&mut buffer, format, &mut stamp, Timestamp::from_millis(1_763_770_939_042));
        fill(&mut line);
        line.end();
        String::from_utf8(buffer).unwrap()
    }

    #[test]
    fn lines_are_text_or_json() {
        let fill = |line: &mut LogLine<'_>| {
            line.text("path", b"/a")
                .text_if("absent", None::<&str>)
                .text_if("present", Some("x"))
                .text("agent", b"a \"b\"\n\x9b=\\")
                .text("none", b"");
            line.number("bytes", 1024).number("zero", 0).flag("complete", true);
            line.millis("ms", Duration::from_micros(12_034));
        };
        assert_eq!(
            line(LogFormat::Text, fill),
            "2025-11-22T00:22:19.042Z request path=/a present=x agent=\"a \\\"b\\\"\\u000a\\ufffd=\\\\\" none=\"\" \
             bytes=1024 zero=0 complete=true ms=12.034\n"
        );
        assert_eq!(
            line(LogFormat::Json, fill),
            "{\"timestamp\":\"2025-11-22T00:22:19.042Z\",\"target\":\"access\",\"message\":\"request\",\"path\":\"/a\",\
             \"present\":\"x\",\"agent\":\"a \\\"b\\\"\\u000a\\ufffd=\\\\\",\"none\":\"\",\"bytes\":1024,\"zero\":0,\"complete\":true,\"ms\":12.034}\n"
        );
    }

    #[test]
    fn characters_other_than_ascii_and_letters_are_escaped() {
        for (value, escaped) in [
            ("\u{e9}\u{444}\u{5e2}\u{4e2d}", "\u{e9}\u{444}\u{5e2}\u{4e2d}"),
            ("a\u{202e}b\u{2066}", "a\\u202eb\\u2066"),
            ("\u{a0}\u{ad}\u{200b}\u{feff}", "\\u00a0\\u00ad\\u200b\\ufeff"),
            ("\u{2028}\u{85}\u{7f}", "\\u2028\\u0085\\u007f"),
            ("\u{1f36a}\u{e0041}\u{20000}", "\\ud83c\\udf6a\\udb40\\udc41\u{20000}"),
            ("\u{3164}e\u{301}", "\\u3164e\\u0301"),
        ] {
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = line(format, |line| {
                    line.text("path", value.as_bytes());
                });
                assert!(line.contains(&format!("\"{escaped}\"")), "{line}");
            }
        }
    }

    #[test]
    fn date_times_are_formatted() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            let mut text = Vec::new();
            write_date_time(&mut text, seconds);
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    proptest! {
        #[test]
        fn date_times_equal_those_of_humantime(second in 0_u64..250_000_000_000) {
            let mut text = Vec::new();
            write_date_time(&mut text, second);
            let other = std::time::UNIX_EPOCH + Duration::from_secs(second);
            prop_assert_eq!(String::from_utf8(text).unwrap() + "Z", humantime::format_rfc3339_seconds(other).to_string());
        }

        #[test]
        fn values_cannot_add_lines_or_fields(value in prop::collection::vec(any::<u8>(), 0..60)) {
            let json = line(LogFormat::Json, |line| { line.text("a", &value).number("b", 1); });
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read["a"].as_str().unwrap(), String::from_utf8_lossy(&value));
            prop_assert_eq!(&read["b"], 1);
            let text = line(LogFormat::Text, |line| { line.text("a", &value).number("b", 1); });
            prop_assert_eq!(text.lines().count(), 1);
            prop_assert_eq!(text.chars().filter(|c| c.is_control()).count(), 1);
            let rest = text.split_once(" a=").unwrap().1.strip_suffix(" b=1\n").unwrap();
            let quoted = serde_json::from_str::<String>(rest).ok();
            prop_assert_eq!(quoted.unwrap_or_else(|| rest.to_owned()), String::from_utf8_lossy(&value));
        }
    }
}
