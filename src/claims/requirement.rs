//! Conditions on claims, as in a route's `require` and `session list --claim`. Every condition is defined for every
//! JSON value: a value of the wrong type fails every condition except `None` and `Present`.

use std::fmt;

use regex::Regex;
use serde_json::Value;

use super::{ClaimPath, Claims};

/// Conditions on one claim, all of which must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// The claim.
    pub claim: ClaimPath,
    /// The conditions; at least one.
    pub conditions: Vec<Condition>,
}

/// A condition on a claim's value. If the value is a list, its elements are tested; a list fails every numeric
/// condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The claim is present, or absent if `false`. `null` and empty strings, lists and objects count as absent.
    Present(bool),
    /// The value, or an element of the list, is one of these.
    Any(Vec<Value>),
    /// The list contains all of these, or the value equals each of them.
    All(Vec<Value>),
    /// Neither the value nor any element of the list is one of these. An absent claim meets this.
    None(Vec<Value>),
    /// The value, or an element of the list, is a string that matches this.
    Matches(Pattern),
    /// The value is a number less than this.
    Below(f64),
    /// The value is a number greater than this.
    Above(f64),
    /// The value is a number greater than or equal to this.
    AtLeast(f64),
    /// The value is a number less than or equal to this.
    AtMost(f64),
}

/// A regular expression that must match the whole string. Matching takes time linear in the string's length.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    regex: Regex,
}

impl Requirement {
    /// Requires the claim, or an element of its list, to equal `value`.
    pub fn equals(claim: ClaimPath, value: Value) -> Self {
        Self { claim, conditions: vec![Condition::Any(vec![value])] }
    }

    /// Returns whether all conditions hold.
    pub fn holds(&self, claims: &Claims) -> bool {
        let value = self.claim.find(claims);
        self.conditions.iter().all(|condition| condition.holds(value))
    }
}

impl Condition {
    fn holds(&self, value: Option<&Value>) -> bool {
        let elements = match value {
            Some(Value::Array(list)) => list.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        // A 64-bit integer that `f64` cannot represent exactly is beyond every configurable bound, before and after
        // rounding.
        let number = value.and_then(Value::as_f64);
        match self {
            Self::Present(wanted) => value.is_some_and(|value| !is_empty(value)) == *wanted,
            Self::Any(values) => elements.iter().any(|element| values.contains(element)),
            Self::All(values) => values.iter().all(|value| elements.contains(value)),
            Self::None(values) => !elements.iter().any(|element| values.contains(element)),
            Self::Matches(pattern) => elements.iter().any(|element| pattern.matches(element)),
            Self::Below(bound) => number.is_some_and(|number| number < *bound),
            Self::Above(bound) => number.is_some_and(|number| number > *bound),
            Self::AtLeast(bound) => number.is_some_and(|number| number >= *bound),
            Self::AtMost(bound) => number.is_some_and(|number| number <= *bound),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

impl Pattern {
    /// Compiles `source`.
    ///
    /// # Errors
    /// Returns an error if `source` is not a valid regular expression, or takes more than 64 KiB when compiled.
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        // Compile it alone first: an unbalanced parenthesis could otherwise close the group that anchors it.
        Regex::new(source)?;
        let regex = regex::RegexBuilder::new(&format!("^(?:{source})$")).size_limit(1 << 16).build()?;
        Ok(Self { source: source.to_owned(), regex })
    }

    fn matches(&self, value: &Value) -> bool {
        value.as_str().is_some_and(|text| self.regex.is_match(text))
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Formats the requirement for messages: `` `role` to be "admin" or "staff" ``.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to ", self.claim.as_str())?;
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if index == 0 { "" } else { " and to " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[Value], word: &str| {
            values.iter().map(Value::to_string).collect::<Vec<_>>().join(&format!(" {word} "))
        };
        match self {
            Self::Present(true) => f.write_str("be present"),
            Self::Present(false) => f.write_str("be absent"),
            Self::Any(values) => write!(f, "be {}", list(values, "or")),
            Self::All(values) => write!(f, "contain {}", list(values, "and")),
            Self::None(values) => write!(f, "not be {}", list(values, "or")),
            Self::Matches(pattern) => write!(f, "match `{}`", pattern.source),
            Self::Below(bound) => write!(f, "be below {bound}"),
            Self::Above(bound) => write!(f, "be above {bound}"),
            Self::AtLeast(bound) => write!(f, "be at least {bound}"),
            Self::AtMost(bound) => write!(f, "be at most {bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(values: &Value) -> Vec<Value> {
        values.as_array().unwrap().clone()
    }

    #[test]
    fn conditions_hold_by_value_and_by_type() {
        let claims = json!({
            "role": "admin", "roles": ["ops", "dev"], "level": 3, "text": "3", "ratio": 2.5, "on": true, "o": {"x": null},
            "huge": u64::MAX, "low": i64::MIN, "empty": "", "none": [], "zero": 0, "off": false, "obj": {},
        });
        let claims = claims.as_object().unwrap();
        let any = |list: Value| Condition::Any(values(&list));
        let all = |list: Value| Condition::All(values(&list));
        let none = |list: Value| Condition::None(values(&list));
        let matches = |source: &str| Condition::Matches(Pattern::new(source).unwrap());
        for (claim, condition, expected) in [
            ("role", any(json!(["admin", "staff"])), true),
            ("role", any(json!(["adm"])), false),
            ("roles", any(json!(["dev"])), true),
            ("roles", any(json!(["ops,dev"])), false),
            ("level", any(json!([3])), true),
            ("level", any(json!(["3"])), false),
            ("on", any(json!([true])), true),
            ("o.x", any(json!([null])), false),
            ("missing", any(json!(["admin"])), false),
            ("roles", all(json!(["dev", "ops"])), true),
            ("roles", all(json!(["dev", "admin"])), false),
            ("role", all(json!(["admin"])), true),
            ("missing", all(json!(["admin"])), false),
            ("roles", none(json!(["admin"])), true),
            ("roles", none(json!(["admin", "dev"])), false),
            ("missing", none(json!(["admin"])), true),
            ("role", Condition::Present(true), true),
            ("zero", Condition::Present(true), true),
            ("off", Condition::Present(true), true),
            ("empty", Condition::Present(true), false),
            ("none", Condition::Present(true), false),
            ("obj", Condition::Present(true), false),
            ("o.x", Condition::Present(true), false),
            ("missing", Condition::Present(false), true),
            ("role", Condition::Present(false), false),
            ("role", matches("adm.*"), true),
            ("role", matches("dmi"), false),
            ("role", matches("a|b"), false),
            ("roles", matches("d.v"), true),
            ("level", matches("3"), false),
            ("missing", matches(".*"), false),
            ("level", Condition::Below(4.0), true),
            ("level", Condition::Below(3.0), false),
            ("level", Condition::AtMost(3.0), true),
            ("level", Condition::AtLeast(3.0), true),
            ("level", Condition::Above(3.0), false),
            ("ratio", Condition::Above(2.0), true),
            ("text", Condition::Below(4.0), false),
            ("roles", Condition::Below(4.0), false),
            ("missing", Condition::Below(4.0), false),
            ("huge", Condition::Above(9_007_199_254_740_991.0), true),
            ("low", Condition::Below(-9_007_199_254_740_991.0), true),
        ] {
            let claim = ClaimPath::parse(claim).unwrap();
            let requirement = Requirement { claim, conditions: vec![condition] };
            assert_eq!(requirement.holds(claims), expected, "{requirement}");
        }
    }

    #[test]
    fn unbalanced_and_oversized_patterns_are_rejected() {
        for source in ["a)(b", "(", "[", "a{1000}{1000}"] {
            assert!(Pattern::new(source).is_err(), "{source}");
        }
    }
}
