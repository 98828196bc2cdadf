//! django-dynamodb-sessions 0.6 and 0.7, and dj-dynamodb-sessions: the cookie is the bare session key, which is also the
//! row's, and `data` is what Django itself signs with `SECRET_KEY`.
//!
//! The libraries leave expiry to the browser. Here a session ends where its cookie would: the signed time of the last
//! save, and the app's own `_session_expiry` or else the realm's timeout. Rows that do not tell when they were saved
//! (Django before 3.1) end by `ttl`, or `timeout` after `created`, or never. Without `enforce_age` none ends.
//!
//! A touch signs the same payload for the present moment. Two kinds of session are not touched: those whose app has set
//! the expiry itself, since a cookie of ours would outlive it, and those without the time of a save.

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
use signing::{Envelope, Keyring, Opened, Sealed};

/// The signed session.
const DATA: &str = "data";
/// When the session was created, in Unix seconds. 0.6 does not write it.
const CREATED: &str = "created";
/// When DynamoDB may delete the row, in Unix seconds. Only dj-dynamodb-sessions writes it.
const TTL: &str = "ttl";
/// The letters of a session key, and how many it has.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const KEY_LENGTH: usize = 32;

/// The format.
#[derive(Debug)]
pub struct Django {
    key_attribute: String,
    keyring: Keyring,
    timeout: Duration,
    enforce_age: bool,
}

impl Django {
    /// The libraries' layout in a table whose key attribute is `key_attribute` (the libraries' own is `session_key`),
    /// signed by `keys`: without any, no row is a session. With `enforce_age`, a session that says nothing else ends
    /// `timeout` after its last save.
    pub fn new(key_attribute: &str, keys: Option<&KeysConfig>, timeout: Duration, enforce_age: bool) -> Self {
        Self { key_attribute: key_attribute.to_owned(), keyring: Keyring::new(keys), timeout, enforce_age }
    }

    /// When a session saved at `saved` ends.
    fn end(&self, expiry: Expiry, saved: Timestamp) -> Timestamp {
        match expiry {
            Expiry::Cookie | Expiry::Browser => saved.plus(self.timeout),
            Expiry::After(millis) => Timestamp::from_millis(saved.as_millis().saturating_add(millis)),
            Expiry::At(moment) => moment,
        }
    }

    /// What a row says: its payload, and the attributes around it, of which `stored` has `data` and `ttl`.
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
        let expiry = Expiry::of(&claims).ok_or_else(|| RowFault::Payload(DATA.into()))?;
        let (issued, end) = match envelope {
            Envelope::Signing(saved) => (saved, self.end(expiry, saved)),
            Envelope::Legacy => (Timestamp::NEVER, self.end_of_legacy(expiry, created, &stored)?),
        };
        Ok(SessionRecord {
            claims,
            version: fingerprint(payload),
            issued,
            created,
            expires: if self.enforce_age { end } else { Timestamp::NEVER },
            renewal: if envelope == Envelope::Legacy || expiry != Expiry::Cookie {
                Renewal::Never
            } else {
                Renewal::Realm
            },
            retired: false,
            successor: None,
            stored,
        })
    }

    /// What reading a row of this payload gives: what would not be read is not written.
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

    /// The end of a session that does not say when it was saved: what dj-dynamodb-sessions wrote with the save, or else
    /// counted from the creation, never shorter than the timeout, since saves since then are not known.
    fn end_of_legacy(
        &self,
        expiry: Expiry,
        created: Option<Timestamp>,
        stored: &Item,
    ) -> Result<Timestamp, RowFault> {
        if let Expiry::At(moment) = expiry {
            return Ok(moment);
        }
        let ttl = seconds(stored, TTL)?;
        let from_creation = |created| self.end(expiry, created).max(self.end(Expiry::Cookie, created));
        Ok(ttl.or_else(|| created.map(from_creation)).unwrap_or(Timestamp::NEVER))
    }

    /// The attributes of a row that is written anew as `data`, and ends at `end` where rows say so.
    fn set(record: &SessionRecord, data: String, end: Timestamp) -> Vec<(String, Attribute)> {
        let mut set = vec![(DATA.to_owned(), Attribute::String(data))];
        if record.stored.contains_key(TTL) && end != Timestamp::NEVER {
            set.push((TTL.to_owned(), Attribute::number(end.as_secs())));
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
        format!("{KEY_LENGTH} of `a-z0-9`")
    }

    fn cookie_value(&self, id: &SessionId, _version: u64) -> String {
        String::from_utf8_lossy(id.expose()).into_owned()
    }

    fn key(&self, id: &SessionId) -> Key {
        Key::string(&String::from_utf8_lossy(id.expose()))
    }

    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault> {
        // 0.6 first puts the key alone; a process that ends there leaves a row that Django itself fails on.
        let data = item.get(DATA).ok_or_else(|| RowFault::Missing(DATA.into()))?;
        let text = data.as_str().ok_or_else(|| RowFault::Type(DATA.into()))?;
        let created = seconds(item, CREATED)?;
        seconds(item, TTL)?;
        let Opened { payload, envelope } = self.keyring.open(text).map_err(|sealed| match sealed {
            Sealed::Shape => RowFault::Payload(DATA.into()),
            Sealed::Signature => RowFault::Signature(DATA.into()),
            Sealed::Pickle => RowFault::Pickle(DATA.into()),
        })?;
        let kept = item.iter().filter(|(name, _)| [DATA, TTL].contains(&name.as_str()));
        let stored = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.record(&payload, envelope, created, stored)
    }

    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault> {
        let payload = python_json::dumps(&record.claims, Separators::Compact)?;
        let envelope = Envelope::Signing(record.issued);
        self.read_back(&payload, envelope, record.created, Item::new())?;
        let data = self.keyring.seal(payload.as_bytes(), envelope);
        let mut item = Item::from([
            (self.key_attribute.clone(), key.to_attribute()),
            (DATA.to_owned(), Attribute::String(data)),
        ]);
        if let Some(created) = record.created {
            item.insert(CREATED.to_owned(), Attribute::number(created.as_secs()));
        }
        Ok(item)
    }

    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change {
        let old = record.stored.get(DATA).and_then(Attribute::as_str).unwrap_or_default();
        let data = self.keyring.sign_again(old, times.now).unwrap_or_else(|| old.to_owned());
        let set = Self::set(record, data, times.expires);
        let issued = Timestamp::from_secs(times.now.as_secs());
        let mut touched = SessionRecord { issued, expires: times.expires, ..record.clone() };
        // What was read is replaced, and the next write is to be conditional on what stands there then.
        touched.stored.extend(set.iter().cloned());
        Change { update: Update { set, conditions: self.unchanged(record) }, record: touched }
    }

    fn unchanged(&self, record: &SessionRecord) -> Vec<WriteCondition> {
        // No row holds NULL there: what was never read is never overwritten.
        let data = record.stored.get(DATA).cloned().unwrap_or(Attribute::Null);
        vec![WriteCondition::Exists, WriteCondition::Equals(DATA.to_owned(), data)]
    }

    fn change(
        &self,
        record: &SessionRecord,
        claims: Claims,
        times: ChangeTimes,
    ) -> Result<Change, EncodeFault> {
        let saved = Timestamp::from_secs(times.now.as_secs());
        let old = record.stored.get(DATA).and_then(Attribute::as_str).unwrap_or_default();
        // A legacy row stays one: Django before 3.1 reads nothing else.
        let envelope = if old.contains(':') { Envelope::Signing(saved) } else { Envelope::Legacy };
        let payload = python_json::dumps(&claims, Separators::Compact)?;
        let expiry = Expiry::of(&claims).ok_or(EncodeFault::Unreadable)?;
        let data = self.keyring.seal(payload.as_bytes(), envelope);
        let set = Self::set(record, data, self.end(expiry, saved));
        let mut stored = record.stored.clone();
        stored.extend(set.iter().cloned());
        let changed = self.read_back(&payload, envelope, record.created, stored)?;
        Ok(Change { update: Update { set, conditions: self.unchanged(record) }, record: changed })
    }
}

/// The letter that a random byte stands for; none for the last four, as 256 is not a multiple of 36 and 252 is.
fn letter(byte: u8) -> Option<char> {
    let letter = LETTERS.get(usize::from(byte) % LETTERS.len()).filter(|_| byte < 252);
    letter.map(|letter| char::from(*letter))
}

/// An attribute in Unix seconds, if it is there.
fn seconds(item: &Item, name: &str) -> Result<Option<Timestamp>, RowFault> {
    let Some(attribute) = item.get(name) else { return Ok(None) };
    let moment = attribute.as_number().and_then(|number| number.as_unix_seconds());
    moment.map(Some).ok_or_else(|| RowFault::Type(name.into()))
}

#[cfg(test)]
mod tests;
