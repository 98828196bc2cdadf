//! Masking of secrets in a configuration file, so that no diagnostic shows a secret in its source line.
//!
//! The rules mask too much rather than too little. Under a key of [`SECRET_KEYS`], at any depth and in any section,
//! everything is masked except the names of variables and files, and of headers that are removed. URLs with a user or
//! password are masked too.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{nearest, whole};

/// Keys under which values are secrets, in any section and also if misspelt: such sections and keys are shown too.
/// `request_headers` may hold the gateway's credentials for the upstream: `Authorization = "Basic …"`.
const SECRET_KEYS: [&str; 5] = ["keys", "current", "previous", "token", "request_headers"];

/// Keys that resemble one of [`SECRET_KEYS`], under which no value is secret.
const SIMILAR_KEYS: [&str; 2] = ["key", "response_headers"];

/// The replacement for a secret in [`to_json`].
const MASK: &str = "***";

/// Returns `source` with each byte of a secret replaced, so that byte offsets stay valid.
pub(super) fn mask_parsed(source: &str, document: &DeTable<'_>) -> String {
    let mut secrets = Vec::new();
    collect_table(document, false, &mut secrets);
    let mut bytes = source.as_bytes().to_vec();
    for span in secrets {
        mask_bytes(bytes.get_mut(span).unwrap_or_default());
    }
    into_text(bytes)
}

/// Masks a file that is not valid TOML, line by line. Masking starts at a line that contains one of [`SECRET_KEYS`], and
/// ends at the next table header that contains none. It covers everything after the `=` of a bare key, or else the whole
/// line.
pub(super) fn mask_unparsed(source: &str) -> String {
    let mut bytes = Vec::with_capacity(source.len());
    let mut secret = false;
    for line in source.split_inclusive('\n') {
        let named = SECRET_KEYS.iter().any(|key| line.contains(key));
        secret = named || (secret && !is_header(line));
        let shown = if secret || has_credentials(line) { key_length(line) } else { line.len() };
        let (before, after) = line.split_at_checked(shown).unwrap_or((line, ""));
        bytes.extend_from_slice(before.as_bytes());
        let start = bytes.len();
        bytes.extend_from_slice(after.as_bytes());
        mask_bytes(bytes.get_mut(start..).unwrap_or_default());
    }
    into_text(bytes)
}

/// Returns the content of the file as JSON with secrets replaced. Comments are left out, since they may hold secrets.
pub(super) fn to_json(document: &DeTable<'_>) -> Value {
    table_to_json(document, false)
}

fn table_to_json(table: &DeTable<'_>, secret: bool) -> Value {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entries = entries.into_iter().map(|(key, value)| {
        let key: &str = key.get_ref();
        let hidden = (secret && !is_reference(key, value)) || is_secret_key(key);
        (key.to_owned(), value_to_json(value.get_ref(), hidden))
    });
    Value::Object(entries.collect())
}

fn value_to_json(value: &DeValue<'_>, secret: bool) -> Value {
    let number = |text: &str| serde_json::from_str(&text.replace('_', "")).unwrap_or_else(|_| text.into());
    match value {
        DeValue::Table(table) => table_to_json(table, secret),
        DeValue::Array(array) => {
            array.iter().map(|element| value_to_json(element.get_ref(), secret)).collect()
        }
        DeValue::String(text) if has_credentials(text) => MASK.into(),
        _ if secret => MASK.into(),
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(integer) => whole(integer).map_or_else(|| integer.to_string().into(), Value::from),
        DeValue::Float(float) => number(float.as_str()),
        DeValue::Datetime(time) => time.to_string().into(),
    }
}

/// Returns whether the value is the name of a variable or a file, or a list of header names, which are not secret.
fn is_reference(key: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let value = value.get_ref();
    matches!(key, "env" | "file") && value.is_str() || key == "remove" && value.is_array()
}

/// Returns whether values under `key` are secrets.
fn is_secret_key(key: &str) -> bool {
    let nearest = nearest(key, SECRET_KEYS.into_iter().chain(SIMILAR_KEYS));
    nearest.is_some_and(|nearest| SECRET_KEYS.contains(&nearest))
}

fn collect_table(table: &DeTable<'_>, secret: bool, secrets: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let key: &str = key.get_ref();
        collect(value, (secret && !is_reference(key, value)) || is_secret_key(key), secrets);
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

/// Returns whether the text may contain `scheme://user:password@host`.
fn has_credentials(text: &str) -> bool {
    text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'))
}

/// Returns the length of a line's beginning up to the `=`, if that is a bare key and a blank. Otherwise the `=` may be
/// part of a secret, such as the padding of base64, and the length is 0.
fn key_length(line: &str) -> usize {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let before = line.split_once('=').map(|(before, _)| before).unwrap_or_default();
    let key = before.trim_start().strip_suffix([' ', '\t']).map(str::trim_end).unwrap_or_default();
    if !key.is_empty() && key.chars().all(is_key) { before.len() + 1 } else { 0 }
}

/// Returns whether the line is a table header, `[name…` or `[[name…`. An array's strings would be quoted.
fn is_header(line: &str) -> bool {
    let name = line.trim_start().strip_prefix('[').map(|rest| rest.trim_start_matches('['));
    name.is_some_and(|name| name.trim_start().starts_with(|c: char| c.is_ascii_alphanumeric()))
}

fn mask_bytes(bytes: &mut [u8]) {
    for byte in bytes.iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')) {
        *byte = b'*';
    }
}

/// Converts masked bytes to text. Masks cover whole characters, so the bytes are still UTF-8.
fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}
