//! Early responses: those that the server or the gateway sends before it has received the whole request body. The clients
//! are real ones, which lose a response that a TCP reset follows too soon.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::gateway::Gateway;
use crate::support::program::successful_output;
use crate::support::script::Script;
use crate::support::table;
use crate::support::upstream::Upstream;

/// Size of an upload in bytes: more than flow-control windows and socket buffers hold.
const UPLOAD: usize = 20_000_000;

/// Starts a server that responds with 413 as soon as it has received a request's head. The path says whether it then closes
/// the connection or reads the body, and the length of its response: `/close/5`, `/read/5`.
async fn early_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(respond_early(stream));
        }
    });
    address
}

async fn respond_early(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let (then, length) = head.split(' ').nth(1)?.strip_prefix('/')?.split_once('/')?;
    let body = vec![b'x'; length.parse().ok()?];
    let head =
        format!("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    if then == "read" {
        stream.shutdown().await.ok()?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok()?;
    }
    Some(())
}

/// Uploads with each real client. Returns its name, and the status and body length that it has received.
fn uploads(gateway: &Gateway, path: &str) -> Vec<(&'static str, String)> {
    let file = gateway.directory().join("upload");
    std::fs::write(&file, vec![0; UPLOAD]).unwrap();
    let (origin, file) = (format!("http://{}", gateway.address()), file.display().to_string());
    let curl = |version: &str| {
        let (url, data) = (format!("{origin}{path}"), format!("@{file}"));
        let options = ["-sS", "-m", "20", version, "-H", "Expect:", "-o", "/dev/null"];
        let request = ["-w", "%{http_code} %{size_download}", "--data-binary", &data, &url];
        successful_output("curl", &[&options[..], &request].concat())
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/upload.js").display().to_string();
    let node = |version: &str| successful_output("node", &[&script, version, &origin, path, &file]);
    let all = [
        ("curl, HTTP/1.1", curl("--http1.1")),
        ("curl, HTTP/2", curl("--http2-prior-knowledge")),
        ("Node.js, HTTP/1.1", node("1")),
        ("Node.js, HTTP/2", node("2")),
    ];
    all.into_iter().filter_map(|(name, output)| Some((name, output?.trim().to_owned()))).collect()
}

/// Uploads with a client that reads no response body before it has sent the whole request, and returns what it received.
async fn upload_before_reading(gateway: &Gateway, path: &str, before: usize) -> Option<Value> {
    let arguments = [json!(path), json!(3_000_000), json!(before)];
    Some(Script::http2_client("h2_client.py", "upload", gateway.address(), &arguments)?.next_json().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn early_response_of_a_server_reaches_clients_that_are_still_sending() {
    let server = early_server().await;
    let gateway = Gateway::builder().upstream_at("app", server, "").route("/", "public", "").start().await;
    for path in ["/close/0", "/close/5", "/close/100000", "/read/5", "/read/100000"] {
        let length = path.rsplit('/').next().unwrap();
        for (client, seen) in uploads(&gateway, path) {
            assert_eq!(seen, format!("413 {length}"), "{client}: {path}");
        }
        let Some(outcome) = upload_before_reading(&gateway, path, 0).await else { continue };
        let expected = json!([413, length.parse::<usize>().unwrap(), true, null]);
        let seen = json!([outcome["status"], outcome["body"], outcome["ended"], outcome["reset"]]);
        assert_eq!(seen, expected, "{path}: {outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_reaches_clients_that_are_still_sending() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/required", "required", "")
        .route("/small", "public", "max_body = \"1MB\"")
        .start()
        .await;
    for (path, status) in [("/required", 401), ("/small", 413)] {
        for (client, seen) in uploads(&gateway, path) {
            assert!(seen.starts_with(&format!("{status} ")), "{client}: {path}: {seen}");
        }
        let Some(outcome) = upload_before_reading(&gateway, path, 0).await else { continue };
        let seen = json!([outcome["status"], outcome["ended"], outcome["reset"]]);
        assert_eq!(seen, json!([status, true, null]), "{path}: {outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusal_for_the_request_rate_reaches_a_client_that_is_still_sending() {
    let (upstream, rate) = (Upstream::start(), "rate = { per_second = 1, burst = 1 }");
    let gateway = Gateway::builder().upstream("app", &upstream).route("/rare", "public", rate).start().await;
    let Some(outcome) = upload_before_reading(&gateway, "/rare", 1).await else { return };
    let seen = json!([outcome["status"], outcome["ended"], outcome["reset"]]);
    assert_eq!(seen, json!([429, true, null]), "{outcome}");
}
