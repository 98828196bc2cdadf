//! The SDK's HTTP client, with every response checked before the SDK reads it.
//!
//! The SDK reads an empty body as `{}`, which of a read says that there is no such row and of a write that it was done.
//! It reads any other JSON object the same way, and ignores the checksum that DynamoDB sends. So a proxy that answers
//! for DynamoDB, or one that loses the body, would log users out. A response that DynamoDB cannot have sent is a failed
//! request here: it is tried again like any other, and then the store is unavailable.

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

/// CRC-32 of the body, in decimal digits. DynamoDB sends it with every response; not every engine does.
const CHECKSUM: &str = "x-amz-crc32";

/// The longest body. DynamoDB's own limit is 16 MB, in its most wasteful encoding.
const MAX_BODY: usize = 17 * 1024 * 1024;

/// The members of DynamoDB's responses. An object with members and none of these is another service's.
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

/// Why a response is not DynamoDB's. It quotes nothing of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Defect {
    #[error("the response breaks off")]
    BrokenOff,
    #[error("the response is longer than any of DynamoDB's")]
    TooLong,
    #[error("the response's body and its checksum do not match")]
    Checksum,
    #[error("the response is empty")]
    Empty,
    #[error("the response is not DynamoDB's: it is no JSON object of its kind")]
    Foreign,
}

/// Wraps `client`, so that the SDK gets no response which DynamoDB cannot have sent.
pub(super) fn checked(client: impl HttpClient + 'static) -> SharedHttpClient {
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
            // The attempt's time limit covers this, too.
            let body = Limited::new(response.take_body(), MAX_BODY).collect().await;
            let body = body.map_err(|error| failure(read_defect(&error)))?.to_bytes();
            check(&response, &body).map_err(failure)?;
            *response.body_mut() = SdkBody::from(body);
            Ok(response)
        })
    }
}

/// The SDK tries again after this, and over another connection.
fn failure(defect: Defect) -> ConnectorError {
    ConnectorError::other(defect.into(), Some(ErrorKind::TransientError))
}

fn read_defect(error: &BoxError) -> Defect {
    if error.is::<LengthLimitError>() { Defect::TooLong } else { Defect::BrokenOff }
}

fn check(response: &HttpResponse, body: &Bytes) -> Result<(), Defect> {
    if let Some(sum) = response.headers().get(CHECKSUM)
        && sum.trim().parse() != Ok(crc32fast::hash(body))
    {
        return Err(Defect::Checksum);
    }
    // The SDK knows an error by its code, and what has none is unavailable already.
    if !response.status().is_success() {
        return Ok(());
    }
    if body.is_empty() {
        return Err(Defect::Empty);
    }
    serde_json::from_slice::<Members>(body).map(|Members| ()).map_err(|_| Defect::Foreign)
}

/// A whole JSON object, either empty or with a member that DynamoDB's responses have.
struct Members;

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a response of DynamoDB")
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

    fn verdict(status: u16, sum: Option<&'static str>, body: &'static str) -> Result<(), Defect> {
        let mut response = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty());
        if let Some(sum) = sum {
            response.headers_mut().insert(CHECKSUM, sum);
        }
        check(&response, &Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn only_whole_objects_of_dynamodb_pass() {
        for good in
            ["{}", " {} ", r#"{"Item":{"a":{"S":"{"}}}"#, r#"{"\u0049tem":{}}"#, r#"{"New":1,"Count":0}"#]
        {
            assert_eq!(verdict(200, None, good), Ok(()), "{good}");
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
            assert_eq!(verdict(200, None, bad), Err(Defect::Foreign), "{bad}");
        }
        for status in [200, 204] {
            assert_eq!(verdict(status, None, ""), Err(Defect::Empty));
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_body_on_every_status() {
        // CRC-32 of `{}`.
        assert_eq!(verdict(200, Some("2745614147"), "{}"), Ok(()));
        assert_eq!(verdict(200, Some("2745614148"), "{}"), Err(Defect::Checksum));
        assert_eq!(verdict(400, Some("2745614148"), "{}"), Err(Defect::Checksum));
        assert_eq!(verdict(200, Some("a3a6ad43"), "{}"), Err(Defect::Checksum));
        assert_eq!(verdict(500, None, ""), Ok(()), "an error without a code is unavailable by itself");
    }
}
