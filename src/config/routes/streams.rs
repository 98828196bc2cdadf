//! `websocket`, `recheck` and `idle_timeout`: WebSockets and long-lived responses.

use std::time::Duration;

use toml::de::DeValue;

use super::Access;
use crate::config::section::Section;
use crate::config::value::{Fault, duration, text, wrong_type};

/// Settings of WebSockets and long-lived responses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Interval at which the session of a WebSocket or long-lived response is read again. `None` if it is turned off, or
    /// the route is public.
    pub recheck: Option<Duration>,
    /// Idle timeout of WebSockets and event streams.
    pub idle_timeout: Duration,
    /// WebSocket settings. `None` rejects WebSockets.
    pub websocket: Option<WebsocketConfig>,
}

/// `websocket = true`, or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebsocketConfig {
    /// Allowed origins other than the site itself, such as `https://app.example.com`: in lower case, without a default
    /// port.
    pub origins: Vec<String>,
    /// Maximum lifetime of a WebSocket.
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
            Err(Fault::new("must be at least 1s, or 0s to turn it off"))
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
    let is_set = section.has("websocket");
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
        None if is_set => None,
        // An absent table is read too, so that its keys are known.
        Some(None) | None => section.table("websocket", |table| {
            let config = WebsocketConfig {
                origins: table.list("origins", text(origin)).unwrap_or_default(),
                max_age: table.get("max_age", duration(SECOND..=30 * DAY)).unwrap_or(MAX_AGE),
            };
            is_set.then_some(config)
        }),
    }
}

/// Parses an origin and serializes it as browsers do (RFC 6454, 6.2).
fn origin(text: &str) -> Result<String, Fault> {
    let fault = || Fault::new("must be a scheme and a host").hint("for example \"https://app.example.com\"");
    let lower = text.to_ascii_lowercase();
    let (scheme, host) = lower.split_once("://").ok_or_else(fault)?;
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
    if scheme.is_empty() || host.is_empty() || !scheme.chars().all(is_scheme) {
        return Err(fault());
    }
    if !host.chars().all(is_host) {
        let fault = Fault::new("must consist of a scheme and a host only");
        return Err(fault.hint("an origin has no path, `*` or trailing `/`"));
    }
    let default_port = match scheme {
        "https" => ":443",
        "http" => ":80",
        _ => "",
    };
    Ok(format!("{scheme}://{}", host.strip_suffix(default_port).unwrap_or(host)))
}
