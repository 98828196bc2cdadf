//! One row of a table as a person, or a program, is shown it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::claims;
use crate::cli::output::{self, BAD, BOLD, DIM, GOOD};
use crate::cli::site::Site;
use crate::format::{RowFault, SessionRecord};
use crate::item::{Item, Key};
use crate::session::judge::{Life, Policy, SessionVerdict, judge};
use crate::session::reference::Ref;
use crate::time::Timestamp;

/// A row, judged.
#[derive(Debug)]
pub(super) struct JudgedRow {
    reference: Ref,
    now: Timestamp,
    content: Result<(SessionRecord, SessionVerdict), RowFault>,
}

/// Whether claims are part of what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimsDisplay {
    Shown,
    Left,
}

impl JudgedRow {
    pub(super) fn judge(site: &Site, key: &Key, item: &Item, now: Timestamp) -> Self {
        let policy = Policy::new(&site.config);
        let content = site.format.decode(item).map(|record| {
            let verdict = judge(&policy, &record, now);
            (record, verdict)
        });
        Self { reference: Ref::of(key), now, content }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.content, Ok((_, SessionVerdict::Live(_))))
    }

    /// The session's claims, if it is one, alive or not.
    pub(super) fn claims(&self) -> Option<&claims::Claims> {
        self.content.as_ref().ok().map(|(record, _)| &record.claims)
    }

    /// One line, in columns that hold still from row to row.
    pub(super) fn to_line(&self, claims: ClaimsDisplay) -> String {
        let reference = self.reference;
        let (record, verdict) = match &self.content {
            Ok(content) => content,
            Err(fault) => return format!("{DIM}{reference}{DIM:#}  {BAD}no session{BAD:#}  {fault}"),
        };
        let issued = output::relative(record.issued, self.now);
        let version = format!("v{}", record.version);
        let end = self.end(record, *verdict);
        let mut line = format!("{BOLD}{reference}{BOLD:#}  {version:<5} issued {issued:<12} {end}");
        if claims == ClaimsDisplay::Shown {
            let _ = write!(line, "  {}", shown(&record.claims, Layout::Line));
        }
        line
    }

    /// All there is to say, over several lines.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("{BOLD}{}{BOLD:#}\n", self.reference);
        let (record, verdict) = match &self.content {
            Ok(content) => content,
            Err(fault) => {
                let _ = writeln!(text, "  state    {BAD}no session{BAD:#}: {fault}");
                return text;
            }
        };
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<8} {value}");
        };
        line("state", self.end(record, *verdict));
        line("version", record.version.to_string());
        if let Some(created) = record.created {
            line("created", self.moment(created));
        }
        line("issued", self.moment(record.issued));
        line("expires", self.moment(record.expires));
        if let SessionVerdict::Live(Life { due, .. }) = verdict {
            line(
                "reissue",
                if due.is_some() { "due with the next request" } else { "not due yet" }.to_owned(),
            );
        }
        line("claims", shown(&record.claims, Layout::Block).replace('\n', "\n           "));
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
            "issued": output::seconds(record.issued),
            "expires": output::seconds(record.expires),
        });
        if claims == ClaimsDisplay::Shown
            && let Value::Object(row) = &mut row
        {
            row.insert("claims".to_owned(), Value::Object(record.claims.clone()));
        }
        row
    }

    fn end(&self, record: &SessionRecord, verdict: SessionVerdict) -> String {
        match verdict {
            SessionVerdict::Live(life) => {
                format!("{GOOD}expires {}{GOOD:#}", output::relative(life.expires, self.now))
            }
            SessionVerdict::Idle => {
                format!("{BAD}expired{BAD:#} {}", output::relative(record.expires, self.now))
            }
            SessionVerdict::TooOld => format!("{BAD}over{BAD:#}: its lifetime has passed"),
        }
    }

    fn moment(&self, moment: Timestamp) -> String {
        let relative = output::relative(moment, self.now);
        if moment == Timestamp::NEVER {
            relative
        } else {
            format!("{relative} ({})", output::calendar(moment))
        }
    }
}

#[derive(Clone, Copy)]
enum Layout {
    Line,
    Block,
}

/// Claims as JSON. They are others' words, so what a terminal would obey is made visible, line breaks of ours apart.
fn shown(claims: &claims::Claims, layout: Layout) -> String {
    let json = match layout {
        Layout::Line => serde_json::to_string(claims),
        Layout::Block => serde_json::to_string_pretty(claims),
    };
    // A map of JSON values is always JSON.
    let json = json.unwrap_or_default();
    json.split('\n').map(output::visible).collect::<Vec<_>>().join("\n")
}
