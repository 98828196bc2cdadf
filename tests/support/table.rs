//! Sessions as pyramid-dynamodb-sessions writes them, with whatever age a test needs: instead of waiting for time to
//! pass, a test puts a row that is already old.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sessiongate::time::Clock;
use sha2::{Digest, Sha256};

use super::client::Request;
use super::engine::Engine;

/// The table that tests use.
pub(crate) const TABLE: &str = "sessions";
/// The idle timeout that rows are written with, which is also the realm's default.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1200);
/// A row this old is due for a reissue and still alive, with the realm's defaults.
pub(crate) const DUE: Duration = Duration::from_secs(300);

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) version: u64,
    pub(crate) claims: Value,
    /// Unix seconds.
    pub(crate) issued: i64,
    /// Unix seconds.
    pub(crate) expires: i64,
}

impl Session {
    /// A session of version 1, active just now, with a fresh id.
    pub(crate) fn new(claims: Value) -> Self {
        let mut id = [0; 32];
        getrandom::fill(&mut id).expect("randomness");
        let id = BASE64_URL_SAFE_NO_PAD.encode(id);
        Self { id, version: 1, claims, issued: 0, expires: 0 }.aged(Duration::ZERO)
    }

    /// Makes it this long ago that the session was last active.
    #[must_use]
    pub(crate) fn aged(mut self, age: Duration) -> Self {
        self.issued = now() - seconds(age);
        self.expires = self.issued + seconds(TIMEOUT);
        self
    }

    #[must_use]
    pub(crate) fn version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// The cookie that a browser which has seen this version holds: `session_id=ID/VERSION`.
    pub(crate) fn cookie(&self) -> String {
        format!("session_id={}/{}", self.id, self.version)
    }

    /// The key of its row.
    pub(crate) fn key(&self) -> Value {
        json!({ "sid": { "B": BASE64_STANDARD.encode(Sha256::digest(&self.id)) } })
    }

    /// Its row.
    pub(crate) fn item(&self) -> Value {
        let mut item = self.key();
        item["dat"] = json!({ "S": self.claims.to_string() });
        item["ver"] = json!({ "N": self.version.to_string() });
        item["iss"] = json!({ "N": self.issued.to_string() });
        item["exp"] = json!({ "N": self.expires.to_string() });
        item
    }

    /// Writes its row.
    pub(crate) async fn put(&self, engine: &Engine) {
        put_item(engine, &self.item()).await;
    }

    /// Writes its row with some attributes replaced; `Null` leaves one out.
    pub(crate) async fn put_with(&self, engine: &Engine, attributes: Value) {
        let mut item = self.item();
        for (name, value) in attributes.as_object().expect("attributes") {
            if value.is_null() {
                item.as_object_mut().expect("an item").shift_remove(name);
            } else {
                item[name] = value.clone();
            }
        }
        put_item(engine, &item).await;
    }

    /// Its row as the table has it, or `Null`.
    pub(crate) async fn row(&self, engine: &Engine) -> Value {
        let request = json!({ "TableName": TABLE, "Key": self.key(), "ConsistentRead": true });
        engine.call("GetItem", request).await["Item"].take()
    }

    /// Deletes its row.
    pub(crate) async fn delete(&self, engine: &Engine) {
        engine.call("DeleteItem", json!({ "TableName": TABLE, "Key": self.key() })).await;
    }
}

/// An engine with the table that [`Session`]s go to.
pub(crate) async fn engine() -> Engine {
    let engine = Engine::start();
    engine.call("CreateTable", schema()).await;
    engine
}

/// The `CreateTable` request of that table.
pub(crate) fn schema() -> Value {
    schema_of(TABLE, "sid", "B")
}

/// The `CreateTable` request of a table whose only key attribute has this name and type.
pub(crate) fn schema_of(table: &str, key: &str, key_type: &str) -> Value {
    json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": key_type }],
        "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    })
}

/// Calls DynamoDB's API. Neither ministack nor the embedded engine checks the signature, but there has to be one.
pub(crate) async fn call(address: SocketAddr, operation: &str, body: Value) -> Value {
    let request = Request::post("/", body.to_string())
        .header("Content-Type", "application/x-amz-json-1.0")
        .header("Host", &address.to_string())
        .header("X-Amz-Target", &format!("DynamoDB_20120810.{operation}"))
        .header(
            "Authorization",
            concat!(
                "AWS4-HMAC-SHA256 Credential=test/20200101/eu-central-1/dynamodb/aws4_request, ",
                "SignedHeaders=host, Signature=test"
            ),
        );
    let response = request.send(address).await;
    assert_eq!(response.status, 200, "{operation}: {}", response.text());
    response.json()
}

/// A number attribute of a row.
pub(crate) fn number(row: &Value, attribute: &str) -> i64 {
    let text = row[attribute]["N"].as_str().unwrap_or_else(|| panic!("no number `{attribute}` in {row}"));
    text.parse().expect("a whole number")
}

/// Unix seconds.
pub(crate) fn now() -> i64 {
    Clock.now().wall.as_secs()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).expect("fits")
}

async fn put_item(engine: &Engine, item: &Value) {
    engine.call("PutItem", json!({ "TableName": TABLE, "Item": item })).await;
}
