//! The embedded engine by itself: its files, its expiry, and the API that it serves to local apps.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sessiongate::config::StoreConfig;
use sessiongate::item::{Attribute, Item, Key, KeyType};
use sessiongate::store::embedded::Engine;
use sessiongate::store::table::Read;
use sessiongate::store::{Store, StoreOpenError};
use sessiongate::time::Clock;

use super::Directory;
use crate::support::packages::Runtime;

#[tokio::test]
async fn file_that_is_not_a_database_is_rejected_and_kept() {
    let directory = Directory::new("files");
    let text = directory.0.join("notes.txt");
    std::fs::write(&text, "shopping list: one thing, and another").unwrap();
    let error = Engine::file(&text).await.unwrap_err();
    assert!(matches!(error, StoreOpenError::NotADatabase(_)), "{error}");
    assert!(error.to_string().contains("notes.txt"), "{error}");
    assert_eq!(std::fs::read_to_string(&text).unwrap(), "shopping list: one thing, and another");

    // Only the first bytes are those of a database.
    let damaged = directory.0.join("damaged.db");
    std::fs::write(&damaged, [b"SQLite format 3\0".as_slice(), &[7; 4096]].concat()).unwrap();
    let error = Engine::file(&damaged).await.unwrap_err();
    assert!(matches!(error, StoreOpenError::Engine(_)), "{error}");

    for nowhere in [directory.0.clone(), directory.0.join("no/such/directory.db")] {
        let error = Engine::file(&nowhere).await.unwrap_err();
        assert!(matches!(error, StoreOpenError::File { .. }), "{error}");
    }
    assert!(Engine::file(Path::new("")).await.is_err());
}

#[cfg(unix)]
#[tokio::test]
async fn new_file_is_accessible_to_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let directory = Directory::new("mode");
    let path = directory.0.join("sessions.db");
    let config = StoreConfig::Embedded { path: Some(path), listen: None };
    let store = Store::open(&config).await.unwrap();
    store.table("rows", "sid", KeyType::Binary).provision(None).await.unwrap();
    let files: Vec<_> = std::fs::read_dir(&directory.0).unwrap().map(Result::unwrap).collect();
    assert!(!files.is_empty());
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn two_engines_can_use_one_file() {
    let directory = Directory::new("shared");
    let path = directory.0.join("sessions.db");
    let (one, other) = (Engine::file(&path).await.unwrap(), Engine::file(&path).await.unwrap());
    let row = Item::from([("sid".into(), Attribute::Binary(b"k".into()))]);
    let table = Store::with_engine(&one).table("rows", "sid", KeyType::Binary);
    table.provision(None).await.unwrap();
    table.create(row.clone()).await.unwrap();
    let seen = Store::with_engine(&other).table("rows", "sid", KeyType::Binary);
    assert_eq!(seen.get(&Key::binary(b"k"), Read::Strong).await.unwrap(), Some(row));
}

#[tokio::test]
async fn sweep_removes_expired_rows_only() {
    let engine = Engine::memory().unwrap();
    let table = Store::with_engine(&engine).table("rows", "sid", KeyType::Binary);
    table.provision(Some("exp")).await.unwrap();
    let now = Clock.now().wall;
    for (key, expires) in
        [("old", now.minus(Duration::from_secs(60))), ("new", now.plus(Duration::from_secs(60)))]
    {
        let row = Item::from([
            ("sid".into(), Attribute::Binary(key.into())),
            ("exp".into(), Attribute::number(expires.as_secs())),
        ]);
        table.create(row).await.unwrap();
    }
    assert_eq!(engine.sweep().await.unwrap(), 1);
    assert!(table.get(&Key::binary(b"old"), Read::Strong).await.unwrap().is_none());
    assert!(table.get(&Key::binary(b"new"), Read::Strong).await.unwrap().is_some());
}

/// The errors are in DynamoDB's form and reveal nothing of the engine, which keeps working.
#[tokio::test]
async fn malformed_requests_get_errors_of_dynamodb() {
    let engine = Engine::memory().unwrap();
    let operations = ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan", "Query", "CreateTable"];
    let others = ["BatchWriteItem", "TransactWriteItems", "UpdateTimeToLive", "ListStreams", "Nonsense", ""];
    let deep = format!(r#"{{"TableName":"t","Item":{}1{}}}"#, r#"{"M":"#.repeat(200), "}".repeat(200));
    let bodies = [
        "{}",
        "[]",
        "null",
        "7",
        r#"{"TableName":7}"#,
        r#"{"TableName":"t","Key":{"sid":{}}}"#,
        r#"{"TableName":"t","Key":{"sid":{"S":1}},"Item":{"sid":{"N":"x"}}}"#,
        r#"{"TableName":"t","Key":{"sid":{"B":"***"}},"Item":{"sid":{"NULL":false}}}"#,
        r#"{"TableName":"t","ConditionExpression":"((((","UpdateExpression":"SET","FilterExpression":":"}"#,
        r#"{"TableName":"t\u0000'; DROP TABLE x","Limit":-1,"Segment":9}"#,
        &deep,
    ];
    for operation in operations.iter().chain(&others) {
        for body in bodies {
            let target = format!("DynamoDB_20120810.{operation}");
            let response = engine.dispatch(&target, Bytes::copy_from_slice(body.as_bytes())).await;
            let text = String::from_utf8(response.body.to_vec()).unwrap();
            assert_eq!(
                response.status,
                if operation == &"Scan" && text.contains("Items") { 200 } else { 400 },
                "{text}"
            );
            assert!(text.starts_with(r#"{"__type":"com.amazon"#), "{operation} {body}: {text}");
            for internal in ["VALIDATION", "SERIALIZATION:", " at line ", "panicked"] {
                assert!(!text.contains(internal), "{operation} {body}: {text}");
            }
        }
    }
    let response = engine.dispatch("DynamoDB_20120810.ListTables", Bytes::from_static(b"{}")).await;
    assert_eq!((response.status, &response.body[..]), (200, br#"{"TableNames":[]}"#.as_slice()));
}

#[tokio::test(flavor = "multi_thread")]
async fn api_accepts_sdks_and_refuses_browsers() {
    let (_store, address) = served().await;
    let talk = move |request: String| tokio::task::spawn_blocking(move || exchange(address, &request));
    let post = |headers: &str, body: &str| {
        let length = body.len();
        format!(
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        )
    };

    let list = post("x-amz-target: DynamoDB_20120810.ListTables\r\n", "{}");
    let response = talk(list).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("content-type: application/x-amz-json-1.0"), "{response}");
    // CRC-32 of {"TableNames":[]}
    assert!(response.contains("x-amz-crc32: 1315925753"), "{response}");
    let id = response.lines().find_map(|line| line.strip_prefix("x-amzn-requestid: ")).unwrap();
    assert!(id.len() == 52 && id.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()));

    let browser = post("x-amz-target: DynamoDB_20120810.ListTables\r\norigin: http://evil.example\r\n", "{}");
    assert!(talk(browser).await.unwrap().starts_with("HTTP/1.1 403"));
    // After DNS rebinding, a page sends no `Origin`: to its browser, the request is same-origin.
    let list = post("x-amz-target: DynamoDB_20120810.ListTables\r\n", "{}");
    for host in ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", ""]
    {
        let response = talk(list.replace("localhost", host)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 421"), "{host}: {response}");
        assert!(
            response.contains("AccessDeniedException") && response.contains("for the hosts 127.0.0.1"),
            "{response}"
        );
    }
    let nameless = list.replace("host: localhost\r\n", "");
    assert!(talk(nameless).await.unwrap().starts_with("HTTP/1.1 421"));
    for host in ["127.0.0.1:8000", "[::1]:8000", "LOCALHOST"] {
        let response = talk(list.replace("localhost", host)).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200"), "{host}: {response}");
    }
    let get = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned();
    assert!(talk(get).await.unwrap().starts_with("HTTP/1.1 404"));
    let nothing = talk(post("", "{}")).await.unwrap();
    assert!(nothing.contains("UnknownOperationException"), "{nothing}");
    let huge = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n".to_owned();
    assert!(talk(huge).await.unwrap().starts_with("HTTP/1.1 413"));
    let chunk = "x".repeat(1024 * 1024);
    let chunks = format!("100000\r\n{chunk}\r\n").repeat(18);
    let endless = format!("POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    assert!(talk(endless).await.unwrap().starts_with("HTTP/1.1 413"));
}

#[tokio::test(flavor = "multi_thread")]
async fn api_listens_on_loopback_and_closes_with_the_store() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let config = StoreConfig::Embedded { path: None, listen: Some(address.parse().unwrap()) };
        let error = Store::open(&config).await.unwrap_err();
        assert!(matches!(error, StoreOpenError::NotLoopback(_)), "{error}");
    }
    let (store, address) = served().await;
    let config = StoreConfig::Embedded { path: None, listen: Some(address) };
    let taken = Store::open(&config).await.unwrap_err();
    assert!(matches!(taken, StoreOpenError::Listen { .. }), "{taken}");

    drop(store);
    let closed = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closed).await.expect("the API closes");
}

/// boto is another SDK, and verifies checksums.
#[tokio::test(flavor = "multi_thread")]
async fn boto_can_use_the_api() {
    let Some(mut command) = Runtime::Python.command("botocore", &["botocore==1.43.106"]) else { return };
    let (_store, address) = served().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/store/boto.py");
    command.arg(script).arg(format!("http://{address}"));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn served() -> (Store, SocketAddr) {
    let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let store = Store::open(&StoreConfig::Embedded { path: None, listen }).await.unwrap();
    let address = store.api_address().unwrap();
    (store, address)
}

fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The server may respond and close the connection before it has read the whole request.
    let _ = stream.write_all(request.as_bytes());
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}
