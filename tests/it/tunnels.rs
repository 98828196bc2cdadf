//! WebSocket tunnels at the byte level: back-pressure and half-close.

use std::time::Duration;

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

/// Returns a gateway with a route `/ws` to `app`.
fn gateway(engine: &Engine, app: &TcpListener) -> Builder {
    let builder = Gateway::builder().engine(engine).upstream_at("app", app.local_addr().unwrap(), "");
    builder.realm("").route("/ws", "required", "websocket = true")
}

/// Accepts a connection of the gateway, responds to the handshake, and returns the app's end of the tunnel.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = within("the gateway", listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the handshake", stream.read_u8()).await.unwrap());
    }
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(response.as_bytes()).await.unwrap();
    stream
}

/// Opens a tunnel and returns the client's and the app's end.
async fn tunnel(gateway: &Gateway, listener: &TcpListener, session: &Session) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: gateway.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nCookie: {}\r\n\r\n",
        session.cookie()
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let app = accept(listener).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within("the 101", client.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    (client, app)
}

/// Writes until the stream accepts no more, or `limit` bytes are written. Returns the number of bytes written.
async fn fill(stream: &mut TcpStream, limit: usize) -> usize {
    let piece = vec![7; 64 * 1024];
    let mut written = 0;
    while written < limit {
        // On a slow machine this may stop too early; the test then still passes.
        match tokio::time::timeout(Duration::from_millis(500), stream.write(&piece)).await {
            Ok(count) => written += count.unwrap(),
            Err(_) => break,
        }
    }
    written
}

/// Bytes that one end does not read stay at the other end, not in the gateway's memory.
#[tokio::test(flavor = "multi_thread")]
async fn unread_bytes_block_the_sender_and_use_no_memory() {
    const PLENTY: usize = 256 << 20;
    let (engine, other) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&engine, &listener)
        .upstream("other", &other)
        .toml("[admin]\naddress = \"127.0.0.1:0\"\n[[routes]]\npath = \"/\"\naccess = \"public\"\nupstream = \"other\"")
        .start()
        .await;
    let (mut client, mut app) = tunnel(&gateway, &listener, &session).await;
    let memory = async || Metrics::scrape(&gateway).await.sum("process_resident_memory_bytes", &[]);
    let before = memory().await;

    let down = fill(&mut app, PLENTY).await;
    let up = fill(&mut client, PLENTY).await;
    assert!(0 < down && down < PLENTY && 0 < up && up < PLENTY, "{down} down, {up} up");
    for _ in 0..50 {
        assert_eq!(gateway.get("/", "").await.status, 200, "another request is not served");
    }
    let grown = memory().await - before;
    assert!(grown < f64::from(16 << 20), "{grown} bytes for {down} down and {up} up");

    // All bytes arrive when they are read.
    assert_arrives(&mut app, &mut client, down).await;
    assert_arrives(&mut client, &mut app, up).await;
}

/// Asserts that `count` bytes arrive, and then further ones.
async fn assert_arrives(from: &mut TcpStream, to: &mut TcpStream, count: usize) {
    let mut received = vec![0; count];
    within("the blocked bytes", to.read_exact(&mut received)).await.unwrap();
    assert!(received.iter().all(|byte| *byte == 7));
    from.write_all(b"more").await.unwrap();
    within("further bytes", to.read_exact(&mut received[..4])).await.unwrap();
    assert_eq!(&received[..4], b"more");
}

#[tokio::test]
async fn half_close_of_either_end_is_forwarded_and_the_other_direction_stays_open() {
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&engine, &listener).start().await;
    for client_first in [true, false] {
        let (client, app) = tunnel(&gateway, &listener, &session).await;
        let (mut first, mut second) = if client_first { (client, app) } else { (app, client) };
        first.write_all(b"last bytes of the first").await.unwrap();
        first.shutdown().await.unwrap();
        let mut received = String::new();
        within("the end of one direction", second.read_to_string(&mut received)).await.unwrap();
        assert_eq!(received, "last bytes of the first", "{client_first}");
        second.write_all(b"last bytes of the second").await.unwrap();
        second.shutdown().await.unwrap();
        received.clear();
        within("the end of the other direction", first.read_to_string(&mut received)).await.unwrap();
        assert_eq!(received, "last bytes of the second", "{client_first}");
    }
}
