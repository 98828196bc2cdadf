//! Reading a session's row, with the consistency that the realm and the cookie's version require.

use std::sync::Arc;

use super::cache::CacheResult;
use super::realm::Realm;
use super::resolution::Lookup;
use crate::config::Consistency;
use crate::format::{RowFault, SessionRecord};
use crate::item::{Attribute, Item, Key};
use crate::store::StoreError;
use crate::store::table::Read;

impl Realm {
    /// Reads the row of `key` for a cookie with version `cookie_version`, and caches it.
    pub(super) async fn read(&self, key: &Key, cookie_version: u64) -> Lookup {
        // Another read may have finished since this request checked the cache.
        match self.cache.get(key, cookie_version, self.clock.mono()) {
            CacheResult::Fresh(session) => return Lookup::Found(session),
            CacheResult::Absent => return Lookup::Absent(None),
            CacheResult::Stale(..) | CacheResult::Miss => {}
        }
        self.read_uncached(key, cookie_version).await
    }

    /// Like [`read`](Self::read), but ignores a cached row.
    pub(super) async fn read_uncached(&self, key: &Key, cookie_version: u64) -> Lookup {
        let epoch = self.cache.epoch(key);
        let read_at = self.clock.mono();
        let (row, is_strong) = match self.fetch(key, cookie_version).await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.read_outage.record(self.clock.mono());
                if let Some(suppressed) = self.failures.admit(&error, self.clock.mono()) {
                    tracing::warn!(realm = %self.name, %error, suppressed, "a session could not be read");
                }
                return Lookup::Unavailable;
            }
        };
        match row {
            DecodedRow::Session { record, size } => {
                // After a strongly consistent read, a higher version in the cookie is invalid rather than newer.
                let is_final = is_strong || self.consistency == Consistency::Eventual;
                let max_version = if is_final { record.version.max(cookie_version) } else { record.version };
                let session = Arc::new(self.session(key.clone(), record, size, read_at));
                self.cache.insert(&session, max_version, read_at, epoch);
                Lookup::Found(session)
            }
            DecodedRow::None(fault) => {
                self.cache.insert_negative(key, cookie_version, read_at, epoch);
                Lookup::Absent(fault)
            }
        }
    }

    /// Reads the row of `key`, and returns whether the read was strongly consistent.
    ///
    /// `auto` is the rule of pyramid-dynamodb-sessions: an eventually consistent read, at half the cost, and then a strongly
    /// consistent one if there is no row or it is older than the browser has seen. After this gateway has ended the session,
    /// reads are strongly consistent, since a replica may still have the row.
    async fn fetch(&self, key: &Key, cookie_version: u64) -> Result<(DecodedRow, bool), StoreError> {
        let has_ended = self.changes.has_ended(key, self.clock.mono());
        match self.consistency {
            _ if has_ended => Ok((self.decode(self.table.get(key, Read::Strong).await?), true)),
            Consistency::Strong => Ok((self.decode(self.table.get(key, Read::Strong).await?), true)),
            Consistency::Eventual => Ok((self.decode(self.table.get(key, Read::Eventual).await?), false)),
            Consistency::Auto => {
                let row = self.decode(self.table.get(key, Read::Eventual).await?);
                if matches!(&row, DecodedRow::Session { record, .. } if record.version >= cookie_version) {
                    return Ok((row, false));
                }
                Ok((self.decode(self.table.get(key, Read::Strong).await?), true))
            }
        }
    }

    pub(super) fn decode(&self, item: Option<Item>) -> DecodedRow {
        let Some(item) = item else { return DecodedRow::None(None) };
        match self.format.decode(&item) {
            Ok(record) => DecodedRow::Session { record, size: size(&item) },
            Err(fault) => DecodedRow::None(Some(fault)),
        }
    }
}

/// A row as decoded by the format.
pub(super) enum DecodedRow {
    Session {
        record: SessionRecord,
        size: usize,
    },
    /// There is no row, or it is not a valid session.
    None(Option<RowFault>),
}

/// Returns the approximate size of a row in bytes, as DynamoDB counts it.
fn size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + attribute_size(value)).sum()
}

fn attribute_size(attribute: &Attribute) -> usize {
    match attribute {
        Attribute::String(text) => text.len(),
        Attribute::Number(number) => number.as_str().len(),
        Attribute::Binary(bytes) => bytes.len(),
        Attribute::Bool(_) | Attribute::Null => 1,
        Attribute::List(list) => 3 + list.iter().map(|element| 1 + attribute_size(element)).sum::<usize>(),
        Attribute::Map(map) => 3 + size(map),
        Attribute::StringSet(set) => set.iter().map(String::len).sum(),
        Attribute::NumberSet(set) => set.iter().map(|number| number.as_str().len()).sum(),
        Attribute::BinarySet(set) => set.iter().map(Vec::len).sum(),
    }
}
