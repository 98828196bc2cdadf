//! Formats a session's row as text or JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::claims;
use crate::cli::context::RealmContext;
use crate::cli::output::{self, BAD, BOLD, DIM, GOOD};
use crate::format::{RowFault, SessionRecord};
use crate::item::{Item, Key};
use crate::session::judge::{Life, Policy, SessionVerdict, judge};
use crate::session::reference::Ref;
use crate::time::Timestamp;

/// A row, and whether its session is live or expired.
#[derive(Debug)]
pub(super) struct JudgedRow {
    reference: Ref,
    now: Timestamp,
    content: Result<(SessionRecord, SessionVerdict), RowFault>,
}

/// Whether claims are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimsDisplay {
    Show,
    Hide,
}

impl JudgedRow {
    /// Decodes `item` and judges its session at the time `now`.
    pub(super) fn judge(realm: &RealmContext, key: &Key, item: &Item, now: Timestamp) -> Self {
        let policy = Policy::new(&realm.config);
        let content = realm.format.decode(item).map(|record| {
            let verdict = judge(&policy, &record, now);
            (record, verdict)
        });
        Self { reference: Ref::from_key(key), now, content }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.content, Ok((_, SessionVerdict::Live(_))))
    }

    /// Returns the session's claims, or `None` if the row cannot be decoded.
    pub(super) fn claims(&self) -> Option<&claims::Claims> {
        self.content.as_ref().ok().map(|(record, _)| &record.claims)
    }

    /// Formats the row as one line with aligned columns.
    pub(super) fn to_line(&self, claims: ClaimsDisplay) -> String {
        let reference = self.reference;
        let (record, verdict) = match &self.content {
            Ok(content) => content,
            Err(fault) => return format!("{DIM}{reference}{DIM:#}  {BAD}not a session{BAD:#}  {fault}"),
        };
        let issued = output::relative(record.issued, self.now);
        let version = format!("v{}", record.version);
        let end = self.describe_expiry(record, *verdict);
        let mut line = format!("{BOLD}{reference}{BOLD:#}  {version:<5} issued {issued:<12} {end}");
        if claims == ClaimsDisplay::Show {
            let _ = write!(line, "  {}", claims_json(&record.claims, Layout::Line));
        }
        line
    }

    /// Formats all details over several lines.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{BOLD}{}{BOLD:#}\n", self.reference);
        let (record, verdict) = match &self.content {
            Ok(content) => content,
            Err(fault) => {
                let _ = writeln!(text, "  state    {BAD}not a session{BAD:#}: {fault}");
                return text;
            }
        };
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<8} {value}");
        };
        line("state", self.describe_expiry(record, *verdict));
        line("version", record.version.to_string());
        if let Some(created) = record.created {
            line("created", self.describe_time(created));
        }
        line("issued", self.describe_time(record.issued));
        line("expires", self.describe_time(record.expires));
        if let SessionVerdict::Live(Life { due, .. }) = verdict {
            line("reissue", if due.is_some() { "due with the next request" } else { "not due" }.to_owned());
        }
        line("claims", claims_json(&record.claims, Layout::Block).replace('\n', "\n           "));
        text
    }

    pub(super) fn to_json(&self, claims: ClaimsDisplay) -> Value {
        let (record, verdict) = match &self.content {
            Ok(content) => content,
            Err(fault) => {
                return json!({
                    "ref": self.reference.to_string(), "state": "no-session", "reason": fault.to_string(),
                });
            }
        };
        let state = match verdict {
            SessionVerdict::Live(_) => "live",
            SessionVerdict::Idle => "expired",
            SessionVerdict::TooOld => "too-old",
        };
        let mut row = json!({
            "ref": self.reference.to_string(),
            "state": state,
            "version": record.version,
            "created": record.created.map(Timestamp::as_secs),
            "issued": output::unix_seconds(record.issued),
            "expires": output::unix_seconds(record.expires),
        });
        if claims == ClaimsDisplay::Show
            && let Value::Object(row) = &mut row
        {
            row.insert("claims".to_owned(), Value::Object(record.claims.clone()));
        }
        row
    }

    fn describe_expiry(&self, record: &SessionRecord, verdict: SessionVerdict) -> String {
        match verdict {
            SessionVerdict::Live(life) => {
                format!("{GOOD}expires {}{GOOD:#}", output::relative(life.expires, self.now))
            }
            SessionVerdict::Idle => {
                format!("{BAD}expired{BAD:#} {}", output::relative(record.expires, self.now))
            }
            SessionVerdict::TooOld if record.created.is_none() => {
                format!("{BAD}expired{BAD:#}: its row does not record when it was created")
            }
            SessionVerdict::TooOld => format!("{BAD}expired{BAD:#}: its maximum lifetime has passed"),
        }
    }

    fn describe_time(&self, time: Timestamp) -> String {
        let relative = output::relative(time, self.now);
        if time == Timestamp::NEVER { relative } else { format!("{relative} ({})", output::utc(time)) }
    }
}

#[derive(Clone, Copy)]
enum Layout {
    Line,
    Block,
}

/// Formats claims as JSON, and escapes what a terminal would interpret, except for the line breaks of the layout.
fn claims_json(claims: &claims::Claims, layout: Layout) -> String {
    let json = match layout {
        Layout::Line => serde_json::to_string(claims),
        Layout::Block => serde_json::to_string_pretty(claims),
    };
    // Serializing JSON values does not fail.
    let json = json.unwrap_or_default();
    json.split('\n').map(output::escape).collect::<Vec<_>>().join("\n")
}
