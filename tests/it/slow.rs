//! Slow HTTP/1.1 clients: each wait has a timeout.

use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

fn public_gateway(upstream: &Upstream, timeouts: &str) -> Builder {
    Gateway::builder()
        .upstream("app", upstream)
        .route("/", "public", "")
        .server(&format!("workers = 1\n{timeouts}"))
}

#[tokio::test]
async fn incomplete_head_is_408() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream, "header_timeout = \"300ms\"").start().await;
    // The first two could begin the HTTP/2 preface; the third is an incomplete head.
    for part in ["P", "PRI * HTTP", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(part).await;
        assert_eq!(client.read_response().await.unwrap().status, 408, "{part:?}");
        assert!(client.is_closed().await);
    }
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.request(&Request::get("/")).await.status, 200);
    client.send("GET / HT").await;
    assert_eq!(client.read_response().await.unwrap().status, 408);
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo").await;
    assert_eq!(client.read_response().await.unwrap().status, 200, "the first request");
    assert_eq!(client.read_response().await.unwrap().status, 408, "the incomplete second request");
    assert_eq!(upstream.request_count(), 2);
}

#[tokio::test]
async fn header_timeout_is_not_extended_by_each_byte() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream, "header_timeout = \"300ms\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    let head = client.drip().await;
    assert!(head.start.starts_with("HTTP/1.1 408"), "{}", head.start);
}

#[tokio::test]
async fn idle_connection_is_closed_without_a_response() {
    let upstream = Upstream::start();
    let timeouts = "header_timeout = \"300ms\"\nidle_timeout = \"300ms\"";
    let gateway = public_gateway(&upstream, timeouts).start().await;
    assert_eq!(Client::connect(gateway.address()).await.read_to_end().await, b"", "before the first request");
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.request(&Request::get("/")).await.status, 200);
    assert_eq!(client.read_to_end().await, b"", "after the first request");
}

#[tokio::test]
async fn parked_connection_serves_further_requests_and_is_closed_by_a_drain() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream, "").env("RUST_LOG", "info,sessiongate=debug").start().await;
    let mut client = Client::connect(gateway.address()).await;
    for round in 1..=2 {
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        let parked = || gateway.events("an idle connection is parked").len();
        eventually("a parked connection", || async { parked() == round }).await;
    }
    assert_eq!(client.request(&Request::post("/", "abc")).await.status, 200);
    assert_eq!(upstream.last_request().message.body, b"abc");
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(client.is_closed().await, "the drain waits for a parked connection");
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn stalled_body_is_408() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream, "body_timeout = \"300ms\"").start().await;
    for framing in ["Content-Length: 9\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        let response = client.read_response().await.unwrap();
        assert_eq!((response.status, response.header("connection")), (408, Some("close")), "{framing:?}");
        assert!(client.is_closed().await);
    }
    assert_eq!(upstream.request_count(), 0, "an incomplete request was forwarded");
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn body_below_the_minimum_rate_is_408() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream, "body_timeout = \"500ms\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let head = client.drip().await;
    assert!(head.start.starts_with("HTTP/1.1 408"), "{}", head.start);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn response_to_a_client_that_does_not_read_is_aborted() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok(vec![b'x'; 32 << 20]));
    let gateway = public_gateway(&upstream, "send_timeout = \"300ms\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    // This line is written when the response is aborted. The client has read nothing until then.
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "complete"), false, "{line}");
    assert!(client.read_response().await.is_err(), "the response is complete");
}

#[tokio::test]
async fn refusal_reaches_a_client_whose_body_was_not_read() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder().upstream("app", &upstream).route("/a", "public", "").start().await;
    for _ in 0..20 {
        let mut client = Client::connect(gateway.address()).await;
        client.send("POST /missing HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").await;
        client.send(vec![b'x'; 200_000]).await;
        assert_eq!(client.read_response().await.unwrap().status, 404);
        assert!(client.is_closed().await);
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(150_000))).await;
        assert_eq!(client.read_response().await.unwrap().status, 431);
    }
    assert_eq!(upstream.request_count(), 0);
}
