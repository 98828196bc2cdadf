//! Changing a session's key: one transaction creates the new row and retires the old one, so that no failure leaves both
//! sessions alive, or neither.

use aws_sdk_dynamodb::types::{
    ConsumedCapacity, Delete, Put, ReturnConsumedCapacity, TransactWriteItem, Update as SdkUpdate,
};

use crate::format::{Update, WriteCondition};
use crate::item::{Item, Key};

use super::StoreError;
use super::attempts::AttemptTracker;
use super::attribute::item_to_sdk;
use super::cancellation::Cancellation;
use super::expression::Placeholders;
use super::sdk_error::store_error;
use super::table::Table;

/// The index of the new row's write in the transaction.
const NEW: usize = 0;

/// The write that retires the row of the old key.
#[derive(Clone, Debug, PartialEq)]
pub enum Retirement {
    /// Updates the row, so that it can be read for a short time.
    Update(Update),
    /// Deletes the row if these conditions hold.
    Delete(Vec<WriteCondition>),
}

/// The outcome of [`Table::rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationOutcome {
    /// Both rows were written.
    Done,
    /// The old row has changed, or is being written by another transaction. Nothing was written.
    Refused,
    /// A row with the new key exists. Nothing was written.
    KeyExists,
}

impl Table {
    /// Creates the row `new` and retires the row of `old`, atomically.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access. The transaction may have been executed nevertheless.
    pub async fn rotate(
        &self,
        new: Item,
        old: &Key,
        retirement: &Retirement,
    ) -> Result<RotationOutcome, StoreError> {
        let created = new.get(self.key_attribute()).and_then(Key::from_attribute);
        let request = self
            .client()
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().put(self.put_new(new)?).build())
            .transact_items(self.retire(old, retirement)?)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        // The SDK sends all attempts with one ClientRequestToken, so DynamoDB executes the transaction once.
        let attempts = AttemptTracker::default();
        let sending = request.customize().interceptor(attempts.clone()).send();
        let rotated = self.timed("rotate", sending, |output| {
            Some(output.consumed_capacity().iter().filter_map(ConsumedCapacity::capacity_units).sum())
        });
        let Err(error) = rotated.await else { return Ok(RotationOutcome::Done) };
        let service = error.as_service_error();
        match service.and_then(|service| Cancellation::from_error(service)) {
            Some(Cancellation::ConditionFailed(NEW)) => {
                // The key is a random id of this call, so an earlier attempt has created its row.
                let is_ours = attempts.has_unknown_outcome() && self.contains(created).await?;
                Ok(if is_ours { RotationOutcome::Done } else { RotationOutcome::KeyExists })
            }
            Some(Cancellation::ConditionFailed(_) | Cancellation::Conflict) => Ok(RotationOutcome::Refused),
            Some(Cancellation::Throttled | Cancellation::TooLarge | Cancellation::Other) | None => {
                Err(store_error(&error, self.name()))
            }
        }
    }

    fn put_new(&self, new: Item) -> Result<Put, StoreError> {
        let mut placeholders = Placeholders::default();
        let condition = placeholders.condition(self.key_attribute(), &[WriteCondition::Absent]);
        Put::builder()
            .table_name(self.name())
            .set_item(Some(item_to_sdk(new)))
            .condition_expression(condition)
            .set_expression_attribute_names(Some(placeholders.names()))
            .build()
            .map_err(|_| StoreError::Invalid("the SDK cannot build the request".to_owned()))
    }

    fn retire(&self, old: &Key, retirement: &Retirement) -> Result<TransactWriteItem, StoreError> {
        let mut placeholders = Placeholders::default();
        let invalid = |_| StoreError::Invalid("the SDK cannot build the request".to_owned());
        let item = TransactWriteItem::builder();
        Ok(match retirement {
            Retirement::Update(update) => {
                let set = placeholders.set(&update.set);
                let condition = placeholders.condition_on_existing(self.key_attribute(), &update.conditions);
                let update = SdkUpdate::builder()
                    .table_name(self.name())
                    .set_key(Some(self.key(old)))
                    .set_update_expression(set)
                    .condition_expression(condition)
                    .set_expression_attribute_names(Some(placeholders.names()))
                    .set_expression_attribute_values(placeholders.into_values());
                item.update(update.build().map_err(invalid)?)
            }
            Retirement::Delete(conditions) => {
                let condition = placeholders.condition_on_existing(self.key_attribute(), conditions);
                let delete = Delete::builder()
                    .table_name(self.name())
                    .set_key(Some(self.key(old)))
                    .condition_expression(condition)
                    .set_expression_attribute_names(Some(placeholders.names()))
                    .set_expression_attribute_values(placeholders.into_values());
                item.delete(delete.build().map_err(invalid)?)
            }
        }
        .build())
    }
}
