//! Session cookies and rows in every format. The first byte of the input selects the format.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::format::{self, Format, TouchTimes};
use crate::item::{Attribute, Item, Number};
use crate::session::judge::{Policy, judge};
use crate::time::Timestamp;

/// The lines that configure a realm of each format. The input's first byte is the index, so new formats are appended.
const REALMS: &[&str] = &[
    r#"format = "native""#,
    r#"format = "pyramid""#,
    "format = \"native\"\nkeys = { current = \"0123456789abcdef0123456789abcdef\" }",
    "format = \"django\"\nkeys = { current = \"django-insecure-vector-key-0123456789abcdefghijklmnopqrstuvwxyz\" }",
    "format = \"express\"\nkeys = { current = \"keyboard cat\" }",
    r#"format = "flask-session""#,
    r#"format = "dynamodb-session-web""#,
    r#"format = "dysession""#,
    "format = \"adonis\"\nkeys = { current = \"adonis-vector-app-key-0123456789ab\" }",
    "format = \"rack\"\nkeys = { current = \"0123456789abcdef0123456789abcdef\" }",
    "format = \"dynamodb-store\"\nkeys = { current = \"keyboard cat\" }",
    "format = \"layout\"\nuser = \"user\"\nlayout = { expires = \"e\", ids = { length = [3, 40], alphabet = \"a-z0-9.:-\" } }",
    "format = \"connect-dynamodb-session\"\nkeys = { current = \"keyboard cat\" }",
];

struct Realm {
    format: Box<dyn Format>,
    policy: Policy,
}

/// Parses a session cookie's value.
pub fn session_cookie(input: &[u8]) {
    let Some((realm, value)) = choose(input) else { return };
    let Ok(reference) = realm.format.parse_cookie(value) else { return };
    let again = realm.format.cookie_value(&reference.id, reference.version);
    assert_eq!(
        realm.format.parse_cookie(again.as_bytes()),
        Ok(reference.clone()),
        "an encoded cookie is parsed to the same id and version"
    );
    assert!(!realm.format.key(&reference.id).expose_bytes().is_empty(), "the key is not empty");
}

/// Decodes a row, and encodes it again.
pub fn row(input: &[u8]) {
    let Some((realm, text)) = choose(input) else { return };
    let Some(item) = serde_json::from_slice(text).ok().and_then(|value: Value| item(&value)) else { return };
    let Ok(record) = realm.format.decode(&item) else { return };
    let now = Timestamp::from_secs(1_800_000_000);
    let _verdict = judge(&realm.policy, &record, now);
    let expires = now.plus(Duration::from_secs(60));
    let _touch = realm.format.touch(&record, TouchTimes { now, expires, due_before: now });
    let Ok(id) = realm.format.new_id() else { return };
    let Ok(written) = realm.format.encode(&realm.format.key(&id), &record) else { return };
    let again = realm.format.decode(&written);
    let again = again.map(|again| Value::Object(again.claims));
    assert!(
        again.is_ok_and(|again| is_same(&again, &Value::Object(record.claims))),
        "an encoded row is decoded to the same claims"
    );
}

fn choose(input: &[u8]) -> Option<(&'static Realm, &[u8])> {
    static ALL: LazyLock<Vec<Realm>> = LazyLock::new(|| {
        let realms = REALMS.iter().filter_map(|lines| super::realm(lines));
        realms.map(|realm| Realm { format: format::open(&realm), policy: Policy::new(&realm) }).collect()
    });
    let (selector, rest) = input.split_first()?;
    // Digits are more readable in a corpus than control characters.
    let index = usize::from(selector.wrapping_sub(b'0')) % ALL.len().max(1);
    Some((ALL.get(index)?, rest))
}

/// Returns whether two values are the same in JavaScript, which writes `1.0` as `1`.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let same =
                |(name, value): (&String, &Value)| other.get(name).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(same)
        }
        _ => one == other,
    }
}

/// Parses an item in DynamoDB's JSON.
fn item(value: &Value) -> Option<Item> {
    value.as_object()?.iter().map(|(name, value)| Some((name.clone(), attribute(value)?))).collect()
}

fn attribute(value: &Value) -> Option<Attribute> {
    let (kind, value) = value.as_object()?.iter().next()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let number = |value: &Value| value.as_str().map(Number::from_text);
    let binary = |value: &Value| STANDARD.decode(value.as_str()?).ok();
    Some(match kind.as_str() {
        "S" => Attribute::String(text(value)?),
        "N" => Attribute::Number(number(value)?),
        "B" => Attribute::Binary(binary(value)?),
        "BOOL" => Attribute::Bool(value.as_bool()?),
        "NULL" => Attribute::Null,
        "L" => Attribute::List(value.as_array()?.iter().map(attribute).collect::<Option<_>>()?),
        "M" => Attribute::Map(item(value)?),
        "SS" => Attribute::StringSet(value.as_array()?.iter().map(text).collect::<Option<_>>()?),
        "NS" => Attribute::NumberSet(value.as_array()?.iter().map(number).collect::<Option<_>>()?),
        "BS" => Attribute::BinarySet(value.as_array()?.iter().map(binary).collect::<Option<_>>()?),
        _ => return None,
    })
}
