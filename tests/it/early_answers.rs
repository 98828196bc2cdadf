//! Requests that are answered before all of their body has come: by a server that has seen enough, or by a refusal. The
//! clients are real ones, which lose a response that a reset follows too closely.

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

/// What is uploaded: more than windows and the system's buffers hold.
const UPLOAD: usize = 20_000_000;

/// A server that answers 413 as soon as it has a request's head, which names what it does then and how long the
/// response's body is: `/close/5` or `/read/5`.
async fn hasty() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(refuse(stream));
        }
    });
    address
}

async fn refuse(mut stream: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let (rest, length) = head.split(' ').nth(1)?.strip_prefix('/')?.split_once('/')?;
    let body = vec![b'x'; length.parse().ok()?];
    let head =
        format!("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
    if rest == "read" {
        stream.shutdown().await.ok()?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok()?;
    }
    Some(())
}

/// What each real client makes of the response to an upload: its name, the status, and the length of the body.
fn uploads(gateway: &Gateway, path: &str) -> Vec<(&'static str, String)> {
    let file = gateway.directory().join("upload");
    std::fs::write(&file, vec![0; UPLOAD]).unwrap();
    let (origin, file) = (format!("http://{}", gateway.address()), file.display().to_string());
    let curl = |version: &str| {
        let (url, data) = (format!("{origin}{path}"), format!("@{file}"));
        let told = ["-sS", "-m", "20", version, "-H", "Expect:", "-o", "/dev/null"];
        let asked = ["-w", "%{http_code} %{size_download}", "--data-binary", &data, &url];
        successful_output("curl", &[&told[..], &asked].concat())
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/upload.js").display().to_string();
    let node = |version: &str| successful_output("node", &[&script, version, &origin, path, &file]);
    let all = [
        ("curl, HTTP/1.1", curl("--http1.1")),
        ("curl, HTTP/2", curl("--http2-prior-knowledge")),
        ("Node, HTTP/1.1", node("1")),
        ("Node, HTTP/2", node("2")),
    ];
    all.into_iter().filter_map(|(name, said)| Some((name, said?.trim().to_owned()))).collect()
}

/// The story of a client that reads nothing of the response before it has sent all.
async fn stubborn(gateway: &Gateway, path: &str, before: usize) -> Option<Value> {
    let arguments = [json!(path), json!(3_000_000), json!(before)];
    Some(Script::http2_client("h2_client.py", "upload", gateway.address(), &arguments)?.next_json().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_early_answer_reaches_clients_that_are_still_sending() {
    let hasty = hasty().await;
    let gateway = Gateway::builder().upstream_at("app", hasty, "").route("/", "public", "").start().await;
    for path in ["/close/0", "/close/5", "/close/100000", "/read/5", "/read/100000"] {
        let length = path.rsplit('/').next().unwrap();
        for (client, seen) in uploads(&gateway, path) {
            assert_eq!(seen, format!("413 {length}"), "{client}: {path}");
        }
        let Some(story) = stubborn(&gateway, path, 0).await else { continue };
        let expected = json!([413, length.parse::<usize>().unwrap(), true, null]);
        let seen = json!([story["status"], story["body"], story["ended"], story["reset"]]);
        assert_eq!(seen, expected, "{path}: {story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_clients_that_are_still_sending() {
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
        let Some(story) = stubborn(&gateway, path, 0).await else { continue };
        let seen = json!([story["status"], story["ended"], story["reset"]]);
        assert_eq!(seen, json!([status, true, null]), "{path}: {story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_the_rate_reaches_a_client_that_is_still_sending() {
    let (upstream, rate) = (Upstream::start(), "rate = { per_second = 1, burst = 1 }");
    let gateway = Gateway::builder().upstream("app", &upstream).route("/rare", "public", rate).start().await;
    let Some(story) = stubborn(&gateway, "/rare", 1).await else { return };
    let seen = json!([story["status"], story["ended"], story["reset"]]);
    assert_eq!(seen, json!([429, true, null]), "{story}");
}
