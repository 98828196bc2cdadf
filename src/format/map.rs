//! Claims as a DynamoDB map and back: objects are `M`, arrays `L`, numbers `N`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number as JsonNumber, Value};

use super::EncodeFault;
use crate::claims::Claims;
use crate::item::{Attribute, Item, Number};

/// DynamoDB's limit on nesting, less the level of `dat` itself.
const MAX_DEPTH: usize = 31;

/// The claims of a map; `None` if it is nested more deeply than DynamoDB itself allows, or holds a number that is none.
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
        // JSON has no bytes and no sets: base64 and lists, as DynamoDB's own JSON export shows them.
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
    // Beyond 64 bits a float would make one number of many; and numbers name users.
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    JsonNumber::from_f64(text.parse().ok()?).map(Value::Number)
}

/// The map of the claims.
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

/// DynamoDB's numbers go from 1e-130 to 9.99e125; JSON's floats go further.
fn decimal(number: &JsonNumber) -> Result<Number, EncodeFault> {
    if let Some(float) = number.as_f64().filter(|_| number.is_f64())
        && float != 0.0
        && !(1e-130..1e126).contains(&float.abs())
    {
        return Err(EncodeFault::Number);
    }
    Ok(Number::from_text(number.to_string()))
}
