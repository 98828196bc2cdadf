//! `websocket`, `recheck` and `idle_timeout`: what goes on for long after a request was admitted.

use std::time::Duration;

use toml::de::DeValue;

use super::Access;
use crate::config::section::Section;
use crate::config::value::{Fault, duration, text, wrong_type};

/// How a route treats WebSockets and responses that do not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// How often the session behind a WebSocket or a long response is read again; none: never, or there is none.
    pub recheck: Option<Duration>,
    /// How long a WebSocket or a stream of events may be silent.
    pub idle_timeout: Duration,
    /// Whether, and from where, WebSockets are taken.
    pub websocket: Option<WebsocketConfig>,
}

/// `websocket = true`, or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebsocketConfig {
    /// Whose pages may open one, besides those of this site: `https://app.example.com`, in lower case, without a port
    /// that the scheme implies.
    pub origins: Vec<String>,
    /// How long one may be open.
    pub max_age: Duration,
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

const RECHECK: Duration = Duration::from_mins(1);
const IDLE_TIMEOUT: Duration = HOUR;
const MAX_AGE: Duration = DAY;

pub(super) fn read(section: &mut Section<'_, '_>, access: Access) -> StreamsConfig {
    let recheck = section.get("recheck", |value| match duration(Duration::ZERO..=HOUR)(value)? {
        short if !short.is_zero() && short < SECOND => {
            Err(Fault::new("must be at least 1s, or 0s for never"))
        }
        recheck => Ok(recheck),
    });
    if section.has("recheck") && access == Access::Public {
        section.refuse("recheck", &super::ACCESS, super::needs_session());
    }
    let recheck = recheck.unwrap_or(RECHECK);
    StreamsConfig {
        recheck: (access != Access::Public && !recheck.is_zero()).then_some(recheck),
        idle_timeout: section.get("idle_timeout", duration(SECOND..=7 * DAY)).unwrap_or(IDLE_TIMEOUT),
        websocket: websocket(section),
    }
}

fn websocket(section: &mut Section<'_, '_>) -> Option<WebsocketConfig> {
    let is_there = section.has("websocket");
    let switch = section.get("websocket", |value| match value {
        DeValue::Boolean(on) => Ok(Some(*on)),
        DeValue::Table(_) => Ok(None),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_) => Err(wrong_type(value, "`true`, `false` or a table")),
    });
    let default = || WebsocketConfig { origins: Vec::new(), max_age: MAX_AGE };
    match switch {
        Some(Some(on)) => on.then(default),
        None if is_there => None,
        // Also read where it is absent: then it is off, and its keys are known all the same.
        Some(None) | None => section.table("websocket", |table| {
            let config = WebsocketConfig {
                origins: table.list("origins", text(origin)).unwrap_or_default(),
                max_age: table.get("max_age", duration(SECOND..=30 * DAY)).unwrap_or(MAX_AGE),
            };
            is_there.then_some(config)
        }),
    }
}

/// An origin as browsers write it (RFC 6454, 6.2).
fn origin(text: &str) -> Result<String, Fault> {
    let fault = || Fault::new("must be a scheme and a host").hint("such as \"https://app.example.com\"");
    let lower = text.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(fault)?;
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
    if scheme.is_empty() || host.is_empty() || !scheme.chars().all(is_scheme) {
        return Err(fault());
    }
    if !host.chars().all(is_host) {
        let fault = Fault::new("must be a scheme and a host, and nothing else");
        return Err(fault.hint("an origin has no path, no `*`, and no `/` at its end"));
    }
    let implied = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    Ok(format!("{scheme}://{}", host.strip_suffix(implied).unwrap_or(host)))
}
