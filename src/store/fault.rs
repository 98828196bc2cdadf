//! From the SDK's errors to the few kinds of [`StoreError`].
//!
//! DynamoDB's own texts quote attribute values (`Input collection [..] contains duplicates`) and, for signatures,
//! session tokens. So none is passed on, except the one that says which action a role lacks; the request's id is there
//! for whoever has to look further.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;

use super::StoreError;
use super::conflict::is_conflict;

/// How a failed operation ended, in one word.
pub(super) fn outcome<E>(error: &SdkError<E, HttpResponse>) -> &'static str
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        _ if is_conflict(error) => "refused",
        Some("ConditionalCheckFailedException" | "TransactionCanceledException") => "refused",
        Some(_) | None => store_error(error, "").label(),
    }
}

/// What a failed operation on `table` means.
pub(super) fn store_error<E>(error: &SdkError<E, HttpResponse>, table: &str) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(service) = error.as_service_error() {
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        return refusal(service, status, error.request_id(), table);
    }
    if let Some(cause) = credentials_failure(error) {
        return StoreError::Denied(format!("no credentials: {cause}"));
    }
    StoreError::Unavailable(match error {
        SdkError::TimeoutError(_) => "no answer within the time limit".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            "no answer within the time limit".to_owned()
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(error) => innermost(error),
            None => "the request could not be sent".to_owned(),
        },
        SdkError::ResponseError(response) => {
            format!("HTTP {}: the answer is not DynamoDB's", response.raw().status().as_u16())
        }
        SdkError::ConstructionFailure(_) => return StoreError::Invalid("it cannot be built".to_owned()),
        SdkError::ServiceError(_) | _ => "the operation failed".to_owned(),
    })
}

/// As [`store_error`], for operations on the table itself: no row takes part in them, so DynamoDB may speak for itself.
pub(super) fn table_error<E>(error: &SdkError<E, HttpResponse>, table: &str) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let message = error.as_service_error().and_then(ProvideErrorMetadata::message);
    match (store_error(error, table), message) {
        (StoreError::Invalid(_), Some(message)) => StoreError::Invalid(message.to_owned()),
        (error, _) => error,
    }
}

fn refusal(
    service: &impl ProvideErrorMetadata,
    status: u16,
    request: Option<&str>,
    table: &str,
) -> StoreError {
    let code = service.code().unwrap_or_default();
    let message = service.message().unwrap_or_default();
    let named = || match request {
        Some(request) => format!("{code} (HTTP {status}, request {request})"),
        None => format!("{code} (HTTP {status})"),
    };
    match code {
        "ResourceNotFoundException" => StoreError::NoSuchTable(table.to_owned()),
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException"
        | "TooManyRequestsException" => StoreError::Throttled,
        // It names the role, the action and the table, never a row.
        "AccessDeniedException" => StoreError::Denied(message.to_owned()),
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignatureException"
        | "IncompleteSignature"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "NotAuthorized"
        | "OptInRequired"
        | "ExpiredToken"
        | "ExpiredTokenException" => StoreError::Denied(named()),
        "RequestExpired" | "RequestTimeTooSkewed" => {
            StoreError::Denied(format!("{}: is this machine's clock right?", named()))
        }
        "ValidationException" if is_about_size(message) => StoreError::TooLarge,
        "ValidationException" if is_about_the_key(message) => {
            StoreError::Invalid("the row's key is not of the table's name and type".to_owned())
        }
        // Another writer was in the way, for a moment, or an earlier attempt of the same transaction.
        "TransactionConflictException"
        | "ReplicatedWriteConflictException"
        | "TransactionInProgressException" => StoreError::Unavailable(named()),
        "" => StoreError::Unavailable(format!("HTTP {status}: the answer is not DynamoDB's")),
        _ if status >= 500 => StoreError::Unavailable(named()),
        _ => StoreError::Invalid(named()),
    }
}

fn is_about_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    message.contains("item size") && message.contains("exceeded")
}

fn is_about_the_key(message: &str) -> bool {
    ["does not match the schema", "Missing the key", "Type mismatch for key"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

/// The credentials provider's failure, wherever in the chain of causes the SDK put it.
fn credentials_failure(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(failure) = current.downcast_ref::<CredentialsError>() {
            return Some(innermost(failure));
        }
        cause = current.source();
    }
    None
}

/// The innermost cause, which says most, in one line: helpers that fetch credentials bring along whatever they printed.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    const LONGEST: usize = 600;
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}
