//! Conversion of the SDK's errors to [`StoreError`].
//!
//! DynamoDB's error messages may quote attribute values (`Input collection [..] contains duplicates`) and session tokens.
//! So messages are not passed on, except the one that says which action a role lacks, and those of operations on the
//! table itself. The request's id is included, for AWS support.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::RequestId;

use super::StoreError;
use super::cancellation::Cancellation;
use super::conflict::is_conflict;

/// Returns the `outcome` label of a failed operation, for metrics.
pub(super) fn outcome_label<E>(error: &SdkError<E, HttpResponse>) -> &'static str
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let service = error.as_service_error();
    let code = service.and_then(ProvideErrorMetadata::code);
    let cancellation = service.and_then(|service| Cancellation::from_error(service));
    let is_refused = matches!(cancellation, Some(Cancellation::ConditionFailed(_) | Cancellation::Conflict));
    if is_refused || is_conflict(error) || code == Some("ConditionalCheckFailedException") {
        "refused"
    } else {
        store_error(error, "").label()
    }
}

/// Converts the error of an operation on `table`.
pub(super) fn store_error<E>(error: &SdkError<E, HttpResponse>, table: &str) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(service) = error.as_service_error() {
        match Cancellation::from_error(service) {
            Some(Cancellation::Throttled) => return StoreError::Throttled,
            Some(Cancellation::TooLarge) => return StoreError::TooLarge,
            Some(Cancellation::ConditionFailed(_) | Cancellation::Conflict | Cancellation::Other) | None => {}
        }
        let status = error.raw_response().map_or(0, |response| response.status().as_u16());
        return service_error(service, status, error.request_id(), table);
    }
    if let Some(cause) = credentials_failure(error) {
        return StoreError::Denied(format!("no credentials: {cause}"));
    }
    StoreError::Unavailable(match error {
        SdkError::TimeoutError(_) => "no response within the timeout".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            "no response within the timeout".to_owned()
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(error) => root_cause(error),
            None => "the request could not be sent".to_owned(),
        },
        SdkError::ResponseError(response) => {
            format!("HTTP {}: the response did not come from DynamoDB", response.raw().status().as_u16())
        }
        SdkError::ConstructionFailure(_) => {
            return StoreError::Invalid("the SDK cannot build the request".to_owned());
        }
        SdkError::ServiceError(_) | _ => "the operation failed".to_owned(),
    })
}

/// Like [`store_error`], but keeps DynamoDB's message: for operations on the table itself, whose messages quote no rows.
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

/// Converts an error response of DynamoDB.
fn service_error(
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
        // The message names the role, the action and the table, never a row.
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
            StoreError::Denied(format!("{}: check this machine's clock", named()))
        }
        "ValidationException" if is_about_size(message) => StoreError::TooLarge,
        "ValidationException" if is_about_the_key(message) => {
            StoreError::Invalid("the key's name or type is not the table's".to_owned())
        }
        // Another writer, or an earlier attempt of the same transaction, is writing the row.
        "TransactionConflictException"
        | "ReplicatedWriteConflictException"
        | "TransactionInProgressException" => StoreError::Unavailable(named()),
        "" => StoreError::Unavailable(format!("HTTP {status}: the response did not come from DynamoDB")),
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

/// Returns the credentials provider's error, if it is among the sources of `error`.
fn credentials_failure(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(failure) = current.downcast_ref::<CredentialsError>() {
            return Some(root_cause(failure));
        }
        cause = current.source();
    }
    None
}

/// Returns the root cause of `error` on one line of limited length: errors of credentials helpers contain their output.
pub(super) fn root_cause(error: &(dyn Error + 'static)) -> String {
    const MAX_LENGTH: usize = 600;
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let text = cause.to_string();
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_LENGTH).collect()
}
