//! Writes that conflict with a transaction on their row. DynamoDB rejects them, and by default the SDK does not retry them.
//!
//! The transactions are changes of a session's id ([`super::rotation`]) in other gateways, which take some milliseconds.
//! So such a write is retried, within the operation's attempts and timeout. If the last attempt conflicts, too, the
//! outcome is a concurrent modification ([`super::table::ConditionalWrite::Refused`]), not an unavailable store.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

/// Returns whether a write was rejected because another one was writing the row: a transaction, or a write in another
/// region of a global table. Nothing was written.
pub(super) fn is_conflict<E>(error: &SdkError<E, HttpResponse>) -> bool
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let code = error.as_service_error().and_then(ProvideErrorMetadata::code);
    matches!(code, Some("TransactionConflictException" | "ReplicatedWriteConflictException"))
}

/// Makes the SDK retry writes that conflict with a transaction, with its usual backoff and jitter.
#[derive(Debug)]
pub(super) struct RetryConflicts;

impl ClassifyRetry for RetryConflicts {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(|result| result.err());
        let Some(error) = error.and_then(|error| error.as_operation_error()) else {
            return RetryAction::NoActionIndicated;
        };
        let is_conflict =
            matches!(error.downcast_ref(), Some(UpdateItemError::TransactionConflictException(_)))
                || matches!(error.downcast_ref(), Some(DeleteItemError::TransactionConflictException(_)))
                || matches!(error.downcast_ref(), Some(PutItemError::TransactionConflictException(_)));
        // Not classified as a transient error, since the SDK would then close the connection.
        if is_conflict { RetryAction::client_error() } else { RetryAction::NoActionIndicated }
    }

    fn name(&self) -> &'static str {
        "transaction conflicts"
    }
}
