//! Output of the commands: data goes to stdout, everything else to stderr. Colours are used on terminals only, unless
//! `CLICOLOR_FORCE` is set, and never carry information that the text lacks. Untrusted text (claims, headers, paths) is
//! escaped, so that it cannot control the terminal.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use anstream::{AutoStream, ColorChoice};
use clap::builder::styling::{AnsiColor, Color, Effects, Style};

use crate::config::diagnostic::{Colour, DiagnosticReport};
use crate::time::Timestamp;

pub(crate) const BOLD: Style = Style::new().effects(Effects::BOLD);
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
pub(crate) const GOOD: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
pub(crate) const BAD: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Red))).effects(Effects::BOLD);
pub(crate) const NOTE: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Cyan)));

/// Stdout, for data. Styles are removed unless it is a terminal with colours (`NO_COLOR`, `TERM`, `CLICOLOR`), or
/// `CLICOLOR_FORCE` is set.
pub(crate) fn stdout() -> AutoStream<io::StdoutLock<'static>> {
    AutoStream::auto(io::stdout().lock())
}

/// Stderr, for everything but data.
pub(crate) fn stderr() -> AutoStream<io::StderrLock<'static>> {
    AutoStream::auto(io::stderr().lock())
}

/// Prints a line to stderr.
pub(crate) fn print_status(line: impl fmt::Display) -> io::Result<()> {
    writeln!(stderr(), "{line}")
}

/// Prints the errors and warnings of a configuration.
pub(crate) fn print_diagnostics(problems: &DiagnosticReport) -> io::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    let mut stderr = stderr();
    let colour = match stderr.current_choice() {
        ColorChoice::Never => Colour::Plain,
        ColorChoice::Auto | ColorChoice::Always | ColorChoice::AlwaysAnsi => Colour::Ansi,
    };
    writeln!(stderr, "{}", problems.render(colour))
}

/// Escapes the characters of untrusted text that a terminal would interpret.
pub(crate) fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if controls_terminal(character) {
            // Writing to a string does not fail.
            let _ = write!(shown, "{}", character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Formats JSON, and escapes the characters that a terminal would interpret, except for line breaks. The result is the same
/// JSON, since these characters occur in strings only.
pub(crate) fn json(json: &impl fmt::Display) -> String {
    let json = json.to_string();
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if character != '\n' && controls_terminal(character) {
            // All of them have four hex digits. Writing to a string does not fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Returns whether a terminal would interpret `character`. U+202A–202E and U+2066–2069 reorder the text around them.
fn controls_terminal(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Formats a time relative to `now`: `in 18m 20s`, `3d ago`, `never`.
pub(crate) fn relative(time: Timestamp, now: Timestamp) -> String {
    if time == Timestamp::NEVER {
        "never".to_owned()
    } else if time > now {
        format!("in {}", short_duration(time.since(now)))
    } else {
        format!("{} ago", short_duration(now.since(time)))
    }
}

/// Returns a time in Unix seconds, or `None` for [`Timestamp::NEVER`].
pub(crate) fn unix_seconds(time: Timestamp) -> Option<i64> {
    (time != Timestamp::NEVER).then(|| time.as_secs())
}

/// Formats a time as a date and time in UTC.
pub(crate) fn utc(time: Timestamp) -> String {
    // RFC 3339 ends with the year 9999. Times before 1970 are not formatted either.
    let seconds = u64::try_from(time.as_secs()).ok().filter(|seconds| *seconds < 253_402_300_800);
    match seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))) {
        Some(date_time) => humantime::format_rfc3339_seconds(date_time).to_string(),
        None => format!("Unix time {}", time.as_secs()),
    }
}

/// Formats a duration in its two largest units, rounded down.
fn short_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    for (size, unit, smaller, name) in [(86_400, 'd', 3_600, 'h'), (3_600, 'h', 60, 'm'), (60, 'm', 1, 's')] {
        if secs >= size {
            let rest = secs % size / smaller;
            let tail = if rest == 0 { String::new() } else { format!(" {rest}{name}") };
            return format!("{}{unit}{tail}", secs / size);
        }
    }
    format!("{secs}s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_relative_in_two_units() {
        let now = Timestamp::from_secs(1_000_000);
        for (secs, expected) in [
            (0, "0s ago"),
            (42, "in 42s"),
            (-42, "42s ago"),
            (60, "in 1m"),
            (1_199, "in 19m 59s"),
            (-3_660, "1h 1m ago"),
            (86_400 * 14, "in 14d"),
            (86_400 * 2 + 3_599, "in 2d"),
        ] {
            assert_eq!(relative(Timestamp::from_secs(1_000_000 + secs), now), expected);
        }
        assert_eq!(relative(Timestamp::NEVER, now), "never");
        assert_eq!((unix_seconds(Timestamp::NEVER), unix_seconds(now)), (None, Some(1_000_000)));
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("zoë ☃"), "zoë ☃");
        assert_eq!(escape("\u{1b}[2J\u{9b}1m\r\n\u{202e}x"), "\\u{1b}[2J\\u{9b}1m\\u{d}\\u{a}\\u{202e}x");
    }

    #[test]
    fn control_characters_in_json_are_escaped_and_the_value_is_the_same() {
        let value =
            serde_json::json!({ "zoë\u{9b}": "\u{1b}[2J\u{7f}\u{9b}1m\r\n\u{202e}\u{2069}x\u{1f600}" });
        let line = json(&value);
        assert_eq!(line, r#"{"zoë\u009b":"\u001b[2J\u007f\u009b1m\r\n\u202e\u2069x😀"}"#);
        for text in [line, json(&format_args!("{value:#}"))] {
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
            assert!(text.chars().all(|character| character == '\n' || !controls_terminal(character)));
        }
    }
}
