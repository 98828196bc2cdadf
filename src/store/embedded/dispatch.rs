//! Conversion of requests in DynamoDB's JSON protocol to calls of the engine, and of its results to DynamoDB's JSON.
//!
//! The engine deserializes requests with serde, and passes its own errors through serde's messages, after a marker. The
//! markers and serde's positions are removed from responses.

use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the API, which precedes the operation in `x-amz-target`.
const TARGET_PREFIX: &str = "DynamoDB_20120810.";

/// A response of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineResponse {
    /// The HTTP status code.
    pub status: u16,
    /// The body, in JSON.
    pub body: Bytes,
}

/// The operations that the engine supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    BatchGetItem,
    BatchWriteItem,
    CreateTable,
    DeleteItem,
    DeleteTable,
    DescribeTable,
    DescribeTimeToLive,
    GetItem,
    ListTables,
    PutItem,
    Query,
    Scan,
    TransactGetItems,
    TransactWriteItems,
    UpdateItem,
    UpdateTable,
    UpdateTimeToLive,
}

impl Operation {
    /// Parses an `x-amz-target`. Returns `None` if the operation is not supported.
    pub(super) fn from_target(target: &str) -> Option<Self> {
        Some(match target.strip_prefix(TARGET_PREFIX)? {
            "BatchGetItem" => Self::BatchGetItem,
            "BatchWriteItem" => Self::BatchWriteItem,
            "CreateTable" => Self::CreateTable,
            "DeleteItem" => Self::DeleteItem,
            "DeleteTable" => Self::DeleteTable,
            "DescribeTable" => Self::DescribeTable,
            "DescribeTimeToLive" => Self::DescribeTimeToLive,
            "GetItem" => Self::GetItem,
            "ListTables" => Self::ListTables,
            "PutItem" => Self::PutItem,
            "Query" => Self::Query,
            "Scan" => Self::Scan,
            "TransactGetItems" => Self::TransactGetItems,
            "TransactWriteItems" => Self::TransactWriteItems,
            "UpdateItem" => Self::UpdateItem,
            "UpdateTable" => Self::UpdateTable,
            "UpdateTimeToLive" => Self::UpdateTimeToLive,
            _ => return None,
        })
    }

    /// Executes the operation on this thread.
    pub(super) fn execute(self, db: &Database, body: &[u8]) -> EngineResponse {
        match self {
            Self::BatchGetItem => self.call(body, |request| db.batch_get_item(request)),
            Self::BatchWriteItem => self.call(body, |request| db.batch_write_item(request)),
            Self::CreateTable if has_streams(body) => EngineResponse::error(&no_streams()),
            Self::CreateTable => self.call(body, |request| db.create_table(request)),
            Self::DeleteItem => self.call(body, |request| db.delete_item(request)),
            Self::DeleteTable => self.call(body, |request| db.delete_table(request)),
            Self::DescribeTable => self.call(body, |request| db.describe_table(request)),
            Self::DescribeTimeToLive => self.call(body, |request| db.describe_time_to_live(request)),
            Self::GetItem => self.call(body, |request| db.get_item(request)),
            Self::ListTables => self.call(body, |request| db.list_tables(request)),
            Self::PutItem => self.call(body, |request| db.put_item(request)),
            Self::Query => self.call(body, |request| db.query(request)),
            Self::Scan => self.call(body, |request| db.scan(request)),
            Self::TransactGetItems => self.call(body, |request| db.transact_get_items(request)),
            Self::TransactWriteItems => self.call(body, |request| db.transact_write_items(request)),
            Self::UpdateItem => self.call(body, |request| db.update_item(request)),
            Self::UpdateTable if has_streams(body) => EngineResponse::error(&no_streams()),
            Self::UpdateTable => self.call(body, |request| db.update_table(request)),
            Self::UpdateTimeToLive => self.call(body, |request| db.update_time_to_live(request)),
        }
    }

    fn call<Q, A>(self, body: &[u8], run: impl FnOnce(Q) -> Result<A, DynoxideError>) -> EngineResponse
    where
        Q: DeserializeOwned,
        A: Serialize,
    {
        let request = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) if error.is_data() => {
                return EngineResponse::error(&self.invalid_request(&error.to_string()));
            }
            // The body is not JSON, or is nested too deeply.
            Err(_) => {
                return EngineResponse::error_without_message(
                    "com.amazon.coral.service#SerializationException",
                );
            }
        };
        match run(request) {
            Ok(output) => serde_json::to_vec(&output).map_or_else(
                |_| EngineResponse::internal_error(),
                |json| EngineResponse { status: 200, body: json.into() },
            ),
            Err(error) => EngineResponse::error(&error),
        }
    }

    /// Returns DynamoDB's error for a request that is JSON, but does not match the operation's schema, given serde's
    /// message.
    fn invalid_request(self, message: &str) -> DynoxideError {
        let (marker, text) = split_marker(without_position(message));
        match marker {
            Some("SERIALIZATION" | "SERIALIZATION_AS_READ") => {
                DynoxideError::SerializationException(text.to_owned())
            }
            Some("VALIDATION_REQUEST") if self.has_error_count() => {
                DynoxideError::ValidationException(format!("1 validation error detected: {text}"))
            }
            Some(_) => DynoxideError::ValidationException(text.to_owned()),
            None if text.contains("empty AttributeValue") => DynoxideError::ValidationException(
                "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
                    .to_owned(),
            ),
            None if ["missing field", "unknown variant", "invalid type: null", "Supplied AttributeValue"]
                .iter()
                .any(|phrase| text.contains(phrase)) =>
            {
                DynoxideError::ValidationException(text.to_owned())
            }
            None => DynoxideError::SerializationException(text.to_owned()),
        }
    }

    /// Returns whether DynamoDB's validation messages for this operation begin with the number of errors.
    fn has_error_count(self) -> bool {
        matches!(self, Self::PutItem | Self::UpdateItem | Self::DeleteItem)
    }
}

impl EngineResponse {
    /// Returns DynamoDB's response to an unknown operation.
    pub(super) fn unknown_operation() -> Self {
        Self::error_without_message("com.amazon.coral.service#UnknownOperationException")
    }

    pub(super) fn internal_error() -> Self {
        Self::error(&DynoxideError::InternalServerError("Internal server error".to_owned()))
    }

    fn error_without_message(kind: &str) -> Self {
        Self { status: 400, body: serde_json::json!({ "__type": kind }).to_string().into() }
    }

    fn error(error: &DynoxideError) -> Self {
        Self { status: error.status_code(), body: error.to_json().into() }
    }
}

/// Returns whether a request enables Streams. Does not validate the rest.
fn has_streams(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Request {
        stream_specification: Option<Streams>,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Streams {
        stream_enabled: bool,
    }
    serde_json::from_slice::<Request>(body)
        .is_ok_and(|request| request.stream_specification.is_some_and(|streams| streams.stream_enabled))
}

fn no_streams() -> DynoxideError {
    DynoxideError::ValidationException("The embedded engine has no Streams".to_owned())
}

/// Removes the position with which serde_json ends its messages.
fn without_position(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((text, position)) if position.contains(" column ") => text,
        Some(_) | None => message,
    }
}

/// Splits off the marker with which the engine begins some messages: the kind of error in capitals, and a colon.
fn split_marker(message: &str) -> (Option<&str>, &str) {
    match message.split_once(':') {
        Some((
            marker @ ("VALIDATION"
            | "VALIDATION_REQUEST"
            | "VALIDATION_AS_READ"
            | "SERIALIZATION"
            | "SERIALIZATION_AS_READ"),
            text,
        )) => (Some(marker), text),
        Some(_) | None => (None, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid_request(operation: Operation, message: &str) -> (u16, String) {
        let response = EngineResponse::error(&operation.invalid_request(message));
        (response.status, String::from_utf8(response.body.to_vec()).unwrap())
    }

    #[test]
    fn markers_and_positions_are_removed() {
        let (status, json) = invalid_request(Operation::PutItem, "VALIDATION_REQUEST:Bad at line 1 column 9");
        assert_eq!(status, 400);
        assert_eq!(
            json,
            r#"{"__type":"com.amazon.coral.validate#ValidationException","message":"1 validation error detected: Bad"}"#
        );
        let (_, json) = invalid_request(Operation::GetItem, "VALIDATION_REQUEST:Bad at line 1 column 9");
        assert_eq!(json, r#"{"__type":"com.amazon.coral.validate#ValidationException","message":"Bad"}"#);
        let (_, json) = invalid_request(Operation::GetItem, "SERIALIZATION:Bad at line 1 column 9");
        assert_eq!(json, r#"{"__type":"com.amazon.coral.service#SerializationException","Message":"Bad"}"#);
    }

    #[test]
    fn body_that_is_not_json_is_an_error_without_a_message() {
        let database = Database::memory().unwrap();
        let deep = [b"{\"x\":".as_slice(), &b"[".repeat(100_000)].concat();
        for body in [b"".as_slice(), b"{", b"\xff", &deep] {
            let response = Operation::GetItem.execute(&database, body);
            let kind = "com.amazon.coral.service#SerializationException";
            assert_eq!(response, EngineResponse::error_without_message(kind));
        }
    }

    #[test]
    fn streams_are_refused() {
        let database = Database::memory().unwrap();
        let body = br#"{"TableName":"t","StreamSpecification":{"StreamEnabled":true}}"#;
        let response = Operation::CreateTable.execute(&database, body);
        assert!(String::from_utf8_lossy(&response.body).contains("no Streams"));
    }
}
