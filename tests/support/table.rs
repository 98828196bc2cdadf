//! Sessions as pyramid-dynamodb-sessions writes them, of any age: a test writes a row that is already old, instead of waiting
//! until it is.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sessiongate::time::Clock;
use sha2::{Digest, Sha256};

use super::client::Request;
use super::engine::Engine;

/// The name of the tests' table.
pub(crate) const TABLE: &str = "sessions";
/// The idle timeout of the rows, which is also the realm's default.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(1200);
/// The age of a session that is due for a reissue and not expired, with the realm's defaults.
pub(crate) const DUE: Duration = Duration::from_secs(300);

/// A session.
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
    /// Returns a session with a new id and version 1 that was active just now.
    pub(crate) fn new(claims: Value) -> Self {
        let mut id = [0; 32];
        getrandom::fill(&mut id).expect("randomness");
        let id = BASE64_URL_SAFE_NO_PAD.encode(id);
        Self { id, version: 1, claims, issued: 0, expires: 0 }.aged(Duration::ZERO)
    }

    /// Sets how long ago the session was last active.
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

    /// Returns the cookie of a browser that has seen this version: `session_id=ID/VERSION`.
    pub(crate) fn cookie(&self) -> String {
        format!("session_id={}/{}", self.id, self.version)
    }

    /// Returns the key of its row.
    pub(crate) fn key(&self) -> Value {
        json!({ "sid": { "B": BASE64_STANDARD.encode(Sha256::digest(&self.id)) } })
    }

    /// Returns its row.
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

    /// Writes its row with these attributes replaced; `Null` removes an attribute.
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

    /// Reads its row from the table. Returns `Null` if there is none.
    pub(crate) async fn row(&self, engine: &Engine) -> Value {
        let request = json!({ "TableName": TABLE, "Key": self.key(), "ConsistentRead": true });
        engine.call("GetItem", request).await["Item"].take()
    }

    /// Deletes its row.
    pub(crate) async fn delete(&self, engine: &Engine) {
        engine.call("DeleteItem", json!({ "TableName": TABLE, "Key": self.key() })).await;
    }
}

/// Writes and returns a session whose user is `alice`.
pub(crate) async fn alice_session(engine: &Engine) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    session.put(engine).await;
    session
}

/// Starts an engine with an empty table for [`Session`]s.
pub(crate) async fn engine() -> Engine {
    let engine = Engine::start();
    engine.call("CreateTable", schema()).await;
    engine
}

/// Returns the `CreateTable` request of that table.
pub(crate) fn schema() -> Value {
    schema_of(TABLE, "sid", "B")
}

/// Returns the `CreateTable` request of a table whose only key attribute has this name and type.
pub(crate) fn schema_of(table: &str, key: &str, key_type: &str) -> Value {
    json!({
        "TableName": table,
        "AttributeDefinitions": [{ "AttributeName": key, "AttributeType": key_type }],
        "KeySchema": [{ "AttributeName": key, "KeyType": "HASH" }],
        "BillingMode": "PAY_PER_REQUEST",
    })
}

/// Calls DynamoDB's API. Neither ministack nor the embedded engine checks the signature, but both require one.
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

/// Returns a number attribute of a row.
pub(crate) fn number(row: &Value, attribute: &str) -> i64 {
    let text = row[attribute]["N"].as_str().unwrap_or_else(|| panic!("no number `{attribute}` in {row}"));
    text.parse().expect("a whole number")
}

/// Returns the current time in Unix seconds.
pub(crate) fn now() -> i64 {
    Clock.now().wall.as_secs()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).expect("fits")
}

async fn put_item(engine: &Engine, item: &Value) {
    engine.call("PutItem", json!({ "TableName": TABLE, "Item": item })).await;
}
