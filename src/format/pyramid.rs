//! The format of pyramid-dynamodb-sessions 0.1: the cookie is `id/version`, the row's key is the SHA-256 of the id, and
//! the payload is the output of Python's `json.dumps`.

use super::decode::json;
use super::python_json::{self, Separators};
use super::row;
use super::{
    Change, ChangeTimes, CookieFault, EncodeFault, Format, KeySchema, Renewal, RowFault, SessionId,
    SessionRecord, SessionRef, TouchTimes, WriteCondition,
};
use crate::claims::Claims;
use crate::item::{Attribute, Item, Key, KeyType};

/// The pyramid format.
#[derive(Debug)]
pub struct Pyramid {
    key_attribute: String,
}

impl Pyramid {
    /// Creates the format for a table whose key attribute is `key_attribute` (the library's default is `sid`).
    pub fn new(key_attribute: &str) -> Self {
        Self { key_attribute: key_attribute.to_owned() }
    }
}

impl Format for Pyramid {
    fn key_schema(&self) -> KeySchema<'_> {
        KeySchema { attribute: &self.key_attribute, kind: KeyType::Binary }
    }

    fn ttl_attribute(&self) -> Option<&str> {
        Some(row::EXPIRES)
    }

    fn records_creation(&self) -> bool {
        false
    }

    fn new_id(&self) -> Result<SessionId, getrandom::Error> {
        row::new_id()
    }

    fn parse_cookie(&self, value: &[u8]) -> Result<SessionRef, CookieFault> {
        row::parse_reference(value)
    }

    fn cookie_shape(&self) -> String {
        row::REFERENCE.to_owned()
    }

    fn cookie_value(&self, id: &SessionId, version: u64) -> String {
        row::write_reference(id, version)
    }

    fn key(&self, id: &SessionId) -> Key {
        row::key(id)
    }

    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault> {
        let (version, issued, expires) = row::times(item)?;
        let data = item.get(row::DATA).ok_or_else(|| RowFault::Missing(row::DATA.into()))?;
        let text = data.as_str().ok_or_else(|| RowFault::Type(row::DATA.into()))?;
        let claims = json::object(text.as_bytes()).ok_or_else(|| RowFault::Payload(row::DATA.into()))?;
        if claims.is_empty() {
            // `session.invalidate()` keeps the row and the id, but empties the session.
            return Err(RowFault::Empty);
        }
        Ok(SessionRecord {
            claims,
            version,
            issued,
            created: None,
            expires,
            retired: false,
            successor: None,
            predecessor: None,
            renewal: Renewal::Realm,
            stored: Item::new(),
        })
    }

    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault> {
        let data = Attribute::String(python_json::dumps(&record.claims, Separators::Spaced)?);
        Ok(row::new_row(&self.key_attribute, key, record, data))
    }

    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change {
        row::touch(record, times)
    }

    fn unchanged(&self, record: &SessionRecord) -> Vec<WriteCondition> {
        row::unchanged(record)
    }

    fn change(
        &self,
        record: &SessionRecord,
        claims: Claims,
        times: ChangeTimes,
    ) -> Result<Change, EncodeFault> {
        let data = python_json::dumps(&claims, Separators::Spaced)?;
        if json::object(data.as_bytes()).is_none() {
            return Err(EncodeFault::Unreadable);
        }
        Ok(row::change(record, claims, Attribute::String(data), times))
    }
}

#[cfg(test)]
mod tests;
