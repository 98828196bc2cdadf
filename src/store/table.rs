//! The operations on a table's rows.
//!
//! Creating, changing and deleting are different operations with different conditions: a create never replaces a row, and
//! a change never creates one.
//!
//! The SDK retries a write whose response is lost. If DynamoDB executed the first attempt, the condition of the second one
//! fails, as it would after another writer's change. [`Table::change`] distinguishes the two by a random value that each
//! change sets in the row ([`WRITE_MARK`]), and [`Table::create`] and [`Table::rotate`] by the new row's key, a random id
//! that no other writer has. After a change, an equal row proves nothing, since two writers may write the same. If the
//! outcome of a write is unknown, the operation fails as [`StoreError::Unavailable`] and is not acknowledged.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    ConsumedCapacity, ReturnConsumedCapacity, ReturnValue, ReturnValuesOnConditionCheckFailure,
};

use crate::format::{Update, WriteCondition};
use crate::item::{Attribute, Item, Key, KeyType};
use crate::telemetry::metrics::TableMetrics;
use crate::time::Clock;

use super::StoreError;
use super::attempts::AttemptTracker;
use super::attribute::{SdkItem, item_from_sdk, item_to_sdk, to_sdk};
use super::conflict::is_conflict;
use super::expression::Placeholders;
use super::sdk_error::{outcome_label, store_error};
use super::write_health::WriteHealth;

/// DynamoDB's limit on the size of a partition key.
const MAX_KEY_BYTES: usize = 2048;
/// The attribute that each change sets to a random value. Frameworks ignore attributes that are not theirs.
pub const WRITE_MARK: &str = "sessiongate_write";
/// The key that probes read. No format generates such ids.
const PROBE: &str = "sessiongate: is the table there?";

/// A table with its key attribute. Cheap to clone.
#[derive(Clone)]
pub struct Table(Arc<Inner>);

struct Inner {
    client: Client,
    name: String,
    key_attribute: String,
    key_type: KeyType,
    metrics: Option<TableMetrics>,
    writes: WriteHealth,
}

/// The consistency of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// May miss recent writes, and costs half as much.
    Eventual,
    /// Sees every write that was acknowledged before the read.
    Strong,
}

/// The outcome of [`Table::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateOutcome {
    /// The row was created.
    Created,
    /// A row with this key exists and was not changed.
    AlreadyExists,
}

/// The outcome of a conditional write.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionalWrite {
    /// The row was written.
    Done,
    /// Nothing was written, since a condition did not hold or every attempt conflicted with a transaction on the row.
    /// Contains the current row, or `None` if there is none.
    Refused(Option<Item>),
}

impl Table {
    pub(super) fn new(client: Client, name: &str, key_attribute: &str, key_type: KeyType) -> Self {
        Self(Arc::new(Inner {
            client,
            name: name.to_owned(),
            key_attribute: key_attribute.to_owned(),
            key_type,
            metrics: None,
            writes: WriteHealth::default(),
        }))
    }

    /// Returns the same table with metrics for its operations.
    #[must_use]
    pub fn with_metrics(&self, metrics: TableMetrics) -> Self {
        let Inner { client, name, key_attribute, key_type, .. } = &*self.0;
        Self(Arc::new(Inner {
            client: client.clone(),
            name: name.clone(),
            key_attribute: key_attribute.clone(),
            key_type: *key_type,
            metrics: Some(metrics),
            writes: WriteHealth::default(),
        }))
    }

    /// Checks that rows can be read, by reading one that does not exist.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let key = match self.key_type() {
            KeyType::String => Key::string(PROBE),
            KeyType::Binary => Key::binary(PROBE.as_bytes()),
        };
        self.get(&key, Read::Eventual).await.map(|_| ())
    }

    /// Returns the label of the error if recent writes have failed. Sends nothing: a test write would cost money and change
    /// the table.
    pub fn write_failure(&self) -> Option<&'static str> {
        self.0.writes.failing(Clock.mono())
    }

    /// Awaits the operation `sending`, and records its outcome and duration, and the capacity that `units` finds in its
    /// output.
    pub(super) async fn timed<A, E>(
        &self,
        operation: &'static str,
        sending: impl Future<Output = Result<A, SdkError<E, HttpResponse>>>,
        units: impl FnOnce(&A) -> Option<f64>,
    ) -> Result<A, SdkError<E, HttpResponse>>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let began = Clock.mono();
        let result = sending.await;
        let ended = Clock.mono();
        let (outcome, units) = match &result {
            Ok(output) => ("done", units(output)),
            Err(error) => (outcome_label(error), None),
        };
        if operation != "get" {
            self.0.writes.record(operation, outcome, ended);
        }
        if let Some(metrics) = &self.0.metrics {
            metrics.record_operation(operation, outcome, ended.saturating_duration_since(began), units);
        }
        result
    }

    /// Returns the table's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Returns the name of the key attribute.
    pub fn key_attribute(&self) -> &str {
        &self.0.key_attribute
    }

    /// Returns the type of the key attribute.
    pub fn key_type(&self) -> KeyType {
        self.0.key_type
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    /// Reads a row.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access.
    pub async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, StoreError> {
        // No row has such a key. DynamoDB would reject the request as invalid, but the id comes from the client.
        if !(1..=MAX_KEY_BYTES).contains(&key.expose_bytes().len()) {
            return Ok(None);
        }
        let request = self.client().get_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request
            .consistent_read(matches!(read, Read::Strong))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.timed("get", request.send(), |output| units(output.consumed_capacity())).await;
        let output = output.map_err(|error| store_error(&error, self.name()))?;
        output.item.map(item_from_sdk).transpose()
    }

    /// Creates a row unless one with its key exists. The key must be a new random id: if the outcome of an attempt is
    /// unknown, a row with this key then proves that this call created it.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access. The row may have been created nevertheless.
    pub async fn create(&self, item: Item) -> Result<CreateOutcome, StoreError> {
        let attempts = AttemptTracker::default();
        let created = item.get(self.key_attribute()).and_then(Key::from_attribute);
        let mut placeholders = Placeholders::default();
        let condition = placeholders.condition(self.key_attribute(), &[WriteCondition::Absent]);
        let request = self.client().put_item().table_name(self.name()).set_item(Some(item_to_sdk(item)));
        let request = request
            .condition_expression(condition)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_expression_attribute_names(Some(placeholders.names()));
        let request = request.customize().interceptor(attempts.clone());
        let created_row =
            self.timed("create", request.send(), |output| units(output.consumed_capacity())).await;
        let Err(error) = created_row else { return Ok(CreateOutcome::Created) };
        if let Some(PutItemError::ConditionalCheckFailedException(_)) = error.as_service_error() {
            let is_ours = attempts.has_unknown_outcome() && self.contains(created).await?;
            return Ok(if is_ours { CreateOutcome::Created } else { CreateOutcome::AlreadyExists });
        }
        Err(store_error(&error, self.name()))
    }

    /// Changes an existing row if all conditions hold. [`ConditionalWrite::Done`] means that this call changed it, and
    /// [`ConditionalWrite::Refused`] that it did not.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access, or if it is unknown whether the row was changed.
    pub async fn change(&self, key: &Key, update: &Update) -> Result<ConditionalWrite, StoreError> {
        let mark = getrandom::u64().map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let mark = Attribute::Binary(mark.to_be_bytes().to_vec());
        let mut update = update.clone();
        update.set.push((WRITE_MARK.to_owned(), mark.clone()));
        let attempts = AttemptTracker::default();
        match self.send_update(key, &update, attempts.clone()).await? {
            ConditionalWrite::Refused(Some(row)) if row.get(WRITE_MARK) == Some(&mark) => {
                Ok(ConditionalWrite::Done)
            }
            ConditionalWrite::Refused(_) if attempts.has_unknown_outcome() => Err(unknown_outcome()),
            written @ (ConditionalWrite::Done | ConditionalWrite::Refused(_)) => Ok(written),
        }
    }

    /// Sets attributes of an existing row if all conditions hold. The outcome may be `Refused` although an earlier attempt
    /// of this call was executed, so use it only if it does not matter which writer succeeds, as for a reissue.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access. The row may have been changed nevertheless.
    pub async fn update(&self, key: &Key, update: &Update) -> Result<ConditionalWrite, StoreError> {
        self.send_update(key, update, AttemptTracker::default()).await
    }

    async fn send_update(
        &self,
        key: &Key,
        update: &Update,
        attempts: AttemptTracker,
    ) -> Result<ConditionalWrite, StoreError> {
        let mut placeholders = Placeholders::default();
        let set = placeholders.set(&update.set);
        let condition = placeholders.condition_on_existing(self.key_attribute(), &update.conditions);
        let request = self.client().update_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request
            .set_update_expression(set)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(placeholders.names()))
            .set_expression_attribute_values(placeholders.into_values())
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let request = request.customize().interceptor(attempts);
        let updated = self.timed("update", request.send(), |output| units(output.consumed_capacity())).await;
        let Err(error) = updated else { return Ok(ConditionalWrite::Done) };
        if let Some(UpdateItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
            return self.refused(refusal.item.clone(), Some(key)).await;
        }
        if is_conflict(&error) {
            return self.refused(None, Some(key)).await;
        }
        Err(store_error(&error, self.name()))
    }

    /// Deletes a row and returns its contents, or `None` if there was none.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access. The row may have been deleted nevertheless.
    pub async fn delete_returning(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let request = self.client().delete_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request
            .return_values(ReturnValue::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = self.timed("delete", request.send(), |output| units(output.consumed_capacity())).await;
        let output = output.map_err(|error| store_error(&error, self.name()))?;
        output.attributes.filter(|item| !item.is_empty()).map(item_from_sdk).transpose()
    }

    /// Deletes a row if all conditions hold. If there is no row, the outcome is `Refused(None)`, even without conditions.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access, or if it is unknown whether this call deleted the
    /// row.
    pub async fn delete(
        &self,
        key: &Key,
        conditions: &[WriteCondition],
    ) -> Result<ConditionalWrite, StoreError> {
        let request = self.client().delete_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let mut placeholders = Placeholders::default();
        let condition = placeholders.condition_on_existing(self.key_attribute(), conditions);
        let request = request
            .condition_expression(condition)
            .set_expression_attribute_names(Some(placeholders.names()))
            .set_expression_attribute_values(placeholders.into_values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let attempts = AttemptTracker::default();
        let request = request.customize().interceptor(attempts.clone());
        let deleted = self.timed("delete", request.send(), |output| units(output.consumed_capacity())).await;
        let Err(error) = deleted else { return Ok(ConditionalWrite::Done) };
        let row = match error.as_service_error() {
            Some(DeleteItemError::ConditionalCheckFailedException(refusal)) => refusal.item.clone(),
            _ if is_conflict(&error) => None,
            _ => return Err(store_error(&error, self.name())),
        };
        match self.refused(row, Some(key)).await? {
            ConditionalWrite::Refused(None) if attempts.has_unknown_outcome() => Err(unknown_outcome()),
            written @ (ConditionalWrite::Done | ConditionalWrite::Refused(_)) => Ok(written),
        }
    }

    /// Starts a scan of the table, in no particular order.
    pub fn scan(&self, options: ScanOptions) -> Scan {
        Scan { table: self.clone(), options, position: Position::After(None), consumed_units: None }
    }

    /// Returns the outcome of a write that was refused with `row`. If the error contains no row, one may still
    /// exist, since the write conflicted with a transaction or the server does not support
    /// `ReturnValuesOnConditionCheckFailure`. So the row of `key` is read.
    async fn refused(&self, row: Option<SdkItem>, key: Option<&Key>) -> Result<ConditionalWrite, StoreError> {
        let row = match (row.filter(|row| !row.is_empty()), key) {
            (Some(row), _) => Some(item_from_sdk(row)?),
            (None, Some(key)) => self.get(key, Read::Strong).await?,
            (None, None) => None,
        };
        Ok(ConditionalWrite::Refused(row))
    }

    /// Returns whether the table has a row with this key. The rest of the row is not compared, since DynamoDB returns numbers
    /// in another form than they were sent: 10.0 as 10.
    pub(super) async fn contains(&self, key: Option<Key>) -> Result<bool, StoreError> {
        match key {
            Some(key) => Ok(self.get(&key, Read::Strong).await?.is_some()),
            None => Ok(false),
        }
    }

    pub(super) fn key(&self, key: &Key) -> SdkItem {
        SdkItem::from([(self.0.key_attribute.clone(), to_sdk(key.to_attribute()))])
    }
}

/// Returns the error of a write that may or may not have been executed.
fn unknown_outcome() -> StoreError {
    StoreError::Unavailable(
        "the response to a write was lost, and the row does not show its outcome".to_owned(),
    )
}

/// Returns the capacity units that an operation consumed, if the response has them.
fn units(consumed: Option<&ConsumedCapacity>) -> Option<f64> {
    consumed.and_then(ConsumedCapacity::capacity_units)
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("name", &self.0.name)
            .field("key_attribute", &self.0.key_attribute)
            .field("key_type", &self.0.key_type)
            .finish_non_exhaustive()
    }
}

/// The parameters of a scan.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// Maximum number of rows of a page; at least one. DynamoDB also ends a page at 1 MB.
    pub page_size: u16,
    /// The segment to scan; `None` for the whole table. The segments of a table can be scanned in parallel.
    pub segment: Option<Segment>,
}

/// A segment of a parallel scan.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The segment's number, from 0.
    pub index: u16,
    /// The number of segments.
    pub total: u16,
}

/// A scan in progress.
#[derive(Debug)]
pub struct Scan {
    table: Table,
    options: ScanOptions,
    position: Position,
    consumed_units: Option<f64>,
}

enum Position {
    /// After this key; `None` at the beginning.
    After(Option<SdkItem>),
    End,
}

/// Omits the key, which may be a session's id.
impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::After(None) => "Beginning",
            Self::After(Some(_)) => "After(..)",
            Self::End => "End",
        })
    }
}

impl Scan {
    /// Reads the next page, which may be empty. Returns `None` at the end of the segment. Reads are eventually consistent.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access. The next call reads the same page again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Item>>, StoreError> {
        let Position::After(start) = &self.position else { return Ok(None) };
        let request = self.table.client().scan().table_name(self.table.name());
        let request =
            request.limit(i32::from(self.options.page_size.max(1))).set_exclusive_start_key(start.clone());
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = match self.options.segment {
            Some(Segment { index, total }) => {
                request.segment(i32::from(index)).total_segments(i32::from(total))
            }
            None => request,
        };
        let output = request.send().await.map_err(|error| store_error(&error, self.table.name()))?;
        let rows = output.items.unwrap_or_default().into_iter().map(item_from_sdk);
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        self.consumed_units = output.consumed_capacity.and_then(|consumed| consumed.capacity_units);
        self.position = match output.last_evaluated_key {
            Some(key) if !key.is_empty() => Position::After(Some(key)),
            Some(_) | None => Position::End,
        };
        Ok(Some(rows))
    }

    /// Returns the read capacity units that the last page consumed, if the response had them.
    pub fn consumed_units(&self) -> Option<f64> {
        self.consumed_units
    }
}
