//! Reading a row: as consistently as the realm says, and as the browser's version demands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cache::Hit;
use super::{Lookup, Realm};
use crate::config::Consistency;
use crate::format::{RowFault, SessionRecord};
use crate::item::{Attribute, Item, Key};
use crate::store::StoreError;
use crate::store::table::Read;
use crate::telemetry::throttle::Throttle;
use crate::time::Clock;

/// How long after a failure the store is taken to be down still, for what can do without it.
const OUTAGE: Duration = Duration::from_secs(1);

impl Realm {
    /// Reads the row of `key` for a browser that has seen version `asked`, and remembers it.
    pub(super) async fn read(&self, key: &Key, asked: u64) -> Lookup {
        // A flight may have landed between this request's look into the cache and its taking off.
        match self.cache.look(key, asked, self.clock.mono()) {
            Hit::Fresh(session) => return Lookup::Found(session),
            Hit::Missing => return Lookup::Absent(None),
            Hit::Stale(..) | Hit::Nothing => {}
        }
        self.read_anew(key, asked).await
    }

    /// The same, whatever the cache has.
    pub(super) async fn read_anew(&self, key: &Key, asked: u64) -> Lookup {
        let epoch = self.cache.epoch(key);
        let read_at = self.clock.mono();
        let (row, strong) = match self.fetch(key, asked).await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.outage.report(self.clock.mono());
                if let Some(suppressed) = self.failures.pass(&error, self.clock.mono()) {
                    tracing::warn!(realm = %self.name, %error, suppressed, "a session could not be read");
                }
                return Lookup::Unavailable;
            }
        };
        match row {
            DecodedRow::Session { record, size } => {
                // A strongly consistent read has the last word: a cookie that claims more is wrong, not early.
                let trusted = strong || self.consistency == Consistency::Eventual;
                let answers = if trusted { record.version.max(asked) } else { record.version };
                let session = Arc::new(self.session(key.clone(), record, size, read_at));
                self.cache.remember(&session, answers, read_at, epoch);
                Lookup::Found(session)
            }
            DecodedRow::None(fault) => {
                self.cache.remember_missing(key, asked, read_at, epoch);
                Lookup::Absent(fault)
            }
        }
    }

    /// The row, and whether it was read strongly.
    ///
    /// `auto` is pyramid-dynamodb-sessions' rule: eventually consistent at half the price, and strongly consistent if
    /// that finds nothing or something older than the browser has seen.
    async fn fetch(&self, key: &Key, asked: u64) -> Result<(DecodedRow, bool), StoreError> {
        match self.consistency {
            Consistency::Strong => Ok((self.row(self.table.get(key, Read::Strong).await?), true)),
            Consistency::Eventual => Ok((self.row(self.table.get(key, Read::Eventual).await?), false)),
            Consistency::Auto => {
                let row = self.row(self.table.get(key, Read::Eventual).await?);
                if matches!(&row, DecodedRow::Session { record, .. } if record.version >= asked) {
                    return Ok((row, false));
                }
                Ok((self.row(self.table.get(key, Read::Strong).await?), true))
            }
        }
    }

    pub(super) fn row(&self, item: Option<Item>) -> DecodedRow {
        let Some(item) = item else { return DecodedRow::None(None) };
        match self.format.decode(&item) {
            Ok(record) => DecodedRow::Session { record, size: size(&item) },
            Err(fault) => DecodedRow::None(Some(fault)),
        }
    }
}

/// A row as the format reads it.
pub(super) enum DecodedRow {
    Session { record: SessionRecord, size: usize },
    None(Option<RowFault>),
}

/// Roughly the bytes that DynamoDB counts for a row.
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

/// Keeps an outage from filling the log: one line a second of each kind of failure.
#[derive(Debug, Default)]
pub(super) struct Failures {
    throttled: Throttle,
    unavailable: Throttle,
    denied: Throttle,
    other: Throttle,
}

impl Failures {
    /// Whether `error` is to be logged, and how many of its kind were not since the last one.
    pub(super) fn pass(&self, error: &StoreError, now: Instant) -> Option<u64> {
        let kind = match error {
            StoreError::Throttled => &self.throttled,
            StoreError::Unavailable(_) => &self.unavailable,
            StoreError::Denied(_) => &self.denied,
            StoreError::NoSuchTable(_) | StoreError::TooLarge | StoreError::Invalid(_) => &self.other,
        };
        kind.pass(now)
    }
}

/// Whether the store has failed a moment ago.
#[derive(Debug)]
pub(super) struct Outage {
    started: Instant,
    /// Milliseconds after `started`, plus one; 0: never.
    last: AtomicU64,
}

impl Outage {
    pub(super) fn new(clock: Clock) -> Self {
        Self { started: clock.mono(), last: AtomicU64::new(0) }
    }

    pub(super) fn report(&self, now: Instant) {
        self.last.store(self.millis(now) + 1, Ordering::Relaxed);
    }

    pub(super) fn is_on(&self, now: Instant) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last != 0 && u128::from(self.millis(now).saturating_sub(last - 1)) < OUTAGE.as_millis()
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX - 1)
    }
}
