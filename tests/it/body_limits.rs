//! Request bodies that are larger than `max_body`, with a Content-Length and chunked.

use crate::support::client::Client;
use crate::support::gate::Gate;
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

async fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::builder()
        .server("workers = 1\n[server.limits]\nmax_body = \"1000B\"")
        .upstream("app", upstream)
        .route("/", "public", "")
        .route("/large", "public", "max_body = \"1MiB\"")
        .route("/none", "public", "max_body = \"0B\"")
        .start()
        .await
}

#[tokio::test]
async fn content_length_above_the_limit_is_413_and_not_forwarded() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream).await;
    for (path, size, status) in [
        ("/", 1000, 200),
        ("/", 1001, 413),
        ("/large", 100_000, 200),
        ("/large", 1024 * 1024 + 1, 413),
        ("/none", 0, 200),
        ("/none", 1, 413),
    ] {
        let before = upstream.request_count();
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n")).await;
        if status == 200 {
            client.send("x".repeat(size)).await;
        }
        let response = client.read_response().await.unwrap();
        assert_eq!(
            (response.status, upstream.request_count() - before),
            (status, usize::from(status == 200)),
            "{path} {size}"
        );
    }
    // No 100 (Continue) invites a body that would be refused.
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2000\r\n\r\n").await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.interim.len()), (413, 0));
    assert!(client.is_closed().await, "the body must not be read as a request");
    let line =
        gateway.wait_for_event("line", |event| crate::support::gateway::field(event, "status") == 413).await;
    assert_eq!(crate::support::gateway::field(&line, "verdict"), "body-too-large");
}

#[tokio::test]
async fn chunked_body_above_the_limit_is_413_and_its_upstream_connection_is_closed() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream).await;
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));

    let mut client = Client::connect(gateway.address()).await;
    client.send(format!("{chunked}{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(client.read_response().await.unwrap().status, 200, "exactly the limit");
    assert_eq!(upstream.last_request().message.body.len(), 1000);

    let mut client = Client::connect(gateway.address()).await;
    client.send(format!("{chunked}{chunk}{chunk}1\r\nx\r\n0\r\n\r\n")).await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
    assert_eq!(upstream.request_count(), 1, "the upstream received no second request");
    assert_eq!(gateway.get("/", "").await.status, 200);
    assert_eq!(upstream.connections(), 2, "the connection with the incomplete request is closed");
}

#[tokio::test]
async fn response_that_began_before_the_body_exceeded_the_limit_is_aborted() {
    let gate = Gate::closed();
    let held = gate.clone();
    // This upstream sends its response before it has received the whole request, like a streaming app.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let upstream = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest).await;
        held.open();
        (ended.is_ok(), rest.windows(5).any(|window| window == b"0\r\n\r\n"))
    });
    let gateway = Gateway::builder()
        .upstream_at("app", address, "")
        .route("/", "public", "max_body = \"10B\"")
        .start()
        .await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n").await;
    client.read_until("half").await;
    client.send("6\r\n123456\r\n0\r\n\r\n").await;
    assert!(client.read_to_end().await.is_empty(), "neither the rest of the response nor a second response");
    crate::support::within("the end of the upstream's connection", gate.pass()).await;
    let (_, complete) = upstream.await.unwrap();
    assert!(!complete, "the upstream must not see a complete request");
}
