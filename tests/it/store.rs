//! The store's contract, which every engine must meet.

#![cfg(feature = "embedded")]
#![allow(clippy::disallowed_methods, reason = "tests measure how long an operation takes")]

mod contract;
mod engine;
mod faults;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sessiongate::config::{DynamodbConfig, StoreConfig};
use sessiongate::item::{Attribute, Item, Key, KeyType};
use sessiongate::secret::Secret;
use sessiongate::store::table::{CreateOutcome, Read};
use sessiongate::store::{StaticCredentials, Store};

use crate::support::ministack::Ministack;

#[tokio::test(flavor = "multi_thread")]
async fn embedded_engine_in_memory_meets_the_contract() {
    let store = Store::open(&StoreConfig::Embedded { path: None, listen: None }).await.unwrap();
    contract::check(&store, "memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_engine_with_a_file_meets_the_contract_and_keeps_its_rows() {
    let directory = Directory::new("contract");
    let config = StoreConfig::Embedded { path: Some(directory.0.join("sessions.db")), listen: None };
    let store = Store::open(&config).await.unwrap();
    contract::check(&store, "file").await;
    let table = store.table("rows-file", "sid", KeyType::Binary);
    let row = Item::from([("sid".into(), Attribute::Binary(b"kept".into()))]);
    assert_eq!(table.create(row.clone()).await.unwrap(), CreateOutcome::Created);
    drop((store, table));

    let store = Store::open(&config).await.unwrap();
    let table = store.table("rows-file", "sid", KeyType::Binary);
    table.check_schema().await.unwrap();
    assert_eq!(table.get(&Key::binary(b"kept"), Read::Strong).await.unwrap(), Some(row));
}

#[tokio::test(flavor = "multi_thread")]
async fn api_of_the_embedded_engine_meets_the_contract() {
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let engine = Store::open(&StoreConfig::Embedded { path: None, listen }).await.unwrap();
    let store = connect(&format!("http://{}", engine.api_address().unwrap())).await;
    contract::check(&store, "port").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ministack_meets_the_contract() {
    let Some(server) = tokio::task::spawn_blocking(Ministack::start).await.unwrap() else { return };
    contract::check(&connect(&server.endpoint()).await, "ministack").await;
}

/// Tests the engine at `SESSIONGATE_TEST_ENDPOINT`, for example DynamoDB Local, which must accept any credentials. The test
/// does not delete its two tables.
#[tokio::test(flavor = "multi_thread")]
async fn engine_at_the_given_endpoint_meets_the_contract() {
    let Ok(endpoint) = std::env::var("SESSIONGATE_TEST_ENDPOINT") else { return };
    let suffix = format!("test-{}", std::process::id());
    contract::check(&connect(&endpoint).await, &suffix).await;
}

async fn connect(endpoint: &str) -> Store {
    let config = DynamodbConfig {
        region: Some("us-east-1".into()),
        profile: None,
        role_arn: None,
        endpoint: Some(endpoint.into()),
        timeout: Duration::from_secs(30),
        attempts: 3,
    };
    Store::connect(&config, Some(local_credentials())).await.unwrap()
}

fn local_credentials() -> StaticCredentials {
    StaticCredentials { access_key_id: "local".into(), secret_access_key: Secret::new(*b"local") }
}

/// A temporary directory, which is removed when this value is dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
