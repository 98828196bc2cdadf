//! Removing the rows of sessions that are over. DynamoDB's TTL does so within days, where it is enabled and the format
//! has an attribute for it; this does so now, for every format, by the format's own reading of the row.
//!
//! 1. A row goes if its format decodes it and the judge finds it dead. What does not decode is left alone, and counted
//!    by reason; so is what only looks dead because it does not say when it began.
//! 2. A row goes only as it was read: the delete is conditional on every attribute. A session that was used, changed or
//!    made anew in the meantime stays.
//! 3. A table that throttles is waited for, however long.

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

/// Rows of one page at most; DynamoDB ends it at 1 MB.
const PAGE: u16 = 1000;
/// Deletes under way at a time, in each segment.
const DELETES: usize = 8;
/// The most attributes that a condition can compare: an expression has at most 4 KB and 300 operators.
const MAX_COMPARED: usize = 200;
/// How long to leave a store alone that did not do what it was asked, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often in a row a store that cannot be reached is tried. One that is throttling is tried for ever.
const TRIES: u32 = 8;
/// How long to be silent at most while the read capacity is used up.
const NAP: Duration = Duration::from_secs(1);

/// Which rows go.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'p> {
    /// How rows are read.
    pub format: &'p dyn Format,
    /// When sessions are over.
    pub policy: Policy,
    /// What happens to rows without any data.
    pub empty: Empty,
}

/// What to purge, and how.
#[derive(Debug)]
pub struct Purge<'p> {
    /// The rows.
    pub table: &'p Table,
    /// Which of them are over.
    pub rules: Rules<'p>,
    /// What happens to those.
    pub mode: Mode,
    /// In how many parts the table is read, side by side.
    pub segments: NonZeroU16,
    /// How many read capacity units the reading may use a second; none: as many as it can.
    pub max_rcu: Option<NonZeroU32>,
}

/// What happens to rows that are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are deleted.
    Delete,
    /// They are counted.
    Count,
}

/// What happens to rows without any data, as frameworks leave them behind when a session is logged out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// They are left alone, like everything that is no session.
    Leave,
    /// They are over like sessions once their TTL attribute says so.
    Expire,
}

/// What there is to do with a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing: it is a session.
    Live,
    /// It is over: what to delete, and under which conditions.
    Over(Key, Vec<WriteCondition>),
    /// Nothing, for want of understanding.
    Leave(Reason),
}

/// Why a row is left alone that is no live session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The format does not decode it.
    #[error(transparent)]
    Fault(#[from] RowFault),
    /// The realm has a lifetime, and the row does not say when it began: one from before there was a lifetime.
    #[error("it does not say when the session was created")]
    Ageless,
    /// It has more attributes than a condition can compare.
    #[error("it has more than {MAX_COMPARED} attributes")]
    Wide,
    /// Its key is of a type that no session's is.
    #[error("its key is not a session's")]
    Key,
}

/// What was found and done so far.
#[derive(Clone, Debug, Default)]
pub struct PurgeTotals {
    /// Rows read.
    pub scanned: u64,
    /// Of these: sessions that are alive.
    pub live: u64,
    /// Of these: sessions that are over.
    pub over: u64,
    /// Of those that are over: deleted.
    pub deleted: u64,
    /// Of those that are over: left, because they were used or changed after they were read.
    pub changed: u64,
    /// Of those that are over: deleted by somebody else meanwhile.
    pub gone: u64,
    /// Of those that were read: left alone, by reason.
    pub left: BTreeMap<String, u64>,
    /// Read capacity units used.
    pub read_units: f64,
    /// How often the store asked to be left alone, or could not be reached.
    pub pauses: u64,
}

/// How a purge that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeEnd {
    /// At the end of the table.
    Complete,
    /// Before it, as was asked.
    Stopped,
}

/// Decides about the row `item`.
pub fn decide(rules: &Rules<'_>, item: &Item, now: Timestamp) -> Decision {
    let is_over = match rules.format.decode(item) {
        Ok(record) if rules.policy.lifetime.is_some() && record.created.is_none() => {
            // The judge turns such a session away, but taking the lifetime back would bring it back.
            return Decision::Leave(Reason::Ageless);
        }
        Ok(record) => match judge(&rules.policy, &record, now) {
            SessionVerdict::Live(_) => false,
            SessionVerdict::Idle | SessionVerdict::TooOld => true,
        },
        Err(RowFault::Empty) if rules.empty == Empty::Expire && ttl_has_passed(rules.format, item, now) => {
            true
        }
        Err(fault) => return Decision::Leave(Reason::Fault(fault)),
    };
    if !is_over {
        return Decision::Live;
    }
    let key_attribute = rules.format.key_schema().attribute;
    let Some(key) = item.get(key_attribute).and_then(Key::from_attribute) else {
        return Decision::Leave(Reason::Key);
    };
    if item.len() > MAX_COMPARED {
        return Decision::Leave(Reason::Wide);
    }
    let others = item.iter().filter(|(name, _)| *name != key_attribute);
    Decision::Over(
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
    /// Of the rows read, those with which there is nothing left to do.
    pub fn settled(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Count => self.scanned,
            Mode::Delete => {
                (self.scanned + self.deleted + self.changed + self.gone).saturating_sub(self.over)
            }
        }
    }
}

impl Purge<'_> {
    /// Goes through the table, until its end or until `stop`. `progress` is told of every page, delete and wait.
    ///
    /// Whatever the end, the tally is of what was done. A delete whose answer was lost may count as done by others.
    pub async fn run(
        &self,
        stop: &CancellationToken,
        progress: &dyn Fn(&PurgeTotals),
    ) -> (PurgeTotals, Result<PurgeEnd, StoreError>) {
        let run = Run {
            purge: self,
            // One part that fails stops the others, which finish what they are at.
            stop: stop.child_token(),
            progress,
            tally: RefCell::default(),
            bucket: self.max_rcu.map(|rate| RefCell::new(Bucket::new(rate, Clock.mono()))),
        };
        let ended = join_all((0..self.segments.get()).map(|index| run.segment(index))).await;
        let ended = ended.into_iter().collect::<Result<Vec<_>, _>>();
        let ending = ended.map(|endings| {
            if endings.contains(&PurgeEnd::Stopped) { PurgeEnd::Stopped } else { PurgeEnd::Complete }
        });
        (run.tally.into_inner(), ending)
    }

    /// So many rows that a page of them, each of 4 KB, costs what a second has; more than a handful in any case.
    fn page(&self) -> u16 {
        let affordable = self.max_rcu.map(|rate| u16::try_from(rate.get().saturating_mul(2)).unwrap_or(PAGE));
        affordable.unwrap_or(PAGE).clamp(10, PAGE)
    }
}

/// A purge under way.
struct Run<'r> {
    purge: &'r Purge<'r>,
    stop: CancellationToken,
    progress: &'r dyn Fn(&PurgeTotals),
    tally: RefCell<PurgeTotals>,
    bucket: Option<RefCell<Bucket>>,
}

/// How long to wait after the next failure, and how many there were in a row.
struct Patience {
    pause: Duration,
    failures: u32,
}

impl Run<'_> {
    async fn segment(&self, index: u16) -> Result<PurgeEnd, StoreError> {
        let ended = self.pages(index).await;
        if ended.is_err() {
            self.stop.cancel();
        }
        ended
    }

    async fn pages(&self, index: u16) -> Result<PurgeEnd, StoreError> {
        let Purge { table, .. } = *self.purge;
        let segment = Some(Segment { index, total: self.purge.segments.get() });
        let mut scan = table.scan(ScanOptions { page_size: self.purge.page(), segment });
        let mut patience = Patience::new();
        loop {
            self.save_up().await;
            if self.stop.is_cancelled() {
                return Ok(PurgeEnd::Stopped);
            }
            let rows = match scan.next_page().await {
                Ok(Some(rows)) => rows,
                Ok(None) => return Ok(PurgeEnd::Complete),
                Err(error) => {
                    self.endure(error, &mut patience).await?;
                    continue;
                }
            };
            patience = Patience::new();
            // Where the server does not say, each row counts as if it had been read by itself.
            #[expect(clippy::cast_precision_loss, reason = "a page is small")]
            self.spend(scan.consumed_units().unwrap_or(rows.len() as f64 / 2.0));
            let over = self.judge(&rows);
            if self.purge.mode == Mode::Delete {
                let deletes = stream::iter(over).map(Ok);
                deletes.try_for_each_concurrent(DELETES, |(key, as_read)| self.delete(key, as_read)).await?;
            }
            self.tell();
        }
    }

    /// Counts a page's rows, and says which of them are over.
    fn judge(&self, rows: &[Item]) -> Vec<(Key, Vec<WriteCondition>)> {
        let now = Clock.now().wall;
        let mut tally = self.tally.borrow_mut();
        let mut over = Vec::new();
        for row in rows {
            tally.scanned += 1;
            match decide(&self.purge.rules, row, now) {
                Decision::Live => tally.live += 1,
                Decision::Over(key, as_read) => {
                    tally.over += 1;
                    over.push((key, as_read));
                }
                Decision::Leave(reason) => *tally.left.entry(reason.to_string()).or_default() += 1,
            }
        }
        over
    }

    async fn delete(&self, key: Key, as_read: Vec<WriteCondition>) -> Result<(), StoreError> {
        let mut patience = Patience::new();
        while !self.stop.is_cancelled() {
            match self.purge.table.delete(&key, &as_read).await {
                Ok(written) => {
                    self.count(&written);
                    self.tell();
                    return Ok(());
                }
                Err(error) => {
                    let endured = self.endure(error, &mut patience).await;
                    if endured.is_err() {
                        self.stop.cancel();
                    }
                    endured?;
                }
            }
        }
        Ok(())
    }

    fn count(&self, written: &ConditionalWrite) {
        let mut tally = self.tally.borrow_mut();
        match written {
            ConditionalWrite::Done => tally.deleted += 1,
            ConditionalWrite::Refused(Some(_)) => tally.changed += 1,
            ConditionalWrite::Refused(None) => tally.gone += 1,
        }
    }

    /// Waits until there is read capacity.
    async fn save_up(&self) {
        let Some(bucket) = &self.bucket else { return };
        while !self.stop.is_cancelled() {
            let wait = bucket.borrow_mut().wait(Clock.mono());
            if wait.is_zero() {
                return;
            }
            self.tell();
            self.sleep(wait.min(NAP)).await;
        }
    }

    fn spend(&self, units: f64) {
        self.tally.borrow_mut().read_units += units;
        if let Some(bucket) = &self.bucket {
            bucket.borrow_mut().spend(units);
        }
    }

    /// Waits after a failure that may pass; any other is returned.
    async fn endure(&self, error: StoreError, patience: &mut Patience) -> Result<(), StoreError> {
        patience.failures += 1;
        let may_pass = match error {
            StoreError::Throttled => true,
            StoreError::Unavailable(_) => patience.failures < TRIES,
            StoreError::Denied(_)
            | StoreError::NoSuchTable(_)
            | StoreError::TooLarge
            | StoreError::Invalid(_) => false,
        };
        if !may_pass {
            return Err(error);
        }
        tracing::debug!(%error, pause = ?patience.pause, "the store is left alone for a while");
        self.tally.borrow_mut().pauses += 1;
        self.tell();
        self.sleep(patience.pause).await;
        patience.pause = (patience.pause * 2).min(PAUSES.1);
        Ok(())
    }

    /// Sleeps, unless it is to stop.
    async fn sleep(&self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.stop.cancelled() => {}
        }
    }

    fn tell(&self) {
        (self.progress)(&self.tally.borrow());
    }
}

impl Patience {
    fn new() -> Self {
        Self { pause: PAUSES.0, failures: 0 }
    }
}

#[cfg(test)]
mod tests;
