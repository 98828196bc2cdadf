//! Formats declared in the configuration: which attributes hold the payload and the times, and how the cookie is
//! written. One implementation handles them all. The declaration also covers other conventions of the
//! framework: `TimeRule`, and the wrapper of the payload.
//!
//! Writes are conditional on the attributes that were read: a change on the old payload, and on the old version if rows
//! have one; a touch also on the old deadline or last activity. If several gateways write at once, one succeeds; a deleted
//! row is not recreated, a concurrent change is not overwritten, and outdated claims are not cached as those of the row.
//! Without a payload attribute, an attribute that another writer adds is not noticed. Nor is a change that keeps the
//! deadline of a row with more than `MAX_CONDITIONS` attributes.

mod cookie;
mod msgpack;
mod payload;
mod times;

use std::time::Duration;

use serde_json::{Value, json};

use self::cookie::Cookie;
use self::payload::Payload;
use self::times::{DecodedTimes, RowTimes};
use super::{
    Change, ChangeTimes, CookieFault, EncodeFault, Format, KeySchema, Renewal, RowFault, SessionId,
    SessionRecord, SessionRef, TouchTimes, Update, WriteCondition, iso8601,
};
use crate::claims::Claims;
use crate::config::RealmConfig;
use crate::config::layout::{KeyTemplate, LayoutConfig};
use crate::item::{Attribute, Item, Key, KeyType};
use crate::time::Timestamp;

const UNCHANGEABLE: &str = "sessions without a payload attribute cannot be changed";
/// The most attributes that a write compares, since DynamoDB limits an expression to 4 KB. Without a payload attribute,
/// of a row with more than that only the deadline, the version and the key are compared.
const MAX_CONDITIONS: usize = 200;
/// The timeout that express-session's stores use for a cookie without `maxAge`.
const EXPRESS_DEFAULT: Duration = Duration::from_secs(86_400);

/// A declared format.
#[derive(Debug)]
pub struct Layout {
    cookie: Cookie,
    key: KeyTemplate,
    key_attribute: String,
    key_type: KeyType,
    payload: Payload,
    version: Option<String>,
    /// An attribute and its value in session rows. A row with another value is not a session.
    marker: Option<(&'static str, &'static str)>,
    times: RowTimes,
}

impl Layout {
    /// Creates the format of `realm` from its `layout`.
    pub fn new(realm: &RealmConfig, layout: &LayoutConfig) -> Self {
        Self {
            cookie: Cookie {
                codec: layout.cookie,
                ids: layout.ids,
                name: realm.cookie.name.clone(),
                keys: realm.keys.clone(),
            },
            key: layout.key.clone(),
            key_attribute: realm.key_attribute.clone(),
            key_type: layout.key_type,
            payload: Payload::new(layout),
            version: layout.version.clone(),
            marker: layout.marker,
            times: RowTimes::new(realm, layout),
        }
    }

    /// Extracts the session id from the key's value.
    fn id_of_key<'k>(&self, key: &'k Attribute) -> Option<&'k str> {
        let text = std::str::from_utf8(key.as_bytes()?).ok()?;
        text.strip_prefix(self.key.before.as_str())?.strip_suffix(self.key.after.as_str())
    }

    /// Returns the attributes that are not claims, for layouts in which all other attributes are claims.
    fn reserved(&self) -> Vec<&str> {
        let times = self.times.attributes();
        times.chain([self.key_attribute.as_str()]).chain(self.version.as_deref()).collect()
    }

    fn version(&self, item: &Item) -> Result<Option<u64>, RowFault> {
        let Some(name) = &self.version else { return Ok(None) };
        let attribute = item.get(name).ok_or_else(|| RowFault::Missing(name.clone()))?;
        let version = attribute.as_number().and_then(crate::item::Number::as_u64);
        version.map(Some).ok_or_else(|| RowFault::Type(name.clone()))
    }

    /// Builds express-session's `cookie` for a session that the gateway creates.
    fn express_cookie(&self, expires: Timestamp) -> Value {
        let timeout = self.times.timeout;
        let (max_age, expires) = if timeout == EXPRESS_DEFAULT {
            (Value::Null, Value::Null)
        } else {
            (json!(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)), json!(iso8601::write_js(expires)))
        };
        json!({ "originalMaxAge": max_age, "expires": expires, "httpOnly": true, "path": "/" })
    }

    /// Returns the row of a session with a new id: its old row, with the claims, the key and the times replaced.
    fn rotated(&self, key: Attribute, record: &SessionRecord) -> Result<Item, EncodeFault> {
        let id = self.id_of_key(&key).unwrap_or_default();
        let mut item = record.stored.clone();
        match &self.payload.attribute {
            Some(name) => {
                let old = item.get(name).ok_or(EncodeFault::Unsupported("the row has not been read"))?;
                let payload = self.payload.rewrite(old, &record.claims, id)?;
                item.insert(name.clone(), payload);
            }
            None => {
                let old =
                    self.payload.decode(&item, &self.reserved(), id).map_err(|_| EncodeFault::Unreadable)?;
                if old.claims != record.claims {
                    return Err(EncodeFault::Unsupported(UNCHANGEABLE));
                }
            }
        }
        item.extend(self.version.iter().map(|name| (name.clone(), Attribute::number(record.version))));
        if record.renewal != Renewal::Never {
            item.extend(self.times.touched(record.issued, record.expires));
        }
        item.insert(self.key_attribute.clone(), key);
        Ok(item)
    }
}

impl Format for Layout {
    fn key_schema(&self) -> KeySchema<'_> {
        KeySchema { attribute: &self.key_attribute, kind: self.key_type }
    }

    fn ttl_attribute(&self) -> Option<&str> {
        self.times.ttl_attribute()
    }

    fn records_creation(&self) -> bool {
        self.times.records_creation()
    }

    fn new_id(&self) -> Result<SessionId, getrandom::Error> {
        self.cookie.new_id()
    }

    fn parse_cookie(&self, value: &[u8]) -> Result<SessionRef, CookieFault> {
        self.cookie.parse(value)
    }

    fn cookie_shape(&self) -> String {
        self.cookie.shape()
    }

    fn cookie_value(&self, id: &SessionId, version: u64) -> String {
        self.cookie.value(id, version)
    }

    fn key(&self, id: &SessionId) -> Key {
        let bytes = [self.key.before.as_bytes(), id.expose(), self.key.after.as_bytes()].concat();
        match self.key_type {
            KeyType::Binary => Key::binary(&bytes),
            KeyType::String => Key::string(&String::from_utf8_lossy(&bytes)),
        }
    }

    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault> {
        if let Some((name, value)) = self.marker
            && item.get(name).is_some_and(|attribute| attribute.as_str() != Some(value))
        {
            return Err(RowFault::Type(name.into()));
        }
        let key = item.get(&self.key_attribute);
        let key = key.ok_or_else(|| RowFault::Missing(self.key_attribute.clone()))?;
        let id = self.id_of_key(key).ok_or_else(|| RowFault::Type(self.key_attribute.clone()))?;
        let decoded = self.payload.decode(item, &self.reserved(), id)?;
        let version = self.version(item)?.unwrap_or(decoded.fingerprint);
        let DecodedTimes { issued, created, expires, renewal } = self.times.read(item, decoded.max_age)?;
        Ok(SessionRecord {
            claims: decoded.claims,
            version,
            issued,
            created,
            expires,
            renewal,
            retired: false,
            successor: None,
            predecessor: None,
            stored: item.clone(),
        })
    }

    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault> {
        let key = key.to_attribute();
        if !record.stored.is_empty() {
            return self.rotated(key, record);
        }
        let id = self.id_of_key(&key).unwrap_or_default();
        let mut item = match &self.payload.attribute {
            Some(name) => {
                let cookie = self.express_cookie(record.expires);
                Item::from([(name.clone(), self.payload.write(&record.claims, cookie, id)?)])
            }
            None if self.reserved().iter().any(|name| record.claims.contains_key(*name)) => {
                return Err(EncodeFault::Unsupported(
                    "a claim has the same name as an attribute that the layout uses",
                ));
            }
            None => super::map::from_claims(&record.claims)?,
        };
        item.extend(self.marker.map(|(name, value)| (name.to_owned(), Attribute::String(value.to_owned()))));
        item.extend(self.version.iter().map(|name| (name.clone(), Attribute::number(record.version))));
        item.extend(self.times.new_row(record));
        item.insert(self.key_attribute.clone(), key);
        Ok(item)
    }

    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change {
        let conditions = self.unchanged(record);
        let set = self.times.touched(times.now, times.expires);
        let mut row = record.stored.clone();
        row.extend(set.iter().cloned());
        let issued = Timestamp::from_secs(times.now.as_secs());
        let touched = SessionRecord { issued, expires: times.expires, stored: row, ..record.clone() };
        Change { update: Update { set, conditions }, record: touched }
    }

    fn unchanged(&self, record: &SessionRecord) -> Vec<WriteCondition> {
        let payload = self.payload.attribute.as_deref();
        let names = [Some(self.key_attribute.as_str()), payload, self.times.guard(), self.version.as_deref()];
        // Without a payload attribute, all attributes may be claims.
        let compares_all = payload.is_none() && record.stored.len() <= MAX_CONDITIONS;
        let is_compared = |name: &str| compares_all || names.contains(&Some(name));
        let compared = record.stored.iter().filter(|(name, _)| is_compared(name));
        let equals =
            |(name, value): (&String, &Attribute)| WriteCondition::Equals(name.clone(), value.clone());
        std::iter::once(WriteCondition::Exists)
            .chain(compared.map(equals))
            .chain(self.times.unlocked())
            .collect()
    }

    fn change(
        &self,
        record: &SessionRecord,
        claims: Claims,
        times: ChangeTimes,
    ) -> Result<Change, EncodeFault> {
        let name = self.payload.attribute.as_ref();
        let name = name.ok_or(EncodeFault::Unsupported(UNCHANGEABLE))?;
        let now = Timestamp::from_secs(times.now.as_secs());
        let (issued, expires) = match record.renewal {
            Renewal::Realm => (now, times.expires),
            Renewal::Own { timeout, end } => (now, now.plus(timeout).min(end)),
            Renewal::Never => (record.issued, record.expires),
        };
        let id =
            record.stored.get(&self.key_attribute).and_then(|key| self.id_of_key(key)).unwrap_or_default();
        let mut conditions = vec![WriteCondition::Exists];
        conditions.extend(self.times.unlocked());
        let mut set = Vec::new();
        let version = if let Some(name) = &self.version {
            let version = record.version.saturating_add(1);
            conditions.push(WriteCondition::Equals(name.clone(), Attribute::number(record.version)));
            set.push((name.clone(), Attribute::number(version)));
            Some(version)
        } else {
            None
        };
        let old = record.stored.get(name).ok_or(EncodeFault::Unsupported("the row has not been read"))?;
        conditions.push(WriteCondition::Equals(name.clone(), old.clone()));
        set.push((name.clone(), self.payload.rewrite(old, &claims, id)?));
        if record.renewal != Renewal::Never {
            set.extend(self.times.touched(now, expires));
        }
        let mut row = record.stored.clone();
        row.extend(set.iter().cloned());
        let decoded = self.payload.decode(&row, &[], id);
        let decoded = decoded.map_err(|_| EncodeFault::Unsupported("the claims could not be read back"))?;
        let version = version.unwrap_or(decoded.fingerprint);
        let changed =
            SessionRecord { claims: decoded.claims, version, issued, expires, stored: row, ..record.clone() };
        Ok(Change { update: Update { set, conditions }, record: changed })
    }
}

#[cfg(test)]
mod tests;
