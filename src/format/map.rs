//! Conversion between claims and a DynamoDB map: objects are `M`, arrays `L`, numbers `N`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number as JsonNumber, Value};

use super::EncodeFault;
use crate::claims::Claims;
use crate::item::{Attribute, Item, Number};

/// DynamoDB's limit on nesting (32 levels), minus the level of the payload's attribute.
const MAX_DEPTH: usize = 31;

/// Converts a map to claims. Returns `None` if it is nested deeper than DynamoDB allows, or contains an invalid number
/// or an integer beyond 64 bits.
pub(super) fn to_claims(map: &Item) -> Option<Claims> {
    object(map, MAX_DEPTH)
}

fn object(map: &Item, depth: usize) -> Option<Claims> {
    map.iter().map(|(name, attribute)| Some((name.clone(), value(attribute, depth)?))).collect()
}

fn value(attribute: &Attribute, depth: usize) -> Option<Value> {
    Some(match attribute {
        Attribute::Null => Value::Null,
        Attribute::Bool(flag) => Value::Bool(*flag),
        Attribute::String(text) => Value::String(text.clone()),
        Attribute::Number(text) => number(text)?,
        // JSON has no bytes and no sets: they become base64 and lists, as in DynamoDB's JSON export.
        Attribute::Binary(bytes) => Value::String(STANDARD.encode(bytes)),
        Attribute::StringSet(set) => set.iter().cloned().map(Value::String).collect(),
        Attribute::BinarySet(set) => set.iter().map(|bytes| Value::String(STANDARD.encode(bytes))).collect(),
        Attribute::NumberSet(set) => Value::Array(set.iter().map(number).collect::<Option<_>>()?),
        Attribute::List(list) => {
            let depth = depth.checked_sub(1)?;
            Value::Array(list.iter().map(|element| value(element, depth)).collect::<Option<_>>()?)
        }
        Attribute::Map(map) => Value::Object(object(map, depth.checked_sub(1)?)?),
    })
}

fn number(number: &Number) -> Option<Value> {
    let text = number.as_str();
    if let Ok(whole) = text.parse::<i64>() {
        return Some(whole.into());
    }
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole.into());
    }
    // Do not round larger integers to a float: they could be user ids, of which several would become the same number.
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    JsonNumber::from_f64(text.parse().ok()?).map(Value::Number)
}

/// Converts claims to a map.
pub(super) fn from_claims(claims: &Claims) -> Result<Item, EncodeFault> {
    map(claims, MAX_DEPTH)
}

fn map(claims: &Claims, depth: usize) -> Result<Item, EncodeFault> {
    claims.iter().map(|(name, value)| Ok((name.clone(), attribute(value, depth)?))).collect()
}

fn attribute(value: &Value, depth: usize) -> Result<Attribute, EncodeFault> {
    Ok(match value {
        Value::Null => Attribute::Null,
        Value::Bool(flag) => Attribute::Bool(*flag),
        Value::String(text) => Attribute::String(text.clone()),
        Value::Number(number) => Attribute::Number(decimal(number)?),
        Value::Array(list) => {
            let depth = depth.checked_sub(1).ok_or(EncodeFault::TooDeep)?;
            Attribute::List(list.iter().map(|element| attribute(element, depth)).collect::<Result<_, _>>()?)
        }
        Value::Object(object) => {
            Attribute::Map(map(object, depth.checked_sub(1).ok_or(EncodeFault::TooDeep)?)?)
        }
    })
}

/// Writes a number as DynamoDB returns it: in positional notation, and without `.0`. A row that was read back is compared
/// with the one that was written, number by number as text.
///
/// Rejects floats that could not be read back: those outside DynamoDB's range, which is from 1e-130 to 9.99e125, and
/// those that DynamoDB returns as an integer beyond 64 bits.
fn decimal(number: &JsonNumber) -> Result<Number, EncodeFault> {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else {
        return Ok(Number::from_text(number.to_string()));
    };
    if float == 0.0 {
        // -0.0 has a sign.
        return Ok(Number::from(0_u64));
    }
    if !(1e-130..1e126).contains(&float.abs()) || is_huge_integer(float) {
        return Err(EncodeFault::Number);
    }
    Ok(Number::from_text(float.to_string()))
}

/// Returns whether `float` is written as an integer beyond 64 bits. Above 2^53, all floats are integers. -2^63 is written
/// with its shortest digits, as -9223372036854776000.
pub(super) fn is_huge_integer(float: f64) -> bool {
    /// -2^63
    const MIN: f64 = -9_223_372_036_854_775_808.0;
    /// 2^64
    const END: f64 = 18_446_744_073_709_551_616.0;

    float <= MIN || float >= END
}
