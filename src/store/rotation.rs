//! A session under a new key: the new row made and the old one retired in one transaction, so that no failure leaves
//! both alive, or neither.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConsumedCapacity, Delete, Put, ReturnConsumedCapacity, TransactWriteItem,
    Update as SdkUpdate,
};

use crate::format::{Update, WriteCondition};
use crate::item::{Item, Key};

use super::StoreError;
use super::attribute::item_to_sdk;
use super::expression::Placeholders;
use super::fault::store_error;
use super::table::Table;

/// What becomes of the row under the old key.
#[derive(Clone, Debug, PartialEq)]
pub enum Retirement {
    /// It is changed, to go on for a moment.
    Update(Update),
    /// It is deleted, if these conditions hold.
    Delete(Vec<WriteCondition>),
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// It was done.
    Done,
    /// The old row is not what it was taken for, and nothing was changed.
    Refused,
    /// There is a row under the new key, and nothing was changed.
    Taken,
}

impl Table {
    /// Makes the row `new` and retires the one of `old`, both or neither.
    ///
    /// # Errors
    /// If the table does not answer, or refuses to; it may have been done nevertheless.
    pub async fn rotate(&self, new: Item, old: &Key, retirement: &Retirement) -> Result<Rotated, StoreError> {
        let created = new.clone();
        let request = self
            .client()
            .transact_write_items()
            .transact_items(TransactWriteItem::builder().put(self.put_new(new)?).build())
            .transact_items(self.retire(old, retirement)?)
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        // The SDK sends one token with all tries of this call: a try that landed is not carried out again.
        let sending = request.send();
        let rotated = self.timed("rotate", sending, |answer| {
            Some(answer.consumed_capacity().iter().filter_map(ConsumedCapacity::capacity_units).sum())
        });
        let Err(error) = rotated.await else { return Ok(Rotated::Done) };
        if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        {
            let failed = |at: usize| {
                let reason = cancelled.cancellation_reasons().get(at);
                reason.and_then(CancellationReason::code) == Some("ConditionalCheckFailed")
            };
            if failed(0) {
                // The new row's key is a random id of this call's: the row is there because an attempt created it.
                return Ok(if self.holds(&created).await? { Rotated::Done } else { Rotated::Taken });
            }
            let code = |reason: &CancellationReason| reason.code().map(str::to_owned);
            let codes: Vec<_> = cancelled.cancellation_reasons().iter().filter_map(code).collect();
            // Somebody else is writing the row at this moment, so it will not be what it was taken for.
            if failed(1) || codes.iter().any(|code| code == "TransactionConflict") {
                return Ok(Rotated::Refused);
            }
            if codes.iter().any(|code| code == "ThrottlingError" || code == "ProvisionedThroughputExceeded") {
                return Err(StoreError::Throttled);
            }
            if codes.iter().any(|code| code == "ValidationError") {
                return Err(StoreError::TooLarge);
            }
        }
        Err(store_error(&error, self.name()))
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
            .map_err(|_| StoreError::Invalid("it cannot be built".to_owned()))
    }

    fn retire(&self, old: &Key, retirement: &Retirement) -> Result<TransactWriteItem, StoreError> {
        let mut placeholders = Placeholders::default();
        let unbuilt = |_| StoreError::Invalid("it cannot be built".to_owned());
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
                item.update(update.build().map_err(unbuilt)?)
            }
            Retirement::Delete(conditions) => {
                let condition = placeholders.condition_on_existing(self.key_attribute(), conditions);
                let delete = Delete::builder()
                    .table_name(self.name())
                    .set_key(Some(self.key(old)))
                    .condition_expression(condition)
                    .set_expression_attribute_names(Some(placeholders.names()))
                    .set_expression_attribute_values(placeholders.into_values());
                item.delete(delete.build().map_err(unbuilt)?)
            }
        }
        .build())
    }
}
