//! The format of django-dynamodb-sessions 0.6 and 0.7, and of dj-dynamodb-sessions: the cookie is the session key,
//! which is also the row's key, and `data` is the payload, signed with `SECRET_KEY`.
//!
//! The libraries leave expiry to the browser. The gateway expires a session when its cookie would: at the signed time
//! of the last save, plus the app's `_session_expiry` or else the realm's timeout. Rows without the time of the save
//! (Django before 3.1) expire at the date that the app has set, or else at `ttl`, or else `timeout` or a longer
//! `_session_expiry` after `created`, or else never. Without `enforce_age`, sessions do not expire.
//!
//! A touch signs the same payload again with the current time. Two kinds of session are never touched: those with an
//! expiry set by the app, since the gateway's cookie would outlive it, and those without the time of the save. Without
//! `enforce_age`, no session is touched, since none has a deadline that a touch could extend.

mod base62;
mod expiry;
mod signing;

use std::time::Duration;

use super::decode::{inflate, json};
use super::python_json::{self, Separators};
use super::{
    Change, ChangeTimes, CookieFault, EncodeFault, Format, KeySchema, Renewal, RowFault, SessionId,
    SessionRecord, SessionRef, TouchTimes, Update, WriteCondition, fingerprint,
};
use crate::claims::Claims;
use crate::config::KeysConfig;
use crate::item::{Attribute, Item, Key, KeyType};
use crate::time::Timestamp;

use expiry::Expiry;
use signing::{Envelope, Keyring, OpenError, Opened};

/// The signed session.
const DATA: &str = "data";
/// Time of creation, in Unix seconds. Version 0.6 does not write it.
const CREATED: &str = "created";
/// The time after which DynamoDB may delete the row, in Unix seconds. Only dj-dynamodb-sessions writes it.
const TTL: &str = "ttl";
/// Alphabet of session keys.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// Length of session keys.
const KEY_LENGTH: usize = 32;

/// The Django format.
#[derive(Debug)]
pub struct Django {
    key_attribute: String,
    keyring: Keyring,
    timeout: Duration,
    enforce_age: bool,
}

impl Django {
    /// Creates the format for a table whose key attribute is `key_attribute` (the libraries' default is `session_key`).
    /// Payloads are signed with `keys`; without keys, no row is valid. With `enforce_age`, sessions without an expiry
    /// of their own expire `timeout` after the last save.
    pub fn new(key_attribute: &str, keys: Option<&KeysConfig>, timeout: Duration, enforce_age: bool) -> Self {
        Self { key_attribute: key_attribute.to_owned(), keyring: Keyring::new(keys), timeout, enforce_age }
    }

    /// Returns when a session saved at `saved` expires.
    fn deadline(&self, expiry: Expiry, saved: Timestamp) -> Timestamp {
        match expiry {
            Expiry::Cookie | Expiry::Browser => saved.plus(self.timeout),
            Expiry::After(millis) => Timestamp::from_millis(saved.as_millis().saturating_add(millis)),
            Expiry::At(time) => time,
        }
    }

    /// Decodes a verified payload. `stored` has the row's `data` and `ttl`.
    fn record(
        &self,
        payload: &[u8],
        envelope: Envelope,
        created: Option<Timestamp>,
        stored: Item,
    ) -> Result<SessionRecord, RowFault> {
        if signing::is_pickle(payload) {
            return Err(RowFault::Pickle(DATA.into()));
        }
        let claims = json::object(payload).ok_or_else(|| RowFault::Payload(DATA.into()))?;
        if claims.is_empty() {
            return Err(RowFault::Empty);
        }
        let expiry = Expiry::from_claims(&claims).ok_or_else(|| RowFault::Payload(DATA.into()))?;
        let (issued, deadline) = match envelope {
            Envelope::Signing(saved) => (saved, self.deadline(expiry, saved)),
            Envelope::Legacy => (Timestamp::NEVER, self.legacy_deadline(expiry, created, &stored)?),
        };
        Ok(SessionRecord {
            claims,
            version: fingerprint(payload),
            issued,
            created,
            expires: if self.enforce_age { deadline } else { Timestamp::NEVER },
            renewal: if envelope == Envelope::Legacy || expiry != Expiry::Cookie {
                Renewal::Never
            } else {
                Renewal::Realm
            },
            retired: false,
            successor: None,
            predecessor: None,
            stored,
        })
    }

    /// Decodes a payload that is about to be written, so that nothing is written that could not be read back.
    fn read_back(
        &self,
        payload: &str,
        envelope: Envelope,
        created: Option<Timestamp>,
        stored: Item,
    ) -> Result<SessionRecord, EncodeFault> {
        if payload.len() > inflate::LIMIT {
            return Err(EncodeFault::Unreadable);
        }
        self.record(payload.as_bytes(), envelope, created, stored).map_err(|_| EncodeFault::Unreadable)
    }

    /// Returns the attributes to set when `claims` are saved at `saved`, and the record of the row after that.
    /// `record.stored` has the attributes of the session's row before that; it is empty for a new session.
    fn save(
        &self,
        record: &SessionRecord,
        claims: &Claims,
        saved: Timestamp,
    ) -> Result<(Vec<(String, Attribute)>, SessionRecord), EncodeFault> {
        let old = record.stored.get(DATA).and_then(Attribute::as_str);
        // A legacy row keeps its format: Django before 3.1 cannot read the signing format.
        let is_legacy = old.is_some_and(|old| !old.contains(':'));
        let envelope = if is_legacy { Envelope::Legacy } else { Envelope::Signing(saved) };
        let payload = python_json::dumps(claims, Separators::Compact)?;
        let expiry = Expiry::from_claims(claims).ok_or(EncodeFault::Unreadable)?;
        let data = self.keyring.seal(payload.as_bytes(), envelope);
        let set = Self::set(record, data, self.deadline(expiry, saved));
        let mut stored = record.stored.clone();
        stored.extend(set.iter().cloned());
        let changed = self.read_back(&payload, envelope, record.created, stored)?;
        Ok((set, changed))
    }

    /// Returns when a session without the time of the save expires: at the date that the app has set, or else at the
    /// `ttl` that dj-dynamodb-sessions wrote with the save, or else at its expiry after the creation. The latter is at
    /// least the timeout, since there may have been later saves.
    fn legacy_deadline(
        &self,
        expiry: Expiry,
        created: Option<Timestamp>,
        stored: &Item,
    ) -> Result<Timestamp, RowFault> {
        if let Expiry::At(time) = expiry {
            return Ok(time);
        }
        let ttl = seconds(stored, TTL)?;
        let from_creation =
            |created| self.deadline(expiry, created).max(self.deadline(Expiry::Cookie, created));
        Ok(ttl.or_else(|| created.map(from_creation)).unwrap_or(Timestamp::NEVER))
    }

    /// Returns the attributes to set: `data`, and the deadline if the row has a `ttl`.
    fn set(record: &SessionRecord, data: String, deadline: Timestamp) -> Vec<(String, Attribute)> {
        let mut set = vec![(DATA.to_owned(), Attribute::String(data))];
        if record.stored.contains_key(TTL) && deadline != Timestamp::NEVER {
            set.push((TTL.to_owned(), Attribute::number(deadline.as_secs())));
        }
        set
    }
}

impl Format for Django {
    fn key_schema(&self) -> KeySchema<'_> {
        KeySchema { attribute: &self.key_attribute, kind: KeyType::String }
    }

    fn ttl_attribute(&self) -> Option<&str> {
        None
    }

    fn records_creation(&self) -> bool {
        true
    }

    fn new_id(&self) -> Result<SessionId, getrandom::Error> {
        let mut id = String::with_capacity(KEY_LENGTH);
        while id.len() < KEY_LENGTH {
            let mut bytes = [0u8; 64];
            getrandom::fill(&mut bytes)?;
            id.extend(bytes.into_iter().filter_map(letter).take(KEY_LENGTH - id.len()));
        }
        Ok(SessionId::new(&id))
    }

    fn parse_cookie(&self, value: &[u8]) -> Result<SessionRef, CookieFault> {
        let is_key = value.len() == KEY_LENGTH && value.iter().all(|byte| LETTERS.contains(byte));
        let text = std::str::from_utf8(value).ok().filter(|_| is_key).ok_or(CookieFault::Shape)?;
        Ok(SessionRef { id: SessionId::new(text), version: 0 })
    }

    fn cookie_shape(&self) -> String {
        format!("{KEY_LENGTH} characters of `a-z0-9`")
    }

    fn cookie_value(&self, id: &SessionId, _version: u64) -> String {
        String::from_utf8_lossy(id.expose()).into_owned()
    }

    fn key(&self, id: &SessionId) -> Key {
        Key::string(&String::from_utf8_lossy(id.expose()))
    }

    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault> {
        // Version 0.6 first writes a row without `data`. If the process dies then, Django cannot read the row either.
        let data = item.get(DATA).ok_or_else(|| RowFault::Missing(DATA.into()))?;
        let text = data.as_str().ok_or_else(|| RowFault::Type(DATA.into()))?;
        let created = seconds(item, CREATED)?;
        seconds(item, TTL)?;
        let Opened { payload, envelope } = self.keyring.open(text).map_err(|error| match error {
            OpenError::Shape => RowFault::Payload(DATA.into()),
            OpenError::Signature => RowFault::Signature(DATA.into()),
            OpenError::Pickle => RowFault::Pickle(DATA.into()),
        })?;
        let stored = item.iter().filter(|(name, _)| [DATA, TTL].contains(&name.as_str()));
        let stored = stored.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.record(&payload, envelope, created, stored)
    }

    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault> {
        let (set, _) = self.save(record, &record.claims, record.issued)?;
        let mut item = Item::from_iter(set);
        item.insert(self.key_attribute.clone(), key.to_attribute());
        if let Some(created) = record.created {
            item.insert(CREATED.to_owned(), Attribute::number(created.as_secs()));
        }
        Ok(item)
    }

    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change {
        let old = record.stored.get(DATA).and_then(Attribute::as_str).unwrap_or_default();
        let data = self.keyring.resign(old, times.now).unwrap_or_else(|| old.to_owned());
        let set = Self::set(record, data, times.expires);
        let issued = Timestamp::from_secs(times.now.as_secs());
        let mut touched = SessionRecord { issued, expires: times.expires, ..record.clone() };
        // The next write must be conditional on the new attributes.
        touched.stored.extend(set.iter().cloned());
        Change { update: Update { set, conditions: self.unchanged(record) }, record: touched }
    }

    fn unchanged(&self, record: &SessionRecord) -> Vec<WriteCondition> {
        // No row has NULL there: without the old value, the write always fails.
        let data = record.stored.get(DATA).cloned().unwrap_or(Attribute::Null);
        vec![WriteCondition::Exists, WriteCondition::Equals(DATA.to_owned(), data)]
    }

    fn change(
        &self,
        record: &SessionRecord,
        claims: Claims,
        times: ChangeTimes,
    ) -> Result<Change, EncodeFault> {
        let (set, changed) = self.save(record, &claims, Timestamp::from_secs(times.now.as_secs()))?;
        Ok(Change { update: Update { set, conditions: self.unchanged(record) }, record: changed })
    }
}

/// Maps a random byte to a letter without bias. Returns `None` for 252 and above, since 252 is the largest multiple of
/// 36.
fn letter(byte: u8) -> Option<char> {
    let letter = LETTERS.get(usize::from(byte) % LETTERS.len()).filter(|_| byte < 252);
    letter.map(|letter| char::from(*letter))
}

/// Reads an optional attribute in Unix seconds.
fn seconds(item: &Item, name: &str) -> Result<Option<Timestamp>, RowFault> {
    let Some(attribute) = item.get(name) else { return Ok(None) };
    let time = attribute.as_number().and_then(|number| number.as_unix_seconds());
    time.map(Some).ok_or_else(|| RowFault::Type(name.into()))
}

#[cfg(test)]
mod tests;
