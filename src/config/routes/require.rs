//! `require`: what a route asks of the session's claims.

use serde_json::Value;
use toml::de::DeValue;

use crate::claims::{ClaimPath, Condition, Pattern, Requirement};
use crate::config::section::{Section, TableEntry};
use crate::config::value::{Fault, boolean, number, string, wrong_type};

/// The largest magnitude of a bound: every whole number up to it is a float, so comparisons are exact.
const LARGEST: f64 = 9_007_199_254_740_991.0;

const WORDS: [&str; 9] =
    ["present", "any", "all", "none", "matches", "below", "above", "at_least", "at_most"];

/// Reads `CLAIM = VALUE`, `CLAIM = [VALUES]` and `CLAIM = { CONDITION = … }`.
pub(super) fn read(section: &mut Section<'_, '_>) -> Vec<Requirement> {
    section.entries(|section, entry| {
        let Some(claim) = ClaimPath::parse(entry.name) else {
            section.refuse_at(entry.name, entry.span, Fault::new("is not the path of a claim"));
            return None;
        };
        let value = entry.value.get_ref();
        let conditions = match value.as_table() {
            Some(table) if table.keys().any(|key| WORDS.contains(&key.get_ref().as_ref())) => {
                conditions(section, &entry)
            }
            Some(_) => Err(Fault::new(format!("holds none of the conditions `{}`", WORDS.join("`, `")))
                .hint(format!("a claim inside another one is quoted: \"{}.name\" = …", claim.as_str()))),
            None => values(value).map(|any| vec![Condition::Any(any)]),
        };
        match conditions {
            Ok(conditions) => Some(Requirement { claim, conditions }),
            Err(fault) => {
                section.refuse_at(entry.name, entry.value.span(), fault);
                None
            }
        }
    })
}

fn conditions<'d>(section: &mut Section<'d, '_>, entry: &TableEntry<'d>) -> Result<Vec<Condition>, Fault> {
    let conditions = section.descend(entry.name, entry.value, |table| {
        let bound = number(-LARGEST..=LARGEST);
        let conditions = [
            table.get("present", boolean).map(Condition::Present),
            table.get("any", values).map(Condition::Any),
            table.get("all", values).map(Condition::All),
            table.get("none", values).map(Condition::None),
            table.get("matches", pattern).map(Condition::Matches),
            table.get("below", &bound).map(Condition::Below),
            table.get("above", &bound).map(Condition::Above),
            table.get("at_least", &bound).map(Condition::AtLeast),
            table.get("at_most", &bound).map(Condition::AtMost),
        ];
        conditions.into_iter().flatten().collect()
    });
    Ok(conditions.unwrap_or_default())
}

fn pattern(value: &DeValue<'_>) -> Result<Pattern, Fault> {
    Pattern::new(&string(value)?).map_err(|error| {
        // The last line of a syntax error says what is wrong; those before it draw the expression.
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Fault::new(format!("is not a regular expression that can be used: {reason}"))
    })
}

/// A value, or a list of them.
fn values(value: &DeValue<'_>) -> Result<Vec<Value>, Fault> {
    let wanted = "a string, an integer or a boolean, or a list of them";
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(Value::from(text.as_ref())),
        DeValue::Boolean(boolean) => Ok(Value::from(*boolean)),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(Value::from)
            .map_err(|_| Fault::new("is too large a number")),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(wrong_type(value, wanted))
        }
    };
    match value.as_array() {
        Some(array) if array.is_empty() => Err(Fault::new("lists no value")),
        Some(array) => array.iter().map(|element| scalar(element.get_ref())).collect(),
        None => Ok(vec![scalar(value)?]),
    }
}
