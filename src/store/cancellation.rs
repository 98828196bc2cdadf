//! The reasons for which DynamoDB cancels a transaction. A cancelled transaction has written nothing.

use std::error::Error;

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::CancellationReason;

/// The reason for which a transaction was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cancellation {
    /// The condition of the write with this index did not hold.
    ConditionFailed(usize),
    /// Another writer was writing one of the rows.
    Conflict,
    /// DynamoDB throttles the table or the account.
    Throttled,
    /// A row would exceed DynamoDB's size limit.
    TooLarge,
    /// Another reason, such as a key that occurs twice.
    Other,
}

impl Cancellation {
    /// Returns the reason in `error`, or `None` if it is not the error of a cancelled transaction.
    pub(super) fn from_error(error: &(dyn Error + 'static)) -> Option<Self> {
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) = error.downcast_ref()
        else {
            return None;
        };
        // There is a reason for each write; its code is the string "None" if the write did not fail.
        let codes: Vec<_> = cancelled.cancellation_reasons().iter().map(CancellationReason::code).collect();
        let has = |code: &str| codes.contains(&Some(code));
        Some(match codes.iter().position(|code| *code == Some("ConditionalCheckFailed")) {
            Some(index) => Self::ConditionFailed(index),
            None if has("TransactionConflict") => Self::Conflict,
            None if has("ThrottlingError") || has("ProvisionedThroughputExceeded") => Self::Throttled,
            None if has("ValidationError") => Self::TooLarge,
            None => Self::Other,
        })
    }
}
