//! sessiongate's own format. Rows have the attributes of the pyramid format, but the payload is a DynamoDB map, which
//! DynamoDB's own tools can show and query. In addition, `cre` contains the time of creation, the old row of a session
//! whose id has changed stays as a retired row, and the cookie can be signed.
//!
//! The cookie is `id/version`, or with keys `id/version/mac`, where `mac` is the base64url of
//! `HMAC-SHA256(key, "sessiongate-native-1" NUL cookie-name NUL "id/version")`. The id cannot be guessed even without
//! the MAC; the MAC lets the gateway reject a made-up id without a read.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use super::{
    Change, ChangeTimes, CookieFault, EncodeFault, Format, KeySchema, Renewal, RowFault, SessionId,
    SessionRecord, SessionRef, TouchTimes, Update, WriteCondition,
};
use super::{map, row};
use crate::claims::Claims;
use crate::config::KeysConfig;
use crate::item::{Attribute, Item, Key, KeyType, Number};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Time of creation, in Unix seconds.
const CREATED: &str = "cre";
/// Present in retired rows: the session continues under another id.
const RETIRED: &str = "cls";
/// The key of the row in which a retired session continues.
const SUCCESSOR: &str = "nxt";
/// The key of the retired row of the session's previous id.
const PREDECESSOR: &str = "prv";
/// Domain separation: a MAC computed for another purpose is not valid here.
const PURPOSE: &[u8] = b"sessiongate-native-1";

/// The native format.
#[derive(Debug)]
pub struct Native {
    key_attribute: String,
    cookie_name: String,
    keys: Option<KeysConfig>,
}

impl Native {
    /// Creates the format for a table whose key attribute is `key_attribute`. With `keys`, cookies are signed with the
    /// current key, and accepted if they are signed with any of them.
    pub fn new(key_attribute: &str, cookie_name: &str, keys: Option<KeysConfig>) -> Self {
        Self { key_attribute: key_attribute.to_owned(), cookie_name: cookie_name.to_owned(), keys }
    }

    fn mac(&self, key: &Secret, reference: &str) -> String {
        // Never fails: HMAC accepts keys of any length.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else { return String::new() };
        let mac = mac
            .chain_update(PURPOSE)
            .chain_update([0])
            .chain_update(&self.cookie_name)
            .chain_update([0])
            .chain_update(reference);
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

impl Format for Native {
    fn key_schema(&self) -> KeySchema<'_> {
        KeySchema { attribute: &self.key_attribute, kind: KeyType::Binary }
    }

    fn ttl_attribute(&self) -> Option<&str> {
        Some(row::EXPIRES)
    }

    fn records_creation(&self) -> bool {
        true
    }

    fn new_id(&self) -> Result<SessionId, getrandom::Error> {
        row::new_id()
    }

    fn parse_cookie(&self, value: &[u8]) -> Result<SessionRef, CookieFault> {
        let Some(keys) = &self.keys else { return row::parse_reference(value) };
        let text = std::str::from_utf8(value).map_err(|_| CookieFault::Shape)?;
        let (reference, mac) = text.rsplit_once('/').ok_or(CookieFault::Shape)?;
        let parsed = row::parse_reference(reference.as_bytes())?;
        let mut all = std::iter::once(&keys.current).chain(&keys.previous);
        // Compare the encoded MACs, so that only the canonical encoding is accepted.
        if all.any(|key| self.mac(key, reference).as_bytes().ct_eq(mac.as_bytes()).into()) {
            Ok(parsed)
        } else {
            Err(CookieFault::Signature)
        }
    }

    fn cookie_shape(&self) -> String {
        match self.keys {
            None => row::REFERENCE.to_owned(),
            Some(_) => format!("{}, followed by `/MAC`", row::REFERENCE),
        }
    }

    fn cookie_value(&self, id: &SessionId, version: u64) -> String {
        let reference = row::write_reference(id, version);
        match &self.keys {
            None => reference,
            Some(keys) => {
                let mac = self.mac(&keys.current, &reference);
                format!("{reference}/{mac}")
            }
        }
    }

    fn key(&self, id: &SessionId) -> Key {
        row::key(id)
    }

    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault> {
        let (version, issued, expires) = row::times(item)?;
        let created = item.contains_key(CREATED).then(|| row::seconds(item, CREATED)).transpose()?;
        let retired = item.contains_key(RETIRED);
        let claims = match item.get(row::DATA) {
            None => return Err(RowFault::Missing(row::DATA.into())),
            Some(Attribute::Map(data)) => {
                map::to_claims(data).ok_or_else(|| RowFault::Payload(row::DATA.into()))?
            }
            Some(_) => return Err(RowFault::Type(row::DATA.into())),
        };
        if claims.is_empty() {
            return Err(RowFault::Empty);
        }
        Ok(SessionRecord {
            claims,
            version,
            issued,
            created,
            expires: if retired { expires.min(issued) } else { expires },
            retired,
            successor: item.get(SUCCESSOR).and_then(Key::from_attribute).map(Box::new),
            predecessor: item.get(PREDECESSOR).and_then(Key::from_attribute).map(Box::new),
            renewal: if retired { Renewal::Never } else { Renewal::Realm },
            stored: Item::new(),
        })
    }

    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault> {
        let mut item =
            row::new_row(&self.key_attribute, key, record, Attribute::Map(map::from_claims(&record.claims)?));
        if let Some(created) = record.created {
            item.insert(CREATED.to_owned(), Attribute::number(created.as_secs()));
        }
        if let Some(predecessor) = &record.predecessor {
            item.insert(PREDECESSOR.to_owned(), predecessor.to_attribute());
        }
        Ok(item)
    }

    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change {
        row::touch(record, times)
    }

    fn retire(&self, record: &SessionRecord, until: Timestamp, successor: &Key) -> Option<Update> {
        // `iss` has the end to the millisecond. `exp`, also DynamoDB's TTL, has whole seconds: it is rounded up, so that the
        // id does not end early.
        let rounded = until.plus(Duration::from_millis(999)).as_secs();
        let set = vec![
            (row::ISSUED.to_owned(), Attribute::Number(Number::from_seconds(until))),
            (row::EXPIRES.to_owned(), Attribute::number(rounded)),
            (RETIRED.to_owned(), Attribute::Bool(true)),
            (SUCCESSOR.to_owned(), successor.to_attribute()),
            // Makes every pending write based on the old version fail.
            (row::VERSION.to_owned(), Attribute::number(record.version.saturating_add(1))),
        ];
        Some(Update { set, conditions: row::unchanged(record) })
    }

    fn keeps_retired_rows(&self) -> bool {
        true
    }

    fn not_retired(&self) -> Vec<WriteCondition> {
        vec![WriteCondition::Exists, WriteCondition::Lacks(RETIRED.to_owned())]
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
        let data = Attribute::Map(map::from_claims(&claims)?);
        Ok(row::change(record, claims, data, times))
    }
}

#[cfg(test)]
mod tests;
