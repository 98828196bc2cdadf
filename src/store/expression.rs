//! DynamoDB's expressions. Names and values reach DynamoDB through placeholders only: a name may be a reserved word or
//! hold a dot, and no value can change what the expression says.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::format::WriteCondition;
use crate::item::Attribute;

use super::attribute::to_sdk;

/// An expression's placeholders, collected while it is written.
#[derive(Debug, Default)]
pub(super) struct Placeholders {
    names: Vec<String>,
    values: Vec<AttributeValue>,
}

impl Placeholders {
    /// All the conditions, joined with AND. `key` is the attribute that every row has.
    pub(super) fn condition(&mut self, key: &str, conditions: &[WriteCondition]) -> String {
        let clauses: Vec<String> = conditions.iter().map(|condition| self.clause(key, condition)).collect();
        clauses.join(" AND ")
    }

    /// As [`condition`](Self::condition), and the row must be there: asked for or not, since a write that finds no row
    /// would otherwise make one, and bring back a session that was logged out.
    pub(super) fn condition_on_existing(&mut self, key: &str, conditions: &[WriteCondition]) -> String {
        let exists = self.clause(key, &WriteCondition::Exists);
        let others = conditions.iter().filter(|condition| !matches!(condition, WriteCondition::Exists));
        let clauses = others.map(|condition| self.clause(key, condition));
        std::iter::once(exists).chain(clauses.collect::<Vec<_>>()).collect::<Vec<_>>().join(" AND ")
    }

    /// `SET a = x, b = y`; none if there is nothing to set.
    pub(super) fn set(&mut self, attributes: &[(String, Attribute)]) -> Option<String> {
        let assignments: Vec<String> = attributes
            .iter()
            .map(|(name, value)| format!("{} = {}", self.name(name), self.value(value)))
            .collect();
        (!assignments.is_empty()).then(|| format!("SET {}", assignments.join(", ")))
    }

    /// Placeholder → attribute name.
    pub(super) fn names(&self) -> HashMap<String, String> {
        self.names.iter().enumerate().map(|(index, name)| (format!("#n{index}"), name.clone())).collect()
    }

    /// Placeholder → value. None if there are none, since DynamoDB refuses an empty map.
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
    fn names_and_values_stand_behind_placeholders() {
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
    fn existence_is_asked_for_even_by_those_who_forgot() {
        let mut placeholders = Placeholders::default();
        assert_eq!(placeholders.condition_on_existing("sid", &[]), "attribute_exists(#n0)");
        assert_eq!(placeholders.set(&[]), None);
        assert!(placeholders.into_values().is_none());
    }
}
