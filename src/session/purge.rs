//! Deletion of expired sessions. DynamoDB's TTL deletes them within days, if it is enabled and the format has an attribute
//! for it. A purge deletes them now, in every format.
//!
//! 1. A row is deleted if its format decodes it and the session has expired. A row that cannot be decoded is kept, and
//!    counted by reason, except for empty rows with [`EmptyRows::Expire`]. A row without a creation time is also kept
//!    if the realm has a lifetime.
//! 2. The delete is conditional on every attribute that was read. A session that was used, changed or recreated meanwhile
//!    is kept.
//! 3. If DynamoDB throttles requests, the purge retries with backoff until the throttling ends.

mod bucket;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;

use super::judge::{Policy, SessionVerdict, judge};
use crate::format::{Format, RowFault, WriteCondition};
use crate::item::{Attribute, Item, Key, Number};
use crate::store::StoreError;
use crate::store::table::{ConditionalWrite, ScanOptions, Segment, Table};
use crate::time::{Clock, Timestamp};

use bucket::Bucket;

/// Maximum number of rows per page. DynamoDB also ends a page at 1 MB.
const PAGE_SIZE: u16 = 1000;
/// Maximum number of concurrent deletes of each segment.
const MAX_DELETES: usize = 8;
/// Maximum number of attributes that a condition can compare: DynamoDB limits expressions to 4 KB and 300 operators.
const MAX_COMPARED: usize = 200;
/// Backoff after the first failure; it doubles with each consecutive one.
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
/// Maximum backoff.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// Maximum number of consecutive attempts while DynamoDB is unavailable. Throttled requests are retried without a limit.
const MAX_ATTEMPTS: u32 = 8;
/// Maximum time between two progress reports while the purge waits for read capacity.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Which rows are deleted.
#[derive(Clone, Copy, Debug)]
pub struct PurgeRules<'p> {
    /// The format of the rows.
    pub format: &'p dyn Format,
    /// The timeouts of the sessions.
    pub policy: Policy,
    /// How rows without claims are handled.
    pub empty: EmptyRows,
}

/// A purge of a table.
#[derive(Debug)]
pub struct Purge<'p> {
    /// The table.
    pub table: &'p Table,
    /// Which rows are deleted.
    pub rules: PurgeRules<'p>,
    /// Whether expired sessions are deleted or only counted.
    pub mode: PurgeMode,
    /// The number of segments of the table, which are scanned in parallel.
    pub segments: NonZeroU16,
    /// Limit on the read capacity units per second of the scan; `None` for no limit.
    pub max_rcu: Option<NonZeroU32>,
}

/// Whether expired sessions are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeMode {
    /// Expired sessions are deleted.
    Delete,
    /// Expired sessions are counted.
    Count,
}

/// How rows without claims are handled, which some frameworks leave behind after a log-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyRows {
    /// They are kept, like all rows that are not valid sessions.
    Keep,
    /// They expire at the time in their TTL attribute.
    Expire,
}

/// The decision about a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Keep the row: the session is live.
    Live,
    /// The session has expired: delete the row with this key under these conditions.
    Expired(Key, Vec<WriteCondition>),
    /// Keep the row, for this reason.
    Keep(KeepReason),
}

/// The reason why a row that is not a live session is kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepReason {
    /// The row is not a valid session.
    #[error(transparent)]
    Fault(#[from] RowFault),
    /// The realm has a lifetime, and the row does not record when the session was created, such as a row of
    /// django-dynamodb-sessions 0.6.
    #[error("the row does not say when the session was created")]
    NoCreationTime,
    /// The row has more attributes than a condition can compare.
    #[error("the row has more than {MAX_COMPARED} attributes")]
    TooManyAttributes,
    /// The row's key is missing or of the wrong type.
    #[error("the row's key is missing or has the wrong type")]
    Key,
}

/// The progress or result of a purge.
#[derive(Clone, Debug, Default)]
pub struct PurgeTotals {
    /// Rows read.
    pub scanned: u64,
    /// Live sessions among the rows read.
    pub live: u64,
    /// Expired sessions among the rows read.
    pub expired: u64,
    /// Expired sessions that were deleted.
    pub deleted: u64,
    /// Expired sessions that were kept because they were used or changed after they were read.
    pub changed: u64,
    /// Expired sessions that another writer deleted.
    pub deleted_by_others: u64,
    /// Rows kept for other reasons, by reason.
    pub kept: BTreeMap<String, u64>,
    /// Read capacity units consumed.
    pub read_units: f64,
    /// The number of waits because DynamoDB throttled requests or was unavailable.
    pub pauses: u64,
}

/// How a purge ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeEnd {
    /// The whole table was purged.
    Complete,
    /// The purge was stopped.
    Stopped,
}

/// Decides whether the row `item` is deleted.
pub fn decide(rules: &PurgeRules<'_>, item: &Item, now: Timestamp) -> Decision {
    let is_expired = match rules.format.decode(item) {
        Ok(record) if rules.policy.lifetime.is_some() && record.created.is_none() => {
            // The session is refused while the lifetime is configured, and would be valid again without it.
            return Decision::Keep(KeepReason::NoCreationTime);
        }
        Ok(record) => match judge(&rules.policy, &record, now) {
            SessionVerdict::Live(_) => false,
            SessionVerdict::Idle | SessionVerdict::TooOld => true,
        },
        Err(RowFault::Empty)
            if rules.empty == EmptyRows::Expire && ttl_has_passed(rules.format, item, now) =>
        {
            true
        }
        Err(fault) => return Decision::Keep(KeepReason::Fault(fault)),
    };
    if !is_expired {
        return Decision::Live;
    }
    let key_attribute = rules.format.key_schema().attribute;
    let Some(key) = item.get(key_attribute).and_then(Key::from_attribute) else {
        return Decision::Keep(KeepReason::Key);
    };
    if item.len() > MAX_COMPARED {
        return Decision::Keep(KeepReason::TooManyAttributes);
    }
    let others = item.iter().filter(|(name, _)| *name != key_attribute);
    Decision::Expired(
        key,
        others.map(|(name, value)| WriteCondition::Equals(name.clone(), value.clone())).collect(),
    )
}

fn ttl_has_passed(format: &dyn Format, item: &Item, now: Timestamp) -> bool {
    let attribute = format.ttl_attribute().and_then(|name| item.get(name));
    let end = attribute.and_then(Attribute::as_number).and_then(Number::as_unix_seconds);
    end.is_some_and(|end| end < now)
}

impl PurgeTotals {
    /// Returns the number of rows that are processed completely.
    pub fn settled(&self, mode: PurgeMode) -> u64 {
        match mode {
            PurgeMode::Count => self.scanned,
            PurgeMode::Delete => (self.scanned + self.deleted + self.changed + self.deleted_by_others)
                .saturating_sub(self.expired),
        }
    }
}

impl Purge<'_> {
    /// Purges the table until its end or until `stop`. Calls `progress` after every page and delete, and before every wait.
    ///
    /// Returns the totals even if the purge fails. A delete whose response was lost may count as another writer's.
    pub async fn run(
        &self,
        stop: &CancellationToken,
        progress: &dyn Fn(&PurgeTotals),
    ) -> (PurgeTotals, Result<PurgeEnd, StoreError>) {
        let run = Run {
            purge: self,
            // A segment that fails stops the others, which finish their current operation.
            stop: stop.child_token(),
            progress,
            totals: RefCell::default(),
            bucket: self.max_rcu.map(|rate| RefCell::new(Bucket::new(rate, Clock.mono()))),
        };
        let ended = join_all((0..self.segments.get()).map(|index| run.segment(index))).await;
        let ended = ended.into_iter().collect::<Result<Vec<_>, _>>();
        let ended =
            ended.map(
                |ends| {
                    if ends.contains(&PurgeEnd::Stopped) { PurgeEnd::Stopped } else { PurgeEnd::Complete }
                },
            );
        (run.totals.into_inner(), ended)
    }

    /// Returns the page size: with rows of 4 KB, a page costs the read capacity of one second, but it has at least 10 rows.
    fn page_size(&self) -> u16 {
        let affordable =
            self.max_rcu.map(|rate| u16::try_from(rate.get().saturating_mul(2)).unwrap_or(PAGE_SIZE));
        affordable.unwrap_or(PAGE_SIZE).clamp(10, PAGE_SIZE)
    }
}

/// A purge in progress.
struct Run<'r> {
    purge: &'r Purge<'r>,
    stop: CancellationToken,
    progress: &'r dyn Fn(&PurgeTotals),
    totals: RefCell<PurgeTotals>,
    bucket: Option<RefCell<Bucket>>,
}

/// Exponential backoff.
struct Backoff {
    /// The next pause.
    pause: Duration,
    /// Consecutive failures while DynamoDB is unavailable.
    outages: u32,
}

impl Run<'_> {
    async fn segment(&self, index: u16) -> Result<PurgeEnd, StoreError> {
        let ended = self.purge_segment(index).await;
        if ended.is_err() {
            self.stop.cancel();
        }
        ended
    }

    async fn purge_segment(&self, index: u16) -> Result<PurgeEnd, StoreError> {
        let Purge { table, .. } = *self.purge;
        let segment = Some(Segment { index, total: self.purge.segments.get() });
        let mut scan = table.scan(ScanOptions { page_size: self.purge.page_size(), segment });
        let mut backoff = Backoff::new();
        loop {
            self.wait_for_capacity().await;
            if self.stop.is_cancelled() {
                return Ok(PurgeEnd::Stopped);
            }
            let rows = match scan.next_page().await {
                Ok(Some(rows)) => rows,
                Ok(None) => return Ok(PurgeEnd::Complete),
                Err(error) => {
                    self.back_off(error, &mut backoff).await?;
                    continue;
                }
            };
            backoff = Backoff::new();
            // If the response does not contain the cost, count half a unit for each row.
            #[expect(clippy::cast_precision_loss, reason = "a page is small")]
            self.debit(scan.consumed_units().unwrap_or(rows.len() as f64 / 2.0));
            let expired = self.find_expired(&rows);
            if self.purge.mode == PurgeMode::Delete {
                let deletes = stream::iter(expired).map(Ok);
                let delete = |(key, conditions)| self.delete(key, conditions);
                deletes.try_for_each_concurrent(MAX_DELETES, delete).await?;
            }
            self.report();
        }
    }

    /// Counts the rows of a page, and returns the expired ones, with the conditions of their deletes.
    fn find_expired(&self, rows: &[Item]) -> Vec<(Key, Vec<WriteCondition>)> {
        let now = Clock.wall();
        let mut totals = self.totals.borrow_mut();
        let mut expired = Vec::new();
        for row in rows {
            totals.scanned += 1;
            match decide(&self.purge.rules, row, now) {
                Decision::Live => totals.live += 1,
                Decision::Expired(key, conditions) => {
                    totals.expired += 1;
                    expired.push((key, conditions));
                }
                Decision::Keep(reason) => *totals.kept.entry(reason.to_string()).or_default() += 1,
            }
        }
        expired
    }

    async fn delete(&self, key: Key, conditions: Vec<WriteCondition>) -> Result<(), StoreError> {
        let mut backoff = Backoff::new();
        while !self.stop.is_cancelled() {
            match self.purge.table.delete(&key, &conditions).await {
                Ok(outcome) => {
                    self.count(&outcome);
                    self.report();
                    return Ok(());
                }
                Err(error) => {
                    let waited = self.back_off(error, &mut backoff).await;
                    if waited.is_err() {
                        self.stop.cancel();
                    }
                    waited?;
                }
            }
        }
        Ok(())
    }

    fn count(&self, outcome: &ConditionalWrite) {
        let mut totals = self.totals.borrow_mut();
        match outcome {
            ConditionalWrite::Done => totals.deleted += 1,
            ConditionalWrite::Refused(Some(_)) => totals.changed += 1,
            ConditionalWrite::Refused(None) => totals.deleted_by_others += 1,
        }
    }

    /// Waits until there is read capacity, or until `stop`.
    async fn wait_for_capacity(&self) {
        let Some(bucket) = &self.bucket else { return };
        while !self.stop.is_cancelled() {
            let wait = bucket.borrow_mut().wait(Clock.mono());
            if wait.is_zero() {
                return;
            }
            self.report();
            self.sleep(wait.min(REPORT_INTERVAL)).await;
        }
    }

    fn debit(&self, units: f64) {
        self.totals.borrow_mut().read_units += units;
        if let Some(bucket) = &self.bucket {
            bucket.borrow_mut().debit(units);
        }
    }

    /// Waits if the operation that failed with `error` is to be retried; otherwise returns `error`.
    async fn back_off(&self, error: StoreError, backoff: &mut Backoff) -> Result<(), StoreError> {
        if !backoff.is_retried(&error) {
            return Err(error);
        }
        tracing::debug!(%error, pause = ?backoff.pause, "the operation will be retried");
        self.totals.borrow_mut().pauses += 1;
        self.report();
        self.sleep(backoff.pause).await;
        backoff.pause = (backoff.pause * 2).min(MAX_BACKOFF);
        Ok(())
    }

    /// Sleeps for `duration` or until `stop`.
    async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn report(&self) {
        (self.progress)(&self.totals.borrow());
    }
}

impl Backoff {
    fn new() -> Self {
        Self { pause: INITIAL_BACKOFF, outages: 0 }
    }

    /// Returns whether an operation that has failed with `error` is retried.
    fn is_retried(&mut self, error: &StoreError) -> bool {
        self.outages = if matches!(error, StoreError::Unavailable(_)) { self.outages + 1 } else { 0 };
        match error {
            StoreError::Throttled => true,
            StoreError::Unavailable(_) => self.outages < MAX_ATTEMPTS,
            StoreError::Denied(_)
            | StoreError::NoSuchTable(_)
            | StoreError::TooLarge
            | StoreError::Invalid(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
