//! From a request of DynamoDB's JSON protocol to a call of the engine, and back to the JSON that DynamoDB would answer.
//!
//! The engine reads requests with serde, and its own errors travel in serde's messages behind markers; none of those,
//! and none of serde's positions, may show in an answer.

use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The protocol's name of the API, before the operation's.
const TARGET_PREFIX: &str = "DynamoDB_20120810.";

/// An answer of the API: a status, and JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineResponse {
    /// The HTTP status.
    pub status: u16,
    /// The JSON.
    pub body: Bytes,
}

/// The operations that the engine does.
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
    /// The operation that an `x-amz-target` names.
    pub(super) fn of_target(target: &str) -> Option<Self> {
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

    /// Does it, on this thread.
    pub(super) fn run(self, db: &Database, body: &[u8]) -> EngineResponse {
        match self {
            Self::BatchGetItem => self.call(body, |request| db.batch_get_item(request)),
            Self::BatchWriteItem => self.call(body, |request| db.batch_write_item(request)),
            Self::CreateTable if has_streams(body) => EngineResponse::refusal(&no_streams()),
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
            Self::UpdateTable if has_streams(body) => EngineResponse::refusal(&no_streams()),
            Self::UpdateTable => self.call(body, |request| db.update_table(request)),
            Self::UpdateTimeToLive => self.call(body, |request| db.update_time_to_live(request)),
        }
    }

    fn call<Q, A>(self, body: &[u8], act: impl FnOnce(Q) -> Result<A, DynoxideError>) -> EngineResponse
    where
        Q: DeserializeOwned,
        A: Serialize,
    {
        let request = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) if error.is_data() => {
                return EngineResponse::refusal(&self.misread(&error.to_string()));
            }
            // Not JSON at all, or nested beyond reading.
            Err(_) => return EngineResponse::bare("com.amazon.coral.service#SerializationException"),
        };
        match act(request) {
            Ok(answer) => serde_json::to_vec(&answer).map_or_else(
                |_| EngineResponse::internal_error(),
                |json| EngineResponse { status: 200, body: json.into() },
            ),
            Err(error) => EngineResponse::refusal(&error),
        }
    }

    /// What DynamoDB says of a request that is JSON, but not of the operation's shape.
    fn misread(self, message: &str) -> DynoxideError {
        let (marker, text) = split_marker(without_position(message));
        match marker {
            Some("SERIALIZATION" | "SERIALIZATION_AS_READ") => {
                DynoxideError::SerializationException(text.to_owned())
            }
            Some("VALIDATION_REQUEST") if self.has_envelope() => {
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

    /// Whether DynamoDB says how many errors it found, before it says which.
    fn has_envelope(self) -> bool {
        matches!(self, Self::PutItem | Self::UpdateItem | Self::DeleteItem)
    }
}

impl EngineResponse {
    /// What DynamoDB answers to an operation that it does not have.
    pub(super) fn unknown_operation() -> Self {
        Self::bare("com.amazon.coral.service#UnknownOperationException")
    }

    pub(super) fn internal_error() -> Self {
        Self::refusal(&DynoxideError::InternalServerError("Internal server error".to_owned()))
    }

    /// An error without a message.
    fn bare(kind: &str) -> Self {
        Self { status: 400, body: serde_json::json!({ "__type": kind }).to_string().into() }
    }

    fn refusal(error: &DynoxideError) -> Self {
        Self { status: error.status_code(), body: error.to_json().into() }
    }
}

/// Whether a request turns Streams on. Of its shape no more is looked at.
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

/// serde_json ends its messages with the place in the text.
fn without_position(message: &str) -> &str {
    match message.rsplit_once(" at line ") {
        Some((text, place)) if place.contains(" column ") => text,
        Some(_) | None => message,
    }
}

/// The engine begins some of its messages with the kind of error in capitals and a colon.
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

    fn misread(operation: Operation, message: &str) -> (u16, String) {
        let answer = EngineResponse::refusal(&operation.misread(message));
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    }

    #[test]
    fn neither_markers_nor_positions_show() {
        let (status, json) = misread(Operation::PutItem, "VALIDATION_REQUEST:Bad at line 1 column 9");
        assert_eq!(status, 400);
        assert_eq!(
            json,
            r#"{"__type":"com.amazon.coral.validate#ValidationException","message":"1 validation error detected: Bad"}"#
        );
        let (_, json) = misread(Operation::GetItem, "VALIDATION_REQUEST:Bad at line 1 column 9");
        assert_eq!(json, r#"{"__type":"com.amazon.coral.validate#ValidationException","message":"Bad"}"#);
        let (_, json) = misread(Operation::GetItem, "SERIALIZATION:Bad at line 1 column 9");
        assert_eq!(json, r#"{"__type":"com.amazon.coral.service#SerializationException","Message":"Bad"}"#);
    }

    #[test]
    fn what_is_not_json_is_refused_without_a_message() {
        let database = Database::memory().unwrap();
        let deep = [b"{\"x\":".as_slice(), &b"[".repeat(100_000)].concat();
        for body in [b"".as_slice(), b"{", b"\xff", &deep] {
            let answer = Operation::GetItem.run(&database, body);
            assert_eq!(answer, EngineResponse::bare("com.amazon.coral.service#SerializationException"));
        }
    }

    #[test]
    fn streams_are_refused() {
        let database = Database::memory().unwrap();
        let body = br#"{"TableName":"t","StreamSpecification":{"StreamEnabled":true}}"#;
        let answer = Operation::CreateTable.run(&database, body);
        assert!(String::from_utf8_lossy(&answer.body).contains("no Streams"));
    }
}
