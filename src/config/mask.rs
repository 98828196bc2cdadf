//! Which parts of a configuration file are secrets, so that no diagnostic shows them with the line they stand on.
//!
//! The rule errs on the side of hiding: under a key of [`SECRET_KEYS`], at any depth and in any section, everything is
//! masked but the names of variables and files, and of headers that are removed. So is every URL with a user and a password.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Below these, values are secrets. Misplaced and misspelt sections are shown too, so where they stand is no matter.
/// What is written into requests may be what the upstream knows the gateway by: `Authorization = "Basic …"`.
const SECRET_KEYS: [&str; 5] = ["keys", "current", "previous", "token", "request_headers"];

/// What stands where a secret stood.
const MASK: &str = "***";

/// `source` with each byte of a secret replaced, so that every offset still holds.
pub(super) fn parsed(source: &str, document: &DeTable<'_>) -> String {
    let mut secrets = Vec::new();
    collect_table(document, false, &mut secrets);
    let mut bytes = source.as_bytes().to_vec();
    for span in secrets {
        mask(bytes.get_mut(span).unwrap_or_default());
    }
    text(bytes)
}

/// The same for a file that is not TOML, where only its lines can say what is a secret: from a line that names one of
/// [`SECRET_KEYS`] to the next header that does not, whatever follows the first `=` is masked, or the line if there is none.
pub(super) fn unparsed(source: &str) -> String {
    let mut bytes = Vec::with_capacity(source.len());
    let mut secret = false;
    for line in source.split_inclusive('\n') {
        let named = SECRET_KEYS.iter().any(|key| line.contains(key));
        secret = named || (secret && !is_header(line));
        let shown = match line.find('=') {
            _ if !secret && !has_credentials(line) => line.len(),
            Some(equals) => equals + 1,
            None => 0,
        };
        let (before, after) = line.split_at_checked(shown).unwrap_or((line, ""));
        bytes.extend_from_slice(before.as_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(after.as_bytes());
        mask(bytes.get_mut(start..).unwrap_or_default());
    }
    text(bytes)
}

/// What the file says, secrets replaced, comments left out: those may hold secrets that nothing marks.
pub(super) fn shown(document: &DeTable<'_>) -> Value {
    shown_table(document, false)
}

fn shown_table(table: &DeTable<'_>, secret: bool) -> Value {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| {
        let key: &str = key.get_ref();
        let hidden = (secret && !is_reference(key, value)) || SECRET_KEYS.contains(&key);
        (key.to_owned(), shown_value(value.get_ref(), hidden))
    });
    Value::Object(entries.collect())
}

fn shown_value(value: &DeValue<'_>, secret: bool) -> Value {
    let number = |text: &str| serde_json::from_str(&text.replace('_', "")).unwrap_or_else(|_| text.into());
    match value {
        DeValue::Table(table) => shown_table(table, secret),
        DeValue::Array(array) => array.iter().map(|element| shown_value(element.get_ref(), secret)).collect(),
        DeValue::String(text) if has_credentials(text) => MASK.into(),
        _ if secret => MASK.into(),
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(integer) => number(integer.as_str()),
        DeValue::Float(float) => number(float.as_str()),
        DeValue::Datetime(moment) => moment.to_string().into(),
    }
}

/// The name of a variable or a file, or those of headers, which is no secret.
fn is_reference(key: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let value = value.get_ref();
    matches!(key, "env" | "file") && value.is_str() || key == "remove" && value.is_array()
}

fn collect_table(table: &DeTable<'_>, secret: bool, secrets: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let key: &str = key.get_ref();
        collect(value, (secret && !is_reference(key, value)) || SECRET_KEYS.contains(&key), secrets);
    }
}

fn collect(value: &Spanned<DeValue<'_>>, secret: bool, secrets: &mut Vec<Range<usize>>) {
    match value.get_ref() {
        DeValue::Table(table) => collect_table(table, secret, secrets),
        DeValue::Array(array) => array.iter().for_each(|element| collect(element, secret, secrets)),
        DeValue::String(text) if secret || has_credentials(text) => secrets.push(value.span()),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) if secret => {
            secrets.push(value.span());
        }
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => {}
    }
}

/// Whether this could hold `scheme://user:password@host`.
fn has_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// `[name…` or `[[name…`: not an array, whose elements would be quoted.
fn is_header(line: &str) -> bool {
    let name = line.trim_start().strip_prefix('[').map(|rest| rest.trim_start_matches('['));
    name.is_some_and(|name| name.trim_start().starts_with(|c: char| c.is_ascii_alphanumeric()))
}

fn mask(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        *byte = b'*';
    }
}

/// Masks cover whole characters, so nothing is lost here.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}
