//! Session commands: response headers by which an upstream changes the session.
//!
//! | header | effect |
//! | --- | --- |
//! | `X-Session-Patch: {"user":"alice","cart":null}` | RFC 7396 merge patch of the claims; creates a session for a visitor without one |
//! | `X-Session-Flash: Saved` | appends a message, percent-decoded; any number of lines |
//! | `X-Session-Action: rotate` or `destroy` | gives the session a new id, or ends it |
//! | `X-Session-If-Version: 7` | applies the commands only if the session has this version, else 409 |

use http::HeaderName;
use percent_encoding::percent_decode;

use crate::claims::Claims;
use crate::fields::{Fields, visible_ascii};
use crate::format;
use crate::headers::{SESSION_ACTION, SESSION_FLASH, SESSION_IF_VERSION, SESSION_PATCH};
use crate::proxy::log::RequestRecord;
use crate::proxy::model::{Exchange, Visitor};
use crate::proxy::refusal::Refusal;
use crate::session::{Action, ChangeError, Edit, MutationOutcome, SessionMutation};

/// Reads the commands of a response, or returns `None` if it has none.
///
/// # Errors
/// Returns the name of a header whose value is invalid.
fn read(fields: &Fields) -> Result<Option<SessionMutation>, HeaderName> {
    let patch = match single(fields, &SESSION_PATCH)? {
        None => Claims::new(),
        Some(json) => format::parse_claims(json).ok_or(SESSION_PATCH)?,
    };
    let mut flash = Vec::new();
    for message in fields.get_all(&SESSION_FLASH) {
        let message = percent_decode(message).decode_utf8().map_err(|_| SESSION_FLASH)?;
        flash.push(message.into_owned());
    }
    let action = match single(fields, &SESSION_ACTION)? {
        None => None,
        Some(b"rotate") => Some(Action::Rotate),
        Some(b"destroy") => Some(Action::Destroy),
        Some(_) => return Err(SESSION_ACTION),
    };
    let if_version = match single(fields, &SESSION_IF_VERSION)? {
        None => None,
        Some(version) => {
            let version = visible_ascii(version).and_then(|text| text.parse().ok());
            Some(version.ok_or(SESSION_IF_VERSION)?)
        }
    };
    let edits =
        if patch.is_empty() && flash.is_empty() { vec![] } else { vec![Edit::Apply { patch, flash }] };
    if edits.is_empty() && action.is_none() {
        return Ok(None);
    }
    Ok(Some(SessionMutation { edits, action, if_version }))
}

/// Applies the commands of a response before any of it is forwarded, so that a client that sees the response can rely on
/// them.
///
/// # Errors
/// Returns a refusal if the commands cannot be applied.
pub(in crate::proxy) async fn apply_commands(
    fields: &Fields,
    exchange: &Exchange,
    record: &mut RequestRecord,
) -> Result<Option<MutationOutcome>, Refusal> {
    if !has_commands(fields) {
        return Ok(None);
    }
    let route = &exchange.route;
    let Some(realm) = route.realm.as_ref().filter(|_| route.writes) else {
        let trace = record.trace_id();
        tracing::warn!(trace, route = %route.name, "an upstream sent a session command on a route without `writes`");
        return Ok(None);
    };
    let mutation = read(fields).map_err(|name| {
        record.detail = Some(format!("the upstream's `{name}` is invalid"));
        Refusal::BadResponse
    })?;
    let Some(mutation) = mutation else { return Ok(None) };
    let active = match &exchange.visitor {
        Visitor::Session(active) => Some(&**active),
        // The user's session is one of several, so it would stay alive.
        Visitor::Ambiguous if mutation.action == Some(Action::Destroy) => {
            record.detail = Some("the cookies name several live sessions, or too many to look up".to_owned());
            return Err(Refusal::Conflict);
        }
        Visitor::Anonymous | Visitor::Ambiguous => None,
        // Whether the client has a session is unknown.
        Visitor::Unknown | Visitor::Public => return Err(Refusal::StoreUnavailable),
    };
    let changed = realm.change(active, mutation).await;
    record.record_session_write();
    match changed {
        Ok(outcome) => {
            record.change = Some(outcome.label());
            Ok(Some(outcome))
        }
        Err(error) => {
            record.detail = Some(error.to_string());
            Err(match error {
                ChangeError::Conflict => Refusal::Conflict,
                ChangeError::Unwritable(_) => Refusal::Unwritable,
                ChangeError::Store(_)
                | ChangeError::Unfinished
                | ChangeError::IdExists
                | ChangeError::Randomness => Refusal::StoreUnavailable,
            })
        }
    }
}

/// Returns whether a response has commands, valid or not.
fn has_commands(fields: &Fields) -> bool {
    fields.names().any(|name| [SESSION_PATCH, SESSION_FLASH, SESSION_ACTION].contains(name))
}

fn single<'f>(fields: &'f Fields, name: &HeaderName) -> Result<Option<&'f [u8]>, HeaderName> {
    let mut values = fields.get_all(name);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn mutation(lines: &[(&HeaderName, &str)]) -> Result<Option<SessionMutation>, HeaderName> {
        let mut fields = Fields::new();
        for (name, value) in lines {
            fields.append((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        read(&fields)
    }

    #[test]
    fn headers_are_read_as_commands() {
        let edit = |patch: serde_json::Value, flash: &[&str]| {
            let flash = flash.iter().map(|&message| message.to_owned()).collect();
            vec![Edit::Apply { patch: patch.as_object().unwrap().clone(), flash }]
        };
        for (lines, expected) in [
            (&[][..], None),
            (&[(&SESSION_IF_VERSION, "7")], None),
            (&[(&SESSION_PATCH, "{}")], None),
            (
                &[(&SESSION_PATCH, r#"{"user":"Zoë","cart":null}"#), (&SESSION_IF_VERSION, "7")],
                Some(SessionMutation {
                    edits: edit(json!({"user": "Zoë", "cart": null}), &[]),
                    action: None,
                    if_version: Some(7),
                }),
            ),
            (
                &[(&SESSION_FLASH, "Saved%2C 100%25"), (&SESSION_FLASH, "Zo%C3%AB")],
                Some(SessionMutation {
                    edits: edit(json!({}), &["Saved, 100%", "Zoë"]),
                    action: None,
                    if_version: None,
                }),
            ),
            (
                &[(&SESSION_ACTION, "rotate")],
                Some(SessionMutation { edits: vec![], action: Some(Action::Rotate), if_version: None }),
            ),
        ] {
            assert_eq!(mutation(lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn invalid_command_is_reported_by_header_name() {
        for (lines, expected) in [
            (&[(&SESSION_PATCH, "[]")][..], SESSION_PATCH),
            (&[(&SESSION_PATCH, "{")], SESSION_PATCH),
            // Rounded, several users would have the same id.
            (&[(&SESSION_PATCH, r#"{"id":18446744073709551616}"#)], SESSION_PATCH),
            (&[(&SESSION_PATCH, "{}"), (&SESSION_PATCH, "{}")], SESSION_PATCH),
            (&[(&SESSION_ACTION, "Rotate")], SESSION_ACTION),
            (&[(&SESSION_ACTION, "rotate, destroy")], SESSION_ACTION),
            (&[(&SESSION_IF_VERSION, "-1"), (&SESSION_ACTION, "rotate")], SESSION_IF_VERSION),
            (&[(&SESSION_FLASH, "%ff")], SESSION_FLASH),
        ] {
            assert_eq!(mutation(lines), Err(expected), "{lines:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(mutation(&[(&SESSION_PATCH, &format!("{{\"a\":{deep}"))]), Err(SESSION_PATCH));
    }
}
