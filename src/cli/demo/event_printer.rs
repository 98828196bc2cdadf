//! Prints one line per request, from the gateway's access log and from what the app received.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use clap::builder::styling::Style;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::output::{self, BAD, BOLD, DIM, GOOD, NOTE, escape};
use crate::demo::AppRequest;
use crate::session::reference::Ref;
use crate::telemetry::dependencies::DependencyLimits;
use crate::time::Clock;

use super::welcome::Welcome;

/// Maximum number of app requests that are kept until their access log line is written.
const MAX_UNMATCHED: usize = 256;

/// An event that the demo prints.
#[derive(Debug)]
pub(super) enum DemoEvent {
    /// The app has received a request.
    AppRequest(AppRequest),
    /// The gateway has logged a request.
    Logged(AccessLogEntry),
    /// Alice has a new session.
    NewSession(Ref),
}

/// The fields of an access log line that the demo uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct AccessLogEntry {
    id: String,
    method: String,
    path: String,
    status: u64,
    verdict: String,
    reason: Option<String>,
    reissue: bool,
    change: Option<String>,
}

/// Prints events to stdout.
#[derive(Debug)]
pub(super) struct EventPrinter {
    welcome: Welcome,
    started: Instant,
    /// Requests that the app has received, and whose access log line has not been written yet.
    unmatched: VecDeque<AppRequest>,
    last_poll: String,
}

/// Parses the gateway's access log and sends an event for each line.
pub(super) struct LogParser {
    events: mpsc::Sender<DemoEvent>,
}

/// Writes warnings and errors of the gateway to stderr.
pub(super) fn log_warnings() {
    let warnings = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_filter(tracing_subscriber::filter::LevelFilter::WARN);
    if tracing_subscriber::registry().with(warnings).with(DependencyLimits::default()).try_init().is_err() {
        tracing::debug!("a log subscriber is already installed");
    }
}

impl LogParser {
    pub(super) fn new(events: mpsc::Sender<DemoEvent>) -> Self {
        Self { events }
    }
}

/// Expects whole lines in each write, as the access log writes them.
impl io::Write for LogParser {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        for line in lines.split(|&byte| byte == b'\n') {
            if let Ok(entry) = serde_json::from_slice(line) {
                // If the queue is full, the terminal cannot keep up, and the event is dropped.
                let _ = self.events.try_send(DemoEvent::Logged(entry));
            }
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EventPrinter {
    pub(super) fn new(welcome: Welcome) -> Self {
        Self { welcome, started: Clock.mono(), unmatched: VecDeque::new(), last_poll: String::new() }
    }

    /// Prints events until stdout is closed.
    pub(super) async fn run(mut self, mut events: mpsc::Receiver<DemoEvent>) -> io::Result<()> {
        while let Some(event) = events.recv().await {
            let elapsed = Clock.mono().saturating_duration_since(self.started);
            match event {
                DemoEvent::AppRequest(request) => self.remember(request),
                DemoEvent::NewSession(session) => {
                    let command = self.welcome.revoke_command(session);
                    print(
                        elapsed,
                        format_args!("{GOOD}alice has a new session{GOOD:#}; to end it: {command}"),
                    )?;
                }
                DemoEvent::Logged(entry) => {
                    if let Some(line) = self.line(&entry) {
                        print(elapsed, line)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, request: AppRequest) {
        self.unmatched.push_back(request);
        if self.unmatched.len() > MAX_UNMATCHED {
            self.unmatched.pop_front();
        }
    }

    /// Returns the line about a request, or `None` for a poll that reissued no session and had the same result as the
    /// previous poll.
    fn line(&mut self, entry: &AccessLogEntry) -> Option<String> {
        let position = self.unmatched.iter().position(|request| request.request_id == entry.id);
        let app_request = position.and_then(|position| self.unmatched.remove(position));
        // The link ends in a secret, which is not printed.
        let is_login_link = entry.path.starts_with("/become/");
        let path = if is_login_link { "/become/..." } else { &entry.path };
        let description = match &app_request {
            Some(_) if is_login_link && entry.status == 303 => {
                format!("{GOOD}a browser has logged in as alice{GOOD:#}")
            }
            Some(request) => match change(entry, request) {
                Some(change) => format!("{}  {GOOD}{change}{GOOD:#}", injected(request)),
                None => injected(request),
            },
            None => format!("{DIM}did not reach the app:{DIM:#} {}", refusal(entry)),
        };
        if entry.path.ends_with("/whoami") {
            let poll = format!("{} {} {description}", entry.path, entry.status);
            let is_repeated = poll == self.last_poll;
            self.last_poll = poll;
            if is_repeated && !entry.reissue {
                return None;
            }
        }
        let request = format!("{} {}", entry.method, escape(path));
        let reissued = if entry.reissue { format!("  {NOTE}reissued{NOTE:#}") } else { String::new() };
        let style = style(entry.status);
        Some(format!("{BOLD}{request:<20}{BOLD:#} {style}{}{style:#}  {description}{reissued}", entry.status))
    }
}

fn print(elapsed: Duration, line: impl fmt::Display) -> io::Result<()> {
    let (minutes, seconds) = (elapsed.as_secs() / 60, elapsed.as_secs() % 60);
    writeln!(output::stdout(), "{DIM}{minutes:>2}:{seconds:02}{DIM:#}  {line}")
}

/// Formats the headers with claims that the app received, or else its X-Session-Status.
fn injected(request: &AppRequest) -> String {
    let is_control = |name: &str| name.starts_with("X-Session-");
    let mapped: Vec<_> = request
        .injected
        .iter()
        .filter(|(name, _)| !is_control(name))
        .map(|(name, value)| format!("{name}: {GOOD}{}{GOOD:#}", escape(value)))
        .collect();
    if !mapped.is_empty() {
        return mapped.join("  ");
    }
    let status = request.injected.iter().find(|(name, _)| name == "X-Session-Status");
    format!("X-Session-Status: {}", status.map_or("(none)", |(_, status)| status))
}

/// Describes how the app has changed the session, if it has.
fn change(entry: &AccessLogEntry, request: &AppRequest) -> Option<&'static str> {
    let is_session = |status: &str| matches!(status, "active" | "guest");
    let had_session =
        request.injected.iter().any(|(name, value)| name == "X-Session-Status" && is_session(value));
    match entry.change.as_deref()? {
        "ended" => Some("session ended"),
        "written" if !had_session => Some("session created"),
        "written" if request.rotates => Some("session changed, new id"),
        "written" => Some("session changed"),
        _ => None,
    }
}

fn refusal(entry: &AccessLogEntry) -> String {
    match &entry.reason {
        Some(reason) => format!("{} ({reason})", entry.verdict),
        None => entry.verdict.clone(),
    }
}

fn style(status: u64) -> Style {
    match status {
        200..=299 => GOOD,
        300..=399 => NOTE,
        _ => BAD,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer() -> EventPrinter {
        EventPrinter::new(Welcome {
            gateway: "127.0.0.1:1".parse().unwrap(),
            port_in_use: None,
            link: String::new(),
            cookie: String::new(),
            file: "gateway.toml".into(),
        })
    }

    fn entry(path: &str, status: u64) -> AccessLogEntry {
        AccessLogEntry {
            id: "r".into(),
            method: "GET".into(),
            path: path.into(),
            status,
            ..AccessLogEntry::default()
        }
    }

    fn request(user: &str) -> AppRequest {
        AppRequest { request_id: "r".into(), injected: vec![("X-User".into(), user.into())], rotates: false }
    }

    #[test]
    fn change_of_the_session_is_printed() {
        let with = |status: &str, rotates, change: Option<&str>| {
            let injected = vec![("X-Session-Status".to_owned(), status.to_owned())];
            let mut printer = printer();
            printer.remember(AppRequest { injected, rotates, ..request("alice") });
            printer
                .line(&AccessLogEntry { change: change.map(str::to_owned), ..entry("/log-in", 303) })
                .unwrap()
        };
        assert!(with("anonymous", true, Some("written")).contains("session created"));
        assert!(with("active", true, Some("written")).contains("new id"));
        assert!(with("guest", true, Some("written")).contains("new id"));
        assert!(with("active", false, Some("ended")).contains("session ended"));
        assert!(!with("active", false, None).contains("session "));
    }

    #[test]
    fn headers_that_the_app_received_are_printed() {
        let mut printer = printer();
        printer.remember(request("al\u{1b}ice"));
        let line = printer.line(&entry("/", 200)).unwrap();
        assert!(line.contains("X-User") && line.contains("al\\u{1b}ice"), "{line:?}");
        let refused = AccessLogEntry { verdict: "forbidden".into(), ..entry("/admin", 403) };
        let line = printer.line(&refused).unwrap();
        assert!(line.contains("did not reach the app") && line.contains("forbidden"), "{line:?}");
    }

    #[test]
    fn repeated_poll_is_not_printed() {
        let mut printer = printer();
        let mut poll = |user, reissue| {
            printer.remember(request(user));
            printer.line(&AccessLogEntry { reissue, ..entry("/whoami", 200) }).is_some()
        };
        assert!(poll("alice", false));
        assert!(!poll("alice", false));
        assert!(poll("alice", true), "a reissue");
        assert!(!poll("alice", false));
        assert!(poll("bob", false));
    }

    #[test]
    fn secret_of_the_login_link_is_not_printed() {
        let mut printer = printer();
        printer.remember(request("alice"));
        let line = printer.line(&entry("/become/s3cret", 303)).unwrap();
        assert!(!line.contains("s3cret") && line.contains("logged in as alice"), "{line}");
    }

    #[test]
    fn unmatched_requests_are_limited() {
        let mut printer = printer();
        (0..2 * MAX_UNMATCHED).for_each(|_| printer.remember(request("alice")));
        assert_eq!(printer.unmatched.len(), MAX_UNMATCHED);
    }
}
