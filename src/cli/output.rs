//! Where words go: data to stdout, everything else to stderr. Colour only where a person reads it, and never without
//! the words saying the same. What others wrote (claims, headers, paths) cannot steer the terminal.

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

/// Data. Styles written to it are dropped unless this is a terminal that wants them (`NO_COLOR`, `TERM`, `CLICOLOR`).
pub(crate) fn stdout() -> AutoStream<io::StdoutLock<'static>> {
    AutoStream::auto(io::stdout().lock())
}

/// Everything else.
pub(crate) fn stderr() -> AutoStream<io::StderrLock<'static>> {
    AutoStream::auto(io::stderr().lock())
}

/// One line of news for the person at the terminal.
pub(crate) fn say(line: impl fmt::Display) -> io::Result<()> {
    writeln!(stderr(), "{line}")
}

/// The problems of a configuration.
pub(crate) fn report(problems: &DiagnosticReport) -> io::Result<()> {
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

/// Text of others, with everything that a terminal would obey made visible.
pub(crate) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        // U+202A–202E and U+2066–2069 reorder what stands around them.
        if letter.is_control() || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            // Writing to a string does not fail.
            let _ = write!(shown, "{}", letter.escape_unicode());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// A moment as a person would put it: `in 18m 20s`, `3d ago`, `never`.
pub(crate) fn relative(moment: Timestamp, now: Timestamp) -> String {
    if moment == Timestamp::NEVER {
        "never".to_owned()
    } else if moment > now {
        format!("in {}", brief(moment.since(now)))
    } else {
        format!("{} ago", brief(now.since(moment)))
    }
}

/// A moment as a program would put it: Unix seconds, or none for one that never comes.
pub(crate) fn seconds(moment: Timestamp) -> Option<i64> {
    (moment != Timestamp::NEVER).then(|| moment.as_secs())
}

/// A moment by the calendar, in UTC.
pub(crate) fn calendar(moment: Timestamp) -> String {
    // The notation begins with 1970 and ends with the year 9999.
    let seconds = u64::try_from(moment.as_secs()).ok().filter(|seconds| *seconds < 253_402_300_800);
    match seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))) {
        Some(time) => humantime::format_rfc3339_seconds(time).to_string(),
        None => format!("Unix time {}", moment.as_secs()),
    }
}

/// A duration in its two largest units, rounded down.
fn brief(duration: Duration) -> String {
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
    fn moments_read_like_speech() {
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
        assert_eq!((seconds(Timestamp::NEVER), seconds(now)), (None, Some(1_000_000)));
    }

    #[test]
    fn others_cannot_steer_the_terminal() {
        assert_eq!(visible("zoë ☃"), "zoë ☃");
        assert_eq!(visible("\u{1b}[2J\u{9b}1m\r\n\u{202e}x"), "\\u{1b}[2J\\u{9b}1m\\u{d}\\u{a}\\u{202e}x");
    }
}
