//! DynamoDB expressions. All names and values are passed as placeholders: a name may be a reserved word or contain a dot,
//! and no value can alter the expression.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::format::WriteCondition;
use crate::item::Attribute;

use super::attribute::to_sdk;

/// The placeholders of a request's expressions, collected while they are built.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    names: Vec<String>,
    values: Vec<AttributeValue>,
}

impl Placeholders {
    /// Returns all conditions joined with AND. `key` is the table's key attribute.
    pub(super) fn condition(&mut self, key: &str, conditions: &[WriteCondition]) -> String {
        let clauses: Vec<String> = conditions.iter().map(|condition| self.clause(key, condition)).collect();
        clauses.join(" AND ")
    }

    /// Like [`condition`](Self::condition), and adds the condition that the row exists. Without it, a write could create the
    /// row, and revive a session that was logged out.
    pub(super) fn condition_on_existing(&mut self, key: &str, conditions: &[WriteCondition]) -> String {
        let exists = self.clause(key, &WriteCondition::Exists);
        let others = conditions.iter().filter(|condition| !matches!(condition, WriteCondition::Exists));
        let clauses = others.map(|condition| self.clause(key, condition));
        std::iter::once(exists).chain(clauses.collect::<Vec<_>>()).collect::<Vec<_>>().join(" AND ")
    }

    /// Returns `SET a = x, b = y`, or `None` if `attributes` is empty.
    pub(super) fn set(&mut self, attributes: &[(String, Attribute)]) -> Option<String> {
        let assignments: Vec<String> = attributes
            .iter()
            .map(|(name, value)| format!("{} = {}", self.name(name), self.value(value)))
            .collect();
        (!assignments.is_empty()).then(|| format!("SET {}", assignments.join(", ")))
    }

    /// Returns the attribute names by placeholder.
    pub(super) fn names(&self) -> HashMap<String, String> {
        self.names.iter().enumerate().map(|(index, name)| (format!("#n{index}"), name.clone())).collect()
    }

    /// Returns the values by placeholder, or `None` if there are none, since DynamoDB rejects an empty map.
    pub(super) fn into_values(self) -> Option<HashMap<String, AttributeValue>> {
        let values = self.values.into_iter().enumerate().map(|(index, value)| (format!(":v{index}"), value));
        let values: HashMap<_, _> = values.collect();
        (!values.is_empty()).then_some(values)
    }

    fn clause(&mut self, key: &str, condition: &WriteCondition) -> String {
        match condition {
            WriteCondition::Exists => format!("attribute_exists({})", self.name(key)),
            WriteCondition::Absent => format!("attribute_not_exists({})", self.name(key)),
            WriteCondition::Lacks(name) => format!("attribute_not_exists({})", self.name(name)),
            WriteCondition::Equals(name, value) => format!("{} = {}", self.name(name), self.value(value)),
            WriteCondition::Less(name, value) => format!("{} < {}", self.name(name), self.value(value)),
            WriteCondition::AtLeast(name, value) => format!("{} >= {}", self.name(name), self.value(value)),
        }
    }

    fn name(&mut self, name: &str) -> String {
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        format!("#n{index}")
    }

    fn value(&mut self, value: &Attribute) -> String {
        self.values.push(to_sdk(value.clone()));
        format!(":v{}", self.values.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_placeholders() {
        let mut placeholders = Placeholders::default();
        let set = placeholders.set(&[("iss".into(), Attribute::number(7u64))]);
        let condition = placeholders.condition_on_existing(
            "a.b = c",
            &[
                WriteCondition::Exists,
                WriteCondition::Less("iss".into(), Attribute::number(5u64)),
                WriteCondition::AtLeast("exp".into(), Attribute::number(6u64)),
                WriteCondition::Equals("data".into(), Attribute::String("x OR y".into())),
            ],
        );
        assert_eq!(set.as_deref(), Some("SET #n0 = :v0"));
        assert_eq!(condition, "attribute_exists(#n1) AND #n0 < :v1 AND #n2 >= :v2 AND #n3 = :v3");
        assert_eq!(placeholders.names()["#n1"], "a.b = c");
        assert_eq!(placeholders.into_values().unwrap()[":v3"], AttributeValue::S("x OR y".into()));
    }

    #[test]
    fn condition_that_the_row_exists_is_always_added() {
        let mut placeholders = Placeholders::default();
        assert_eq!(placeholders.condition_on_existing("sid", &[]), "attribute_exists(#n0)");
        assert_eq!(placeholders.set(&[]), None);
        assert!(placeholders.into_values().is_none());
    }
}
