//! `require`: requirements on the session's claims.

use serde_json::Value;
use toml::de::DeValue;

use crate::claims::{ClaimPath, Condition, Pattern, Requirement};
use crate::config::section::{Section, TableEntry};
use crate::config::value::{Fault, boolean, number, string, whole, wrong_type};

/// Maximum magnitude of a bound. Floats represent every integer up to it, so comparisons are exact.
const MAX_BOUND: f64 = 9_007_199_254_740_991.0;

const CONDITIONS: [&str; 9] =
    ["present", "any", "all", "none", "matches", "below", "above", "at_least", "at_most"];

/// Reads `CLAIM = VALUE`, `CLAIM = [VALUES]` and `CLAIM = { CONDITION = … }`.
pub(super) fn read(section: &mut Section<'_, '_>) -> Vec<Requirement> {
    section.entries(|section, entry| {
        let Some(claim) = ClaimPath::parse(entry.name) else {
            section.refuse_at(entry.name, entry.span, Fault::new("is not a valid claim path"));
            return None;
        };
        let value = entry.value.get_ref();
        let conditions = match value.as_table() {
            Some(table) if table.keys().any(|key| CONDITIONS.contains(&key.get_ref().as_ref())) => {
                conditions(section, &entry)
            }
            Some(_) => Err(Fault::new(format!("has none of the conditions `{}`", CONDITIONS.join("`, `")))
                .hint(format!("quote the path of a nested claim: \"{}.name\" = …", claim.as_str()))),
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
        let bound = number(-MAX_BOUND..=MAX_BOUND);
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
        // The last line of a syntax error has the reason; the lines before it show the expression.
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Fault::new(format!("is not a valid regular expression: {reason}"))
    })
}

/// Parses a scalar, or a list of scalars.
fn values(value: &DeValue<'_>) -> Result<Vec<Value>, Fault> {
    let wanted = "a string, an integer or a boolean, or a list of them";
    let scalar = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(Value::from(text.as_ref())),
        DeValue::Boolean(boolean) => Ok(Value::from(*boolean)),
        DeValue::Integer(integer) => {
            whole(integer).map(Value::from).ok_or_else(|| Fault::new("is out of range"))
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(wrong_type(value, wanted))
        }
    };
    match value.as_array() {
        Some(array) if array.is_empty() => Err(Fault::new("is an empty list")),
        Some(array) => array.iter().map(|element| scalar(element.get_ref())).collect(),
        None => Ok(vec![scalar(value)?]),
    }
}
