//! An HTTP client for the SDK that checks every response before the SDK parses it.
//!
//! The SDK parses an empty body as `{}`, which means "no such row" to a read and "done" to a write. It parses any other
//! JSON object the same way, and ignores the checksum that DynamoDB sends. So a proxy that responds in place of DynamoDB,
//! or loses the body, would log users out. Here, a response that DynamoDB cannot have sent is a transient error: the SDK
//! retries it, and then the store is unavailable.

use std::borrow::Cow;
use std::fmt;

use aws_sdk_dynamodb::config::{HttpClient, IntoShared, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// The CRC-32 of the body, in decimal. DynamoDB sends it with every response; not all compatible engines do.
const CHECKSUM: &str = "x-amz-crc32";

/// Maximum size of a body. DynamoDB's own limit is 16 MB.
const MAX_BODY: usize = 17 * 1024 * 1024;

/// The members of DynamoDB's responses. An object that has members, but none of these, did not come from DynamoDB.
const MEMBERS: [&str; 17] = [
    "Item",
    "Attributes",
    "ConsumedCapacity",
    "ItemCollectionMetrics",
    "Items",
    "Count",
    "ScannedCount",
    "LastEvaluatedKey",
    "Responses",
    "UnprocessedItems",
    "UnprocessedKeys",
    "Table",
    "TableDescription",
    "TimeToLiveDescription",
    "TimeToLiveSpecification",
    "TableNames",
    "LastEvaluatedTableName",
];

/// The reason why a response cannot have come from DynamoDB. Contains nothing of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Defect {
    #[error("the response is incomplete")]
    Incomplete,
    #[error("the response exceeds DynamoDB's limit")]
    TooLarge,
    #[error("the response does not match its checksum")]
    Checksum,
    #[error("the response is empty")]
    Empty,
    #[error("the response did not come from DynamoDB")]
    NotDynamoDb,
}

/// Wraps `client` so that the SDK receives no response that DynamoDB cannot have sent.
pub(super) fn with_checks(client: impl HttpClient + 'static) -> SharedHttpClient {
    CheckedClient(client.into_shared()).into_shared()
}

#[derive(Debug)]
struct CheckedClient(SharedHttpClient);

impl HttpClient for CheckedClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(CheckedConnector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct CheckedConnector(SharedHttpConnector);

impl HttpConnector for CheckedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let sending = self.0.call(request);
        HttpConnectorFuture::new(async move {
            let mut response = sending.await?;
            // The timeout of the attempt covers this, too.
            let body = Limited::new(response.take_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| failure(read_defect(&error)))?.to_bytes();
            check(&response, &body).map_err(failure)?;
            *response.body_mut() = SdkBody::from(body);
            Ok(response)
        })
    }
}

/// Returns an error that makes the SDK retry over another connection.
fn failure(defect: Defect) -> ConnectorError {
    ConnectorError::other(defect.into(), Some(ErrorKind::TransientError))
}

fn read_defect(error: &BoxError) -> Defect {
    if error.is::<LengthLimitError>() { Defect::TooLarge } else { Defect::Incomplete }
}

fn check(response: &HttpResponse, body: &Bytes) -> Result<(), Defect> {
    if let Some(sum) = response.headers().get(CHECKSUM)
        && sum.trim().parse() != Ok(crc32fast::hash(body))
    {
        return Err(Defect::Checksum);
    }
    // The SDK recognizes an error by its code; an error without one is `Unavailable` anyway.
    if !response.status().is_success() {
        return Ok(());
    }
    if body.is_empty() {
        return Err(Defect::Empty);
    }
    serde_json::from_slice::<Members>(body).map(|Members| ()).map_err(|_| Defect::NotDynamoDb)
}

/// Accepts a complete JSON object that is empty or has one of [`MEMBERS`].
struct Members;

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a DynamoDB response")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let (mut is_empty, mut is_known) = (true, false);
        while let Some((name, IgnoredAny)) = map.next_entry::<Cow<'de, str>, _>()? {
            is_empty = false;
            is_known |= MEMBERS.contains(&&*name);
        }
        if is_empty || is_known { Ok(self) } else { Err(A::Error::custom("another service's response")) }
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;

    fn checked(status: u16, sum: Option<&'static str>, body: &'static str) -> Result<(), Defect> {
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty());
        if let Some(sum) = sum {
            response.headers_mut().insert(CHECKSUM, sum);
        }
        check(&response, &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn only_complete_objects_of_dynamodb_are_accepted() {
        for good in
            ["{}", " {} ", r#"{"Item":{"a":{"S":"{"}}}"#, r#"{"\u0049tem":{}}"#, r#"{"New":1,"Count":0}"#]
        {
            assert_eq!(checked(200, None, good), Ok(()), "{good}");
        }
        for bad in [
            "<html>",
            "[]",
            "null",
            "\"{}\"",
            "{",
            "}",
            "{}{}",
            "{} x",
            r#"{"Item":{"a":{"S":"#,
            r#"{"Item"}"#,
            r#"{"message":"Forbidden"}"#,
            r#"{"item":{}}"#,
            " ",
        ] {
            assert_eq!(checked(200, None, bad), Err(Defect::NotDynamoDb), "{bad}");
        }
        for status in [200, 204] {
            assert_eq!(checked(status, None, ""), Err(Defect::Empty));
        }
    }

    #[test]
    fn checksum_must_match_the_body_whatever_the_status() {
        // CRC-32 of `{}`.
        assert_eq!(checked(200, Some("2745614147"), "{}"), Ok(()));
        assert_eq!(checked(200, Some("2745614148"), "{}"), Err(Defect::Checksum));
        assert_eq!(checked(400, Some("2745614148"), "{}"), Err(Defect::Checksum));
        assert_eq!(checked(200, Some("a3a6ad43"), "{}"), Err(Defect::Checksum));
        assert_eq!(checked(500, None, ""), Ok(()), "the SDK reports an error without a code");
    }
}
