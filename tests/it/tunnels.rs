//! The bytes of a tunnel: back-pressure, and the end of one direction, seen from both ends without a library between.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::engine::Engine;
use crate::support::gateway::{Builder, Gateway};
use crate::support::metrics::Metrics;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;
use crate::support::within;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A gateway with a route `/ws` to `app`.
fn gateway(engine: &Engine, app: &TcpListener) -> Builder {
    let builder = Gateway::builder().engine(engine).upstream_at("app", app.local_addr().unwrap(), "");
    builder.realm("").route("/ws", "required", "websocket = true")
}

async fn alice(engine: &Engine) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    session.put(engine).await;
    session
}

/// An app's side of a tunnel, by hand: agrees to the handshake, and then it is the test's.
async fn far(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = within("the gateway", listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the handshake", stream.read_u8()).await.unwrap());
    }
    let agreed = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(agreed.as_bytes()).await.unwrap();
    stream
}

/// Both ends of a tunnel, without a library that would answer for them.
async fn tunnel(gateway: &Gateway, listener: &TcpListener, session: &Session) -> (TcpStream, TcpStream) {
    let mut near = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nCookie: {}\r\n\r\n",
        session.cookie()
    );
    near.write_all(request.as_bytes()).await.unwrap();
    let far = far(listener).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the 101", near.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    (near, far)
}

/// Writes until nothing more is taken, or `most` is; how much was.
async fn fill(stream: &mut TcpStream, most: usize) -> usize {
    let piece = vec![7; 64 * 1024];
    let mut taken = 0;
    while taken < most {
        // That nothing is taken for so long may be the machine's slowness, which would make the test easier to pass.
        match tokio::time::timeout(Duration::from_millis(500), stream.write(&piece)).await {
            Ok(written) => taken += written.unwrap(),
            Err(_) => break,
        }
    }
    taken
}

/// What one side does not read waits where it comes from, and not in the gateway.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_not_sent_more_and_costs_nobody_anything() {
    const PLENTY: usize = 256 << 20;
    let (engine, other) = (table::engine().await, Upstream::start());
    let session = alice(&engine).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&engine, &listener)
        .upstream("other", &other)
        .toml("[admin]\naddress = \"127.0.0.1:0\"\n[[routes]]\npath = \"/\"\naccess = \"public\"\nupstream = \"other\"")
        .start()
        .await;
    let (mut near, mut far) = tunnel(&gateway, &listener, &session).await;
    let memory = async || Metrics::scrape(&gateway).await.sum("process_resident_memory_bytes", &[]);
    let before = memory().await;

    let down = fill(&mut far, PLENTY).await;
    let up = fill(&mut near, PLENTY).await;
    assert!(0 < down && down < PLENTY && 0 < up && up < PLENTY, "{down} down, {up} up");
    for _ in 0..50 {
        assert_eq!(gateway.get("/", "").await.status, 200, "others are served");
    }
    let grown = memory().await - before;
    assert!(grown < f64::from(16 << 20), "{grown} bytes for {down} down and {up} up");

    // And all of it arrives when it is read.
    arrives(&mut far, &mut near, down).await;
    arrives(&mut near, &mut far, up).await;
}

/// Reads so much, and what is sent after it.
async fn arrives(from: &mut TcpStream, to: &mut TcpStream, count: usize) {
    let mut received = vec![0; count];
    within("what waited", to.read_exact(&mut received)).await.unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    from.write_all(b"more").await.unwrap();
    within("what comes after it", to.read_exact(&mut received[..4])).await.unwrap();
    assert_eq!(&received[..4], b"more");
}

/// The end of one direction is passed on, and the other goes on.
#[tokio::test]
async fn either_side_may_end_first_and_still_listen() {
    let engine = table::engine().await;
    let session = alice(&engine).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&engine, &listener).start().await;
    for client_first in [true, false] {
        let (near, far) = tunnel(&gateway, &listener, &session).await;
        let (mut first, mut second) = if client_first { (near, far) } else { (far, near) };
        first.write_all(b"the last of one").await.unwrap();
        first.shutdown().await.unwrap();
        let mut received = String::new();
        within("the end", second.read_to_string(&mut received)).await.unwrap();
        assert_eq!(received, "the last of one", "{client_first}");
        second.write_all(b"and of the other").await.unwrap();
        second.shutdown().await.unwrap();
        received.clear();
        within("the other end", first.read_to_string(&mut received)).await.unwrap();
        assert_eq!(received, "and of the other", "{client_first}");
    }
}
