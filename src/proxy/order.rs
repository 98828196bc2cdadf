//! What an upstream orders for the session, in headers of its response.
//!
//! | header | effect |
//! | --- | --- |
//! | `X-Session-Patch: {"user":"alice","cart":null}` | RFC 7396 merge patch of the claims; without a session, makes one |
//! | `X-Session-Flash: Saved` | appends a message, percent-decoded; any number of lines |
//! | `X-Session-Action: rotate` or `destroy` | a new id; or the end |
//! | `X-Session-If-Version: 7` | only if the session has this version; else 409 |

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode;

use super::Route;
use super::admit::Visitor;
use super::inject::Exchange;
use super::record::Record;
use super::refusal::Refusal;
use crate::claims::Claims;
use crate::headers::{SESSION_ACTION, SESSION_FLASH, SESSION_IF_VERSION, SESSION_PATCH};
use crate::session::{Action, ChangeError, Edit, Order, Outcome};

/// Reads the order of a response; none if it gives none.
///
/// # Errors
/// The header that says something else than it may.
fn read(headers: &HeaderMap) -> Result<Option<Order>, HeaderName> {
    let patch = match single(headers, &SESSION_PATCH)? {
        None => Claims::new(),
        Some(json) => serde_json::from_slice(json.as_bytes()).map_err(|_| SESSION_PATCH)?,
    };
    let mut flash = Vec::new();
    for message in headers.get_all(SESSION_FLASH) {
        let message = percent_decode(message.as_bytes()).decode_utf8().map_err(|_| SESSION_FLASH)?;
        flash.push(message.into_owned());
    }
    let action = match single(headers, &SESSION_ACTION)?.map(HeaderValue::as_bytes) {
        None => None,
        Some(b"rotate") => Some(Action::Rotate),
        Some(b"destroy") => Some(Action::Destroy),
        Some(_) => return Err(SESSION_ACTION),
    };
    let if_version = match single(headers, &SESSION_IF_VERSION)? {
        None => None,
        Some(version) => {
            let version = version.to_str().ok().and_then(|text| text.parse().ok());
            Some(version.ok_or(SESSION_IF_VERSION)?)
        }
    };
    let edits =
        if patch.is_empty() && flash.is_empty() { vec![] } else { vec![Edit::Apply { patch, flash }] };
    if edits.is_empty() && action.is_none() {
        return Ok(None);
    }
    Ok(Some(Order { edits, action, if_version }))
}

/// Carries out what the response orders, before any of it is passed on: a client that sees it can rely on it.
///
/// # Errors
/// If it cannot be done. The session is as it was.
pub(super) async fn carry_out(
    headers: &HeaderMap,
    route: &Route,
    exchange: &Exchange,
    record: &mut Record,
) -> Result<Option<Outcome>, Refusal> {
    if !is_given(headers) {
        return Ok(None);
    }
    let Some(realm) = route.realm.as_ref().filter(|_| route.writes) else {
        let trace = record.trace_id();
        tracing::warn!(trace, route = %route.name, "an upstream without `writes` orders a change of the session");
        return Ok(None);
    };
    let order = read(headers).map_err(|name| {
        record.detail = Some(format!("the upstream's `{name}` is not understood"));
        Refusal::BadAnswer
    })?;
    let Some(order) = order else { return Ok(None) };
    let active = match &exchange.visitor {
        Visitor::Session(active) => Some(&**active),
        Visitor::Anonymous => None,
        // Whether there is a session to change cannot be told.
        Visitor::Unknown | Visitor::Public => return Err(Refusal::StoreUnavailable),
    };
    let changed = realm.change(active, order).await;
    record.ordered();
    match changed {
        Ok(outcome) => {
            record.change = outcome.label();
            Ok(Some(outcome))
        }
        Err(error) => {
            record.detail = Some(error.to_string());
            Err(match error {
                ChangeError::Conflict => Refusal::Conflict,
                ChangeError::Unwritable(_) => Refusal::Unwritable,
                ChangeError::Store(_) | ChangeError::Contended | ChangeError::Randomness => {
                    Refusal::StoreUnavailable
                }
            })
        }
    }
}

/// Whether there is an order, whatever it says.
fn is_given(headers: &HeaderMap) -> bool {
    // Nearly no response gives one, and to look for three names takes longer than to look at them all.
    headers.keys().any(|name| [SESSION_PATCH, SESSION_FLASH, SESSION_ACTION].contains(name))
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, HeaderName> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(lines: &[(&HeaderName, &str)]) -> Result<Option<Order>, HeaderName> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append((*name).clone(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        read(&headers)
    }

    #[test]
    fn orders() {
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
                Some(Order {
                    edits: edit(json!({"user": "Zoë", "cart": null}), &[]),
                    action: None,
                    if_version: Some(7),
                }),
            ),
            (
                &[(&SESSION_FLASH, "Saved%2C 100%25"), (&SESSION_FLASH, "Zo%C3%AB")],
                Some(Order {
                    edits: edit(json!({}), &["Saved, 100%", "Zoë"]),
                    action: None,
                    if_version: None,
                }),
            ),
            (
                &[(&SESSION_ACTION, "rotate")],
                Some(Order { edits: vec![], action: Some(Action::Rotate), if_version: None }),
            ),
        ] {
            assert_eq!(order(lines), Ok(expected), "{lines:?}");
        }
    }

    #[test]
    fn what_is_no_order_names_the_header() {
        for (lines, expected) in [
            (&[(&SESSION_PATCH, "[]")][..], SESSION_PATCH),
            (&[(&SESSION_PATCH, "{")], SESSION_PATCH),
            (&[(&SESSION_PATCH, "{}"), (&SESSION_PATCH, "{}")], SESSION_PATCH),
            (&[(&SESSION_ACTION, "Rotate")], SESSION_ACTION),
            (&[(&SESSION_ACTION, "rotate, destroy")], SESSION_ACTION),
            (&[(&SESSION_IF_VERSION, "-1"), (&SESSION_ACTION, "rotate")], SESSION_IF_VERSION),
            (&[(&SESSION_FLASH, "%ff")], SESSION_FLASH),
        ] {
            assert_eq!(order(lines), Err(expected), "{lines:?}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(order(&[(&SESSION_PATCH, &format!("{{\"a\":{deep}"))]), Err(SESSION_PATCH));
    }
}
