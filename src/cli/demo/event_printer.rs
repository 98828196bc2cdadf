//! The demo's story: one line for each request, from the gateway's own access log and from what the app received.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use clap::builder::styling::Style;
use serde::Deserialize;
use tokio::sync::mpsc;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::cli::output::{self, BAD, BOLD, DIM, GOOD, NOTE, visible};
use crate::demo::Heard;
use crate::session::reference::Ref;
use crate::telemetry::dependencies::DependencyLimits;
use crate::time::Clock;

use super::welcome::Welcome;

/// What the app heard is kept until the gateway's line about it comes; this many at most.
const UNMATCHED: usize = 256;

/// Something to tell.
#[derive(Debug)]
pub(super) enum DemoEvent {
    /// The app received a request.
    Heard(Heard),
    /// The gateway is done with a request.
    Answered(AnsweredEvent),
    /// Alice has a new session.
    SignedIn(Ref),
}

/// The gateway's line about a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct AnsweredEvent {
    id: String,
    method: String,
    path: String,
    status: u64,
    verdict: String,
    reason: Option<String>,
    reissue: bool,
    change: Option<String>,
}

/// Tells the news on stdout.
#[derive(Debug)]
pub(super) struct EventPrinter {
    welcome: Welcome,
    began: Instant,
    heard: VecDeque<Heard>,
    last_poll: String,
}

/// Listens to the gateway's access log.
pub(super) struct LogSubscriber {
    news: mpsc::Sender<DemoEvent>,
}

/// What else the gateway has to say goes to stderr if it is a warning.
pub(super) fn listen() {
    let warnings = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_filter(tracing_subscriber::filter::LevelFilter::WARN);
    if tracing_subscriber::registry().with(warnings).with(DependencyLimits::default()).try_init().is_err() {
        tracing::debug!("a log subscriber is already installed");
    }
}

impl LogSubscriber {
    pub(super) fn new(news: mpsc::Sender<DemoEvent>) -> Self {
        Self { news }
    }
}

/// Takes whole lines, as the access log writes them.
impl io::Write for LogSubscriber {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        for line in lines.split(|&byte| byte == b'\n') {
            if let Ok(answered) = serde_json::from_slice(line) {
                // A full queue means that the terminal cannot keep up, and nobody could read it either.
                let _untold = self.news.try_send(DemoEvent::Answered(answered));
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
        Self { welcome, began: Clock.mono(), heard: VecDeque::new(), last_poll: String::new() }
    }

    /// Tells until the terminal is gone.
    pub(super) async fn tell(mut self, mut news: mpsc::Receiver<DemoEvent>) -> io::Result<()> {
        while let Some(news) = news.recv().await {
            let elapsed = Clock.mono().saturating_duration_since(self.began);
            match news {
                DemoEvent::Heard(heard) => self.remember(heard),
                DemoEvent::SignedIn(session) => {
                    let command = self.welcome.revocation(session);
                    say(
                        elapsed,
                        format_args!("{GOOD}alice has a new session{GOOD:#}; to end it: {command}"),
                    )?;
                }
                DemoEvent::Answered(answered) => {
                    if let Some(line) = self.line(&answered) {
                        say(elapsed, line)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, heard: Heard) {
        self.heard.push_back(heard);
        if self.heard.len() > UNMATCHED {
            self.heard.pop_front();
        }
    }

    /// The line about a request; none for a poll like the one before.
    fn line(&mut self, answered: &AnsweredEvent) -> Option<String> {
        let at = self.heard.iter().position(|heard| heard.request_id == answered.id);
        let heard = at.and_then(|at| self.heard.remove(at));
        // The link's secret end is for the browser's bar alone.
        let entered = answered.path.starts_with("/become/");
        let path = if entered { "/become/..." } else { &answered.path };
        let story = match &heard {
            Some(_) if entered && answered.status == 303 => {
                format!("{GOOD}a browser has become alice{GOOD:#}")
            }
            Some(heard) => match change(answered, heard) {
                Some(change) => format!("{}  {GOOD}{change}{GOOD:#}", received(heard)),
                None => received(heard),
            },
            None => format!("{DIM}the app was not asked:{DIM:#} {}", refusal(answered)),
        };
        if answered.path.ends_with("/whoami") {
            let poll = format!("{} {} {story}", answered.path, answered.status);
            let same = poll == self.last_poll;
            self.last_poll = poll;
            if same && !answered.reissue {
                return None;
            }
        }
        let request = format!("{} {}", answered.method, visible(path));
        let reissued = if answered.reissue { format!("  {NOTE}reissued{NOTE:#}") } else { String::new() };
        let style = style(answered.status);
        Some(format!("{BOLD}{request:<20}{BOLD:#} {style}{}{style:#}  {story}{reissued}", answered.status))
    }
}

fn say(elapsed: Duration, line: impl fmt::Display) -> io::Result<()> {
    let (minutes, seconds) = (elapsed.as_secs() / 60, elapsed.as_secs() % 60);
    writeln!(output::stdout(), "{DIM}{minutes:>2}:{seconds:02}{DIM:#}  {line}")
}

/// What the app saw, in its own headers.
fn received(heard: &Heard) -> String {
    let is_ours = |name: &str| name.starts_with("X-Session-");
    let mapped: Vec<_> = heard
        .injected
        .iter()
        .filter(|(name, _)| !is_ours(name))
        .map(|(name, value)| format!("{name}: {GOOD}{}{GOOD:#}", visible(value)))
        .collect();
    if !mapped.is_empty() {
        return mapped.join("  ");
    }
    let status = heard.injected.iter().find(|(name, _)| name == "X-Session-Status");
    format!("X-Session-Status: {}", status.map_or("(none)", |(_, status)| status))
}

/// What became of the session by the app's order.
fn change(answered: &AnsweredEvent, heard: &Heard) -> Option<&'static str> {
    let has_session = |status: &str| matches!(status, "active" | "guest");
    let had_one = heard.injected.iter().any(|(name, value)| name == "X-Session-Status" && has_session(value));
    match answered.change.as_deref()? {
        "ended" => Some("session ended"),
        "written" if !had_one => Some("session made"),
        "written" if heard.rotates => Some("session changed, new id"),
        "written" => Some("session changed"),
        _ => None,
    }
}

fn refusal(answered: &AnsweredEvent) -> String {
    match &answered.reason {
        Some(reason) => format!("{} ({reason})", answered.verdict),
        None => answered.verdict.clone(),
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

    fn narrator() -> EventPrinter {
        EventPrinter::new(Welcome {
            gateway: "127.0.0.1:1".parse().unwrap(),
            port_was_taken: None,
            link: String::new(),
            cookie: String::new(),
            file: "gateway.toml".into(),
        })
    }

    fn answered(path: &str, status: u64) -> AnsweredEvent {
        AnsweredEvent {
            id: "r".into(),
            method: "GET".into(),
            path: path.into(),
            status,
            ..AnsweredEvent::default()
        }
    }

    fn heard(user: &str) -> Heard {
        Heard { request_id: "r".into(), injected: vec![("X-User".into(), user.into())], rotates: false }
    }

    #[test]
    fn what_became_of_the_session_is_told() {
        let with = |status: &str, rotates, change: Option<&str>| {
            let injected = vec![("X-Session-Status".to_owned(), status.to_owned())];
            let mut narrator = narrator();
            narrator.remember(Heard { injected, rotates, ..heard("alice") });
            narrator
                .line(&AnsweredEvent { change: change.map(str::to_owned), ..answered("/log-in", 303) })
                .unwrap()
        };
        assert!(with("anonymous", true, Some("written")).contains("session made"));
        assert!(with("active", true, Some("written")).contains("new id"));
        assert!(with("guest", true, Some("written")).contains("new id"));
        assert!(with("active", false, Some("ended")).contains("session ended"));
        assert!(!with("active", false, None).contains("session "));
    }

    #[test]
    fn what_the_app_heard_is_told_with_the_answer() {
        let mut narrator = narrator();
        narrator.remember(heard("al\u{1b}ice"));
        let line = narrator.line(&answered("/", 200)).unwrap();
        assert!(line.contains("X-User") && line.contains("al\\u{1b}ice"), "{line:?}");
        let refused = AnsweredEvent { verdict: "forbidden".into(), ..answered("/admin", 403) };
        let line = narrator.line(&refused).unwrap();
        assert!(line.contains("was not asked") && line.contains("forbidden"), "{line:?}");
    }

    #[test]
    fn a_poll_like_the_one_before_is_not_told() {
        let mut narrator = narrator();
        let mut poll = |user, reissue| {
            narrator.remember(heard(user));
            narrator.line(&AnsweredEvent { reissue, ..answered("/whoami", 200) }).is_some()
        };
        assert!(poll("alice", false));
        assert!(!poll("alice", false));
        assert!(poll("alice", true), "a reissue");
        assert!(!poll("alice", false));
        assert!(poll("bob", false));
    }

    #[test]
    fn the_links_secret_end_is_not_told() {
        let mut narrator = narrator();
        narrator.remember(heard("alice"));
        let line = narrator.line(&answered("/become/s3cret", 303)).unwrap();
        assert!(!line.contains("s3cret") && line.contains("become alice"), "{line}");
    }

    #[test]
    fn what_nobody_matches_does_not_pile_up() {
        let mut narrator = narrator();
        (0..2 * UNMATCHED).for_each(|_| narrator.remember(heard("alice")));
        assert_eq!(narrator.heard.len(), UNMATCHED);
    }
}
