//! The operations on a table's rows.
//!
//! Creating, changing and deleting are different operations with different conditions: a create never replaces a row, and
//! a change never creates one.
//!
//! The SDK retries a write whose response is lost. If the first attempt was carried out, its own change makes the
//! condition of the second fail, which looks like another writer's. [`Table::change`] tells the two apart by a mark that
//! each change leaves in the row ([`WRITE_MARK`]), and [`Table::create`] and [`Table::rotate`] by the new row's key, which
//! is a random id of the writer's. An equal row proves nothing: two writers may write the same. Where it cannot be told
//! whether a write was carried out, the store is unavailable, and no writer is told "done".

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
use super::attempts::Attempts;
use super::attribute::{SdkItem, item_from_sdk, item_to_sdk, to_sdk};
use super::conflict::is_conflict;
use super::expression::Placeholders;
use super::fault::{outcome, store_error};
use super::write_health::WriteHealth;

/// The longest value of a key that DynamoDB takes.
const MAX_KEY_BYTES: usize = 2048;
/// The attribute that each change sets to a random value. The frameworks read their own attributes only.
pub const WRITE_MARK: &str = "sessiongate_write";
/// A key that no session has: no format makes ids like this.
const PROBE: &str = "sessiongate: is the table there?";

/// A table, by name and key. Cheap to clone.
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

/// How consistent a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// May miss the writes of the last moment; half the price.
    Eventual,
    /// Sees every write that was acknowledged before it.
    Strong,
}

/// What became of a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The row was made.
    Yes,
    /// A row with this key exists, and was left alone.
    AlreadyThere,
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// It was done.
    Done,
    /// A condition did not hold, or every attempt met a transaction on the row, and nothing was changed. With the row as it
    /// is, or `None` if there is no such row.
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

    /// The same table, whose operations are counted and timed.
    #[must_use]
    pub fn measured(&self, metrics: TableMetrics) -> Self {
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

    /// Makes sure that rows can be read now, by reading one that no session has.
    ///
    /// # Errors
    /// If the table does not answer, or refuses to.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let key = match self.key_type() {
            KeyType::String => Key::string(PROBE),
            KeyType::Binary => Key::binary(PROBE.as_bytes()),
        };
        self.get(&key, Read::Eventual).await.map(|_| ())
    }

    /// Returns why rows cannot be written, in one word, or `None` if the last writes did not fail. Asks nobody: a write
    /// to find out would cost, and change the table.
    pub fn unwritable(&self) -> Option<&'static str> {
        self.0.writes.failing(Clock.mono())
    }

    /// Waits for an operation, and counts and times it. `units` is what its answer says that it cost.
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
        let answer = sending.await;
        let ended = Clock.mono();
        let (outcome, units) = match &answer {
            Ok(answer) => ("done", units(answer)),
            Err(error) => (outcome(error), None),
        };
        if operation != "get" {
            self.0.writes.record(operation, outcome, ended);
        }
        if let Some(metrics) = &self.0.metrics {
            metrics.record_operation(operation, outcome, ended.saturating_duration_since(began), units);
        }
        answer
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The name of its key attribute.
    pub fn key_attribute(&self) -> &str {
        &self.0.key_attribute
    }

    /// The type of its key attribute.
    pub fn key_type(&self) -> KeyType {
        self.0.key_type
    }

    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }

    /// Reads a row.
    ///
    /// # Errors
    /// If the table does not answer, or refuses to.
    pub async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, StoreError> {
        // No row can have such a key. DynamoDB would call it a mistake in the request, and it is the client's.
        if !(1..=MAX_KEY_BYTES).contains(&key.expose_bytes().len()) {
            return Ok(None);
        }
        let request = self.client().get_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request
            .consistent_read(matches!(read, Read::Strong))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = self.timed("get", request.send(), |answer| units(answer.consumed_capacity())).await;
        let answer = answer.map_err(|error| store_error(&error, self.name()))?;
        answer.item.map(item_from_sdk).transpose()
    }

    /// Creates a row, unless there is one with its key. The key must be a new random id: a row that is equal to this one
    /// after an attempt of unknown outcome is then this call's.
    ///
    /// # Errors
    /// If the table does not answer, or refuses access. The row may have been created all the same.
    pub async fn create(&self, item: Item) -> Result<PutOutcome, StoreError> {
        let attempts = Attempts::default();
        let created = item.clone();
        let mut placeholders = Placeholders::default();
        let condition = placeholders.condition(self.key_attribute(), &[WriteCondition::Absent]);
        let request = self.client().put_item().table_name(self.name()).set_item(Some(item_to_sdk(item)));
        let request = request
            .condition_expression(condition)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .set_expression_attribute_names(Some(placeholders.names()));
        let request = request.customize().interceptor(attempts.clone());
        let sent = self.timed("create", request.send(), |answer| units(answer.consumed_capacity())).await;
        let Err(error) = sent else { return Ok(PutOutcome::Yes) };
        if let Some(PutItemError::ConditionalCheckFailedException(_)) = error.as_service_error() {
            let is_ours = attempts.are_uncertain() && self.holds(&created).await?;
            return Ok(if is_ours { PutOutcome::Yes } else { PutOutcome::AlreadyThere });
        }
        Err(store_error(&error, self.name()))
    }

    /// Changes a row that is there, if all the conditions hold. [`Written::Done`] means that this call changed it, and
    /// [`Written::Refused`] that it did not.
    ///
    /// # Errors
    /// If the table does not answer, or refuses access, or if it cannot be told whether the row was changed.
    pub async fn change(&self, key: &Key, update: &Update) -> Result<Written, StoreError> {
        let mark = getrandom::u64().map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let mark = Attribute::Binary(mark.to_be_bytes().to_vec());
        let mut update = update.clone();
        update.set.push((WRITE_MARK.to_owned(), mark.clone()));
        let attempts = Attempts::default();
        match self.send_update(key, &update, attempts.clone()).await? {
            Written::Refused(Some(row)) if row.get(WRITE_MARK) == Some(&mark) => Ok(Written::Done),
            Written::Refused(_) if attempts.are_uncertain() => Err(unknown_outcome()),
            written @ (Written::Done | Written::Refused(_)) => Ok(written),
        }
    }

    /// Sets some attributes of a row that is there, if all the conditions hold. A retry of a write that was carried out is
    /// `Refused`, so this is for writes whose writer does not matter, such as a reissue.
    ///
    /// # Errors
    /// If the table does not answer, or refuses access. The row may have been changed all the same.
    pub async fn update(&self, key: &Key, update: &Update) -> Result<Written, StoreError> {
        self.send_update(key, update, Attempts::default()).await
    }

    async fn send_update(
        &self,
        key: &Key,
        update: &Update,
        attempts: Attempts,
    ) -> Result<Written, StoreError> {
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
        let updated = self.timed("update", request.send(), |answer| units(answer.consumed_capacity())).await;
        let Err(error) = updated else { return Ok(Written::Done) };
        if let Some(UpdateItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
            return self.refused(refusal.item.clone(), Some(key)).await;
        }
        if is_conflict(&error) {
            return self.refused(None, Some(key)).await;
        }
        Err(store_error(&error, self.name()))
    }

    /// Deletes a row, and returns it as it was.
    ///
    /// # Errors
    /// If the table does not answer, or refuses access. The row may have been deleted all the same.
    pub async fn take(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let request = self.client().delete_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request
            .return_values(ReturnValue::AllOld)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let answer = self.timed("delete", request.send(), |answer| units(answer.consumed_capacity())).await;
        let answer = answer.map_err(|error| store_error(&error, self.name()))?;
        answer.attributes.filter(|item| !item.is_empty()).map(item_from_sdk).transpose()
    }

    /// Deletes a row, if all the conditions hold. A row that is not there is `Refused(None)`, also without conditions.
    ///
    /// # Errors
    /// If the table does not answer, or refuses access, or if it cannot be told whether the row was deleted by this call.
    pub async fn delete(&self, key: &Key, conditions: &[WriteCondition]) -> Result<Written, StoreError> {
        let request = self.client().delete_item().table_name(self.name()).set_key(Some(self.key(key)));
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let mut placeholders = Placeholders::default();
        let condition = placeholders.condition_on_existing(self.key_attribute(), conditions);
        let request = request
            .condition_expression(condition)
            .set_expression_attribute_names(Some(placeholders.names()))
            .set_expression_attribute_values(placeholders.into_values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let attempts = Attempts::default();
        let request = request.customize().interceptor(attempts.clone());
        let deleted = self.timed("delete", request.send(), |answer| units(answer.consumed_capacity())).await;
        let Err(error) = deleted else { return Ok(Written::Done) };
        let row = match error.as_service_error() {
            Some(DeleteItemError::ConditionalCheckFailedException(refusal)) => refusal.item.clone(),
            _ if is_conflict(&error) => None,
            _ => return Err(store_error(&error, self.name())),
        };
        match self.refused(row, Some(key)).await? {
            Written::Refused(None) if attempts.are_uncertain() => Err(unknown_outcome()),
            written @ (Written::Done | Written::Refused(_)) => Ok(written),
        }
    }

    /// All the rows, in no order, page by page.
    pub fn scan(&self, pages: Pages) -> Scan {
        Scan { table: self.clone(), pages, position: Position::After(None), cost: None }
    }

    /// An answer without a row means that there is none, or that the server is one that does not send it: reading it
    /// tells the two apart.
    async fn refused(&self, row: Option<SdkItem>, key: Option<&Key>) -> Result<Written, StoreError> {
        let row = match (row.filter(|row| !row.is_empty()), key) {
            (Some(row), _) => Some(item_from_sdk(row)?),
            (None, Some(key)) => self.get(key, Read::Strong).await?,
            (None, None) => None,
        };
        Ok(Written::Refused(row))
    }

    /// Returns whether the table has exactly this row.
    pub(super) async fn holds(&self, item: &Item) -> Result<bool, StoreError> {
        let Some(key) = item.get(self.key_attribute()).and_then(Key::from_attribute) else {
            return Ok(false);
        };
        Ok(self.get(&key, Read::Strong).await?.as_ref() == Some(item))
    }

    pub(super) fn key(&self, key: &Key) -> SdkItem {
        SdkItem::from([(self.0.key_attribute.clone(), to_sdk(key.to_attribute()))])
    }
}

/// The error of a write that may or may not have been carried out.
fn unknown_outcome() -> StoreError {
    StoreError::Unavailable(
        "the response to a write was lost, and the row does not tell its outcome".to_owned(),
    )
}

/// What an answer says that it cost.
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

/// How a scan is cut up.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// The most rows of a page, at least one. DynamoDB also ends a page at 1 MB.
    pub rows: u16,
    /// Which of how many equal parts of the table; scans of all parts can run side by side.
    pub segment: Option<Segment>,
}

/// A part of a table.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Counts from 0.
    pub index: u16,
    /// How many there are.
    pub total: u16,
}

/// A scan under way.
#[derive(Debug)]
pub struct Scan {
    table: Table,
    pages: Pages,
    position: Position,
    cost: Option<f64>,
}

enum Position {
    /// After this key, or at the beginning.
    After(Option<SdkItem>),
    End,
}

/// The key may be a session's id.
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
    /// The next page, possibly without rows; none at the end. Eventually consistent.
    ///
    /// # Errors
    /// If the table does not answer, or refuses to. The scan has not moved, and may go on.
    pub async fn next(&mut self) -> Result<Option<Vec<Item>>, StoreError> {
        let Position::After(start) = &self.position else { return Ok(None) };
        let request = self.table.client().scan().table_name(self.table.name());
        let request = request.limit(i32::from(self.pages.rows.max(1))).set_exclusive_start_key(start.clone());
        let request = request.return_consumed_capacity(ReturnConsumedCapacity::Total);
        let request = match self.pages.segment {
            Some(Segment { index, total }) => {
                request.segment(i32::from(index)).total_segments(i32::from(total))
            }
            None => request,
        };
        let answer = request.send().await.map_err(|error| store_error(&error, self.table.name()))?;
        let rows = answer.items.unwrap_or_default().into_iter().map(item_from_sdk);
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        self.cost = answer.consumed_capacity.and_then(|consumed| consumed.capacity_units);
        self.position = match answer.last_evaluated_key {
            Some(key) if !key.is_empty() => Position::After(Some(key)),
            Some(_) | None => Position::End,
        };
        Ok(Some(rows))
    }

    /// What the last page cost, in read capacity units, if the server said so.
    pub fn cost(&self) -> Option<f64> {
        self.cost
    }
}
