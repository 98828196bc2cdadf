//! Failures between the gateway and DynamoDB, and the errors that the store returns for them.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sessiongate::config::DynamodbConfig;
use sessiongate::format::{Update, WriteCondition};
use sessiongate::item::{Attribute, Item, Key, KeyType};
use sessiongate::store::embedded::Engine;
use sessiongate::store::embedded::dispatch::EngineResponse;
use sessiongate::store::rotation::{Retirement, RotationOutcome};
use sessiongate::store::schema::SchemaError;
use sessiongate::store::table::{ConditionalWrite, CreateOutcome, Read, ScanOptions, Table, WRITE_MARK};
use sessiongate::store::{Store, StoreError, StoreOpenError};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::local_credentials;

const CANARY: &str = "canary-88e0";

#[tokio::test]
async fn errors_of_dynamodb_are_converted_by_code() {
    let validation = "com.amazon.coral.validate#ValidationException";
    let cases: &[(u16, &str, &str)] = &[
        (400, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException", "Throttled"),
        (400, "com.amazon.coral.availability#ThrottlingException", "Throttled"),
        (400, "com.amazonaws.dynamodb.v20120810#RequestLimitExceeded", "Throttled"),
        (400, "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "NoSuchTable"),
        (400, "com.amazon.coral.service#UnrecognizedClientException", "Denied"),
        (400, "com.amazon.coral.service#InvalidSignatureException", "Denied"),
        (400, "com.amazon.coral.service#ExpiredTokenException", "Denied"),
        (500, "com.amazonaws.dynamodb.v20120810#InternalServerError", "Unavailable"),
        (400, validation, "Invalid"),
        (400, "com.amazon.coral.service#SerializationException", "Invalid"),
    ];
    for (status, kind, expected) in cases {
        let body = format!(r#"{{"__type":"{kind}","message":"it says {CANARY}"}}"#);
        let error = read_error(*status, body).await;
        assert!(format!("{error:?}").starts_with(expected), "{kind}: {error:?}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    }
    let size =
        format!(r#"{{"__type":"{validation}","message":"Item size has exceeded the maximum allowed size"}}"#);
    assert!(matches!(read_error(400, size).await, StoreError::TooLarge));
    let denied = "User: arn:aws:iam::1:role/x is not authorized to perform: dynamodb:GetItem";
    let body =
        format!(r#"{{"__type":"com.amazon.coral.service#AccessDeniedException","message":"{denied}"}}"#);
    assert!(matches!(read_error(400, body).await, StoreError::Denied(text) if text == denied));
}

#[tokio::test]
async fn responses_of_other_services_are_unavailable() {
    let half = r#"{"Item":{"sid":{"B":"#;
    let unknown = format!(r#"{{"Item":{{"sid":{{"Z":"{CANARY}"}}}}}}"#);
    for (status, body) in [
        (200, ""),
        (204, ""),
        (200, "<html>"),
        (200, "[]"),
        (200, half),
        (200, unknown.as_str()),
        (502, ""),
        (503, "<html>busy</html>"),
        (404, "<html>nobody here</html>"),
        (302, ""),
    ] {
        let error = read_error(status, body.to_owned()).await;
        assert!(matches!(error, StoreError::Unavailable(_)), "{status} {body}: {error:?}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error:?}");
    }
}

#[tokio::test]
async fn closed_port_and_silent_server_are_unavailable_within_the_timeout() {
    let closed = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = table(closed, 3).await.get(&Key::binary(b"k"), Read::Strong).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("refused")), "{error:?}");

    // The kernel accepts the connection into the backlog, and nobody responds.
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let table = table(silent.local_addr().unwrap(), 3).await;
    let begin = Instant::now();
    let error = table.get(&Key::binary(b"k"), Read::Strong).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("timeout")), "{error:?}");
    assert!(begin.elapsed() < 2 * LIMIT, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn transient_failures_are_retried() {
    let failures = Arc::new(Mutex::new(2));
    let (server, _task) = Server::start(move |engine, target, body| {
        let failures = failures.clone();
        async move {
            let mut left = failures.lock().await;
            if *left > 0 {
                *left -= 1;
                return EngineResponse { status: 500, body: Bytes::new() };
            }
            engine.dispatch(&target, body).await
        }
    })
    .await;
    let table = server.table(3).await;
    assert_eq!(table.get(&Key::binary(b"k"), Read::Strong).await.unwrap(), None);
}

/// The SDK alone would parse an empty body as `{}`, which means "no such row" or "done".
#[tokio::test]
async fn every_operation_rejects_the_response_of_another_service() {
    let key = Key::binary(b"k");
    for body in ["", " ", "<html>", "[]", "{", r#"{"message":"Forbidden"}"#] {
        let (server, _task) =
            Server::start(move |_, _, _| async move { EngineResponse { status: 200, body: body.into() } })
                .await;
        let table = server.table(1).await;
        let retirement = Retirement::Delete(vec![]);
        let options = ScanOptions { page_size: 10, segment: None };
        let errors = [
            table.get(&key, Read::Eventual).await.unwrap_err(),
            table.create(row(1)).await.unwrap_err(),
            table.change(&key, &set_iss(2)).await.unwrap_err(),
            table.update(&key, &set_iss(2)).await.unwrap_err(),
            table.delete(&key, &[]).await.unwrap_err(),
            table.delete(&key, &set_iss(2).conditions).await.unwrap_err(),
            table.rotate(row(1), &Key::binary(b"old"), &retirement).await.unwrap_err(),
            table.scan(options).next_page().await.unwrap_err(),
            table.describe().await.unwrap_err(),
        ];
        for (number, error) in errors.iter().enumerate() {
            assert!(matches!(error, StoreError::Unavailable(_)), "{body:?}, {number}: {error:?}");
        }
        let error = table.provision(None).await.unwrap_err();
        assert!(matches!(&error, SchemaError::Store(StoreError::Unavailable(_))), "{body:?}: {error:?}");
    }
}

#[tokio::test]
async fn empty_object_is_a_valid_response() {
    let (server, _task) =
        Server::start(|_, _, _| async { EngineResponse { status: 200, body: "{}".into() } }).await;
    let table = server.table(1).await;
    assert_eq!(table.get(&Key::binary(b"k"), Read::Strong).await.unwrap(), None);
    assert_eq!(table.update(&Key::binary(b"k"), &set_iss(2)).await.unwrap(), ConditionalWrite::Done);
}

/// Starts a server that executes the first `operation`, puts `meanwhile`, and then responds with an empty 500.
async fn server_losing_a_response(operation: &'static str, meanwhile: Option<Value>) -> (Server, impl Sized) {
    let lost = Arc::new(Mutex::new(true));
    Server::start(move |engine, target, body| {
        let (lost, meanwhile) = (lost.clone(), meanwhile.clone());
        async move {
            let response = engine.dispatch(&target, body).await;
            if target.ends_with(operation) && std::mem::take(&mut *lost.lock().await) {
                if let Some(other) = meanwhile {
                    let other = engine.dispatch("DynamoDB_20120810.PutItem", other.to_string().into()).await;
                    assert_eq!(other.status, 200);
                }
                return EngineResponse { status: 500, body: Bytes::new() };
            }
            response
        }
    })
    .await
}

#[tokio::test]
async fn retry_of_an_executed_change_is_done() {
    let (server, _task) = server_losing_a_response("UpdateItem", None).await;
    let table = server.table(3).await;
    assert_eq!(table.create(row(1)).await.unwrap(), CreateOutcome::Created);
    assert_eq!(table.change(&Key::binary(b"k"), &set_iss(2)).await.unwrap(), ConditionalWrite::Done);
    let mut kept = table.get(&Key::binary(b"k"), Read::Strong).await.unwrap().unwrap();
    assert!(kept.remove(WRITE_MARK).is_some(), "the change left its mark");
    assert_eq!(kept, row(2));
}

/// The other writer's row is equal except for the write mark.
#[tokio::test]
async fn outcome_of_a_change_that_is_then_overwritten_is_unknown() {
    let other = json!({ "TableName": "rows", "Item": {
        "sid": { "B": "aw==" }, "iss": { "N": "2" },
    } });
    let (server, _task) = server_losing_a_response("UpdateItem", Some(other)).await;
    let table = server.table(3).await;
    table.create(row(1)).await.unwrap();
    let error = table.change(&Key::binary(b"k"), &set_iss(2)).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn second_equal_change_is_refused() {
    let server = Server::start(|engine, target, body| async move { engine.dispatch(&target, body).await });
    let (server, _task) = server.await;
    let table = server.table(3).await;
    table.create(row(1)).await.unwrap();
    assert_eq!(table.change(&Key::binary(b"k"), &set_iss(2)).await.unwrap(), ConditionalWrite::Done);
    let second = table.change(&Key::binary(b"k"), &set_iss(2)).await.unwrap();
    assert!(matches!(second, ConditionalWrite::Refused(Some(_))), "{second:?}");
}

#[tokio::test]
async fn retries_of_an_executed_create_and_rotation_are_done() {
    let (server, _task) = server_losing_a_response("PutItem", None).await;
    let table = server.table(3).await;
    assert_eq!(table.create(row(1)).await.unwrap(), CreateOutcome::Created);
    assert_eq!(table.create(row(1)).await.unwrap(), CreateOutcome::AlreadyExists, "a second create");
    let (server, _task) = server_losing_a_response("TransactWriteItems", None).await;
    let table = server.table(3).await;
    table.create(row(1)).await.unwrap();
    let mut new = row(5);
    new.insert("sid".into(), Key::binary(b"new").to_attribute());
    let retirement = Retirement::Delete(vec![WriteCondition::Exists]);
    let rotated = table.rotate(new, &Key::binary(b"k"), &retirement).await.unwrap();
    assert_eq!(rotated, RotationOutcome::Done);
}

#[tokio::test]
async fn outcome_of_a_conditional_delete_whose_response_is_lost_is_unknown() {
    let (server, _task) = server_losing_a_response("DeleteItem", None).await;
    let table = server.table(3).await;
    table.create(row(1)).await.unwrap();
    let error = table.delete(&Key::binary(b"k"), &set_iss(2).conditions).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
}

/// Starts a server whose first `count` updates and deletes conflict with a transaction.
async fn server_with_conflicts(count: usize) -> (Server, impl Sized) {
    let left = Arc::new(Mutex::new(count));
    Server::start(move |engine, target, body| {
        let left = left.clone();
        async move {
            let mut left = left.lock().await;
            if *left > 0 && (target.ends_with("UpdateItem") || target.ends_with("DeleteItem")) {
                *left -= 1;
                let code = "com.amazonaws.dynamodb.v20120810#TransactionConflictException";
                let body = format!(r#"{{"__type":"{code}","message":"{CANARY}"}}"#);
                return EngineResponse { status: 400, body: body.into() };
            }
            engine.dispatch(&target, body).await
        }
    })
    .await
}

#[tokio::test]
async fn write_that_conflicts_with_a_transaction_is_retried() {
    let key = Key::binary(b"k");
    for write in ["update", "change", "delete", "delete_returning"] {
        let (server, _task) = server_with_conflicts(2).await;
        let table = server.table(3).await;
        table.create(row(1)).await.unwrap();
        let written = match write {
            "update" => table.update(&key, &set_iss(2)).await,
            "change" => table.change(&key, &set_iss(2)).await,
            "delete" => table.delete(&key, &set_iss(2).conditions).await,
            _ => table
                .delete_returning(&key)
                .await
                .map(|row| row.map_or(ConditionalWrite::Refused(None), |_| ConditionalWrite::Done)),
        };
        assert_eq!(written.unwrap(), ConditionalWrite::Done, "{write}");
    }
}

#[tokio::test]
async fn write_that_conflicts_in_every_attempt_is_refused_and_the_table_is_writable() {
    let key = Key::binary(b"k");
    let (server, _task) = server_with_conflicts(usize::MAX).await;
    let table = server.table(2).await;
    table.create(row(1)).await.unwrap();
    for _ in 0..3 {
        for written in [
            table.update(&key, &set_iss(2)).await,
            table.change(&key, &set_iss(2)).await,
            table.delete(&key, &set_iss(2).conditions).await,
        ] {
            assert_eq!(written.unwrap(), ConditionalWrite::Refused(Some(row(1))));
        }
        let error = table.delete_returning(&key).await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Unavailable(_)) && !error.to_string().contains(CANARY),
            "{error}"
        );
    }
    assert_eq!(table.write_failure(), None);
}

#[tokio::test]
async fn throttled_rotation_is_a_failed_write_and_a_refused_one_is_not() {
    for (code, expected, failure) in [
        ("ThrottlingError", "Err(Throttled)", Some("throttled")),
        ("ProvisionedThroughputExceeded", "Err(Throttled)", Some("throttled")),
        ("ValidationError", "Err(TooLarge)", None),
        ("TransactionConflict", "Ok(Refused)", None),
        ("ConditionalCheckFailed", "Ok(Refused)", None),
    ] {
        let (server, _task) = Server::start(move |_, _, _| async move {
            let error = json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": format!("Transaction cancelled [None, {code}]"),
                "CancellationReasons": [{ "Code": "None" }, { "Code": code, "Message": CANARY }],
            });
            EngineResponse { status: 400, body: error.to_string().into() }
        })
        .await;
        let table = server.table(1).await;
        for _ in 0..3 {
            let retirement = Retirement::Delete(vec![]);
            let rotated = table.rotate(row(1), &Key::binary(b"old"), &retirement).await;
            assert_eq!(format!("{rotated:?}"), expected, "{code}");
        }
        assert_eq!(table.write_failure(), failure, "{code}");
    }
}

/// Some servers do not send the row with a failed condition. `Refused(None)` must still mean that there is no row.
#[tokio::test]
async fn row_is_read_if_a_refusal_does_not_contain_it() {
    let (server, _task) = Server::start(|engine, target, body| async move {
        let response = engine.dispatch(&target, body).await;
        let mut json: Value = serde_json::from_slice(&response.body).unwrap();
        if response.status == 400 {
            json.as_object_mut().unwrap().remove("Item").expect("a row");
        }
        EngineResponse { status: response.status, body: json.to_string().into() }
    })
    .await;
    let table = server.table(3).await;
    table.create(row(5)).await.unwrap();
    let written = table.update(&Key::binary(b"k"), &set_iss(5)).await.unwrap();
    assert_eq!(written, ConditionalWrite::Refused(Some(row(5))));
}

#[tokio::test]
async fn endpoint_that_is_not_an_http_url_is_rejected() {
    for endpoint in ["", "localhost:8000", "ftp://x", "http://", "http:///x", "http://a b"] {
        let error = Store::connect(&config(endpoint.into(), 1), Some(local_credentials())).await.unwrap_err();
        assert!(matches!(error, StoreOpenError::Endpoint), "{endpoint}: {error}");
    }
}

/// The environment belongs to the whole process, so the store is opened in a child process with another one.
#[test]
fn error_for_a_missing_region_or_credentials_says_what_to_set() {
    let region = first_error_with(&[("AWS_EC2_METADATA_DISABLED", "true")]);
    assert!(region.contains("AWS_REGION"), "{region}");
    let none = [("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_REGION", "us-east-1")];
    let credentials = first_error_with(&none);
    assert!(credentials.contains("AWS_ACCESS_KEY_ID"), "{credentials}");
    assert!(!credentials.contains("such as `local`"), "{credentials}");
    let endpoint = first_error_with(&[none[0], none[1], ("TEST_ENDPOINT", "http://127.0.0.1:1")]);
    assert!(endpoint.contains("such as `local`"), "{endpoint}");
}

#[test]
fn silent_metadata_service_delays_the_error_by_less_than_15_seconds() {
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let metadata = format!("http://{}", silent.local_addr().unwrap());
    let begin = Instant::now();
    let error = first_error_with(&[
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.as_str()),
    ]);
    assert!(error.contains("AWS_ACCESS_KEY_ID"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}

/// A credentials helper that fails after the first load is reported as denied access, not as an outage of DynamoDB.
#[cfg(unix)]
#[test]
fn credentials_that_cannot_be_renewed_are_access_denied() {
    let directory = super::Directory::new("helper");
    let (config, used) = (directory.0.join("config"), directory.0.join("used"));
    let expired =
        r#"{"Version":1,"AccessKeyId":"a","SecretAccessKey":"b","Expiration":"2020-01-01T00:00:00Z"}"#;
    let helper = directory.0.join("helper.sh");
    let once = format!("[ -e {0} ] && exit 3\ntouch {0}\necho '{expired}'\n", used.display());
    std::fs::write(&helper, once).unwrap();
    std::fs::write(&config, format!("[default]\ncredential_process = sh {}\n", helper.display())).unwrap();
    let path = std::env::var("PATH").unwrap();
    let error = first_error_with(&[
        ("PATH", &path),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
    ]);
    assert!(error.starts_with("DynamoDB denied access: no credentials: "), "{error}");
    assert!(used.exists(), "the helper worked once");
}

/// Returns the first error of a store in a child process with this environment only.
fn first_error_with(environment: &[(&str, &str)]) -> String {
    let directory = super::Directory::new("home");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::faults::opens_in_this_environment", "--ignored", "--nocapture"])
        .env_clear()
        .env("HOME", &directory.0)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = output.lines().find_map(|line| line.split_once("ERROR: ")).map(|(_, error)| error.to_owned());
    error.unwrap_or_else(|| panic!("no error: {output}"))
}

#[tokio::test]
#[ignore = "run by the tests above in a child process"]
async fn opens_in_this_environment() {
    let endpoint = std::env::var("TEST_ENDPOINT").ok();
    let config = DynamodbConfig { region: None, endpoint, ..config(String::new(), 1) };
    match Store::connect(&config, None).await {
        Err(error) => println!("ERROR: {error}"),
        Ok(store) => {
            let table = store.table("rows", "sid", KeyType::Binary);
            println!("ERROR: {}", table.get(&Key::binary(b"k"), Read::Strong).await.unwrap_err());
        }
    }
}

const LIMIT: Duration = Duration::from_secs(1);

/// Returns the error of a read that gets this response.
async fn read_error(status: u16, body: String) -> StoreError {
    let (server, _task) = Server::start(move |_, _, _| {
        let body = body.clone();
        async move { EngineResponse { status, body: body.into() } }
    })
    .await;
    let table = table(server.0, 1).await;
    table.get(&Key::binary(b"k"), Read::Strong).await.unwrap_err()
}

/// An HTTP server in DynamoDB's place, whose responses are made by a function that can use an engine.
struct Server(SocketAddr);

impl Server {
    async fn start<F, A>(respond: F) -> (Self, JoinHandle<()>)
    where
        F: Fn(Engine, String, Bytes) -> A + Clone + Send + 'static,
        A: Future<Output = EngineResponse> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let engine = Engine::memory().unwrap();
        Store::with_engine(&engine).table("rows", "sid", KeyType::Binary).provision(None).await.unwrap();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (engine, respond) = (engine.clone(), respond.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (engine, respond) = (engine.clone(), respond.clone());
                    async move {
                        let target = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let EngineResponse { status, body } = respond(engine, target, body).await;
                        let response = Response::builder().status(status);
                        Ok::<_, Infallible>(response.body(Full::new(body)).unwrap())
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        (Self(address), task)
    }

    async fn table(&self, attempts: u32) -> Table {
        table(self.0, attempts).await
    }
}

async fn table(address: SocketAddr, attempts: u32) -> Table {
    let config = config(format!("http://{address}"), attempts);
    let store = Store::connect(&config, Some(local_credentials())).await.unwrap();
    store.table("rows", "sid", KeyType::Binary)
}

fn config(endpoint: String, attempts: u32) -> DynamodbConfig {
    DynamodbConfig {
        region: Some("us-east-1".into()),
        profile: None,
        role_arn: None,
        endpoint: Some(endpoint),
        timeout: LIMIT,
        attempts,
    }
}

fn row(iss: u64) -> Item {
    Item::from([("sid".into(), Attribute::Binary(b"k".into())), ("iss".into(), Attribute::number(iss))])
}

fn set_iss(iss: u64) -> Update {
    let value = Attribute::number(iss);
    Update {
        set: vec![("iss".into(), value.clone())],
        conditions: vec![WriteCondition::Less("iss".into(), value)],
    }
}
