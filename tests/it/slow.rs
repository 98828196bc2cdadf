//! Clients that take their time, over HTTP/1.1: each wait has its limit, and its answer.

use crate::support::client::{Client, Request};
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

fn public(upstream: &Upstream, timeouts: &str) -> Builder {
    Gateway::builder()
        .upstream("app", upstream)
        .route("/", "public", "")
        .server(&format!("workers = 1\n{timeouts}"))
}

#[tokio::test]
async fn a_head_that_does_not_end_is_told_408() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "header_timeout = \"300ms\"").start().await;
    // Within what could be HTTP/2's preface, within the first head, and within the second.
    for begun in ["P", "PRI * HTTP", "GET / HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(begun).await;
        assert_eq!(client.read_response().await.unwrap().status, 408, "{begun:?}");
        assert!(client.is_closed().await);
    }
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.request(&Request::get("/")).await.status, 200);
    client.send("GET / HT").await;
    assert_eq!(client.read_response().await.unwrap().status, 408);
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHo").await;
    assert_eq!(client.read_response().await.unwrap().status, 200, "the first of two");
    assert_eq!(client.read_response().await.unwrap().status, 408, "the beginning of the second");
    assert_eq!(upstream.request_count(), 2);
}

#[tokio::test]
async fn a_byte_at_a_time_does_not_prolong_a_head() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "header_timeout = \"300ms\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
    let head = client.drip().await;
    assert!(head.start.starts_with("HTTP/1.1 408"), "{}", head.start);
}

#[tokio::test]
async fn who_says_nothing_is_closed_without_a_word() {
    let upstream = Upstream::start();
    let timeouts = "header_timeout = \"300ms\"\nidle_timeout = \"300ms\"";
    let gateway = public(&upstream, timeouts).start().await;
    assert_eq!(Client::connect(gateway.address()).await.read_to_end().await, b"", "before the first request");
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.request(&Request::get("/")).await.status, 200);
    assert_eq!(client.read_to_end().await, b"", "after it");
}

#[tokio::test]
async fn a_parked_connection_serves_on() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "").env("RUST_LOG", "info,sessiongate=debug").start().await;
    let mut client = Client::connect(gateway.address()).await;
    for round in 1..=2 {
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        let parked = || gateway.events("an idle connection is parked").len();
        eventually("the connection is parked", || async { parked() == round }).await;
    }
    assert_eq!(client.request(&Request::post("/", "abc")).await.status, 200);
    assert_eq!(upstream.last_request().message.body, b"abc");
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(client.is_closed().await, "and a drain does not wait for it");
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn a_body_that_stops_is_told_408() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "body_timeout = \"300ms\"").start().await;
    for framing in ["Content-Length: 9\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        let answer = client.read_response().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{framing:?}");
        assert!(client.is_closed().await);
    }
    assert_eq!(upstream.request_count(), 0, "half a request is none");
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn a_body_that_drips_is_told_408_in_the_end() {
    let upstream = Upstream::start();
    let gateway = public(&upstream, "body_timeout = \"500ms\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
    let head = client.drip().await;
    assert!(head.start.starts_with("HTTP/1.1 408"), "{}", head.start);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok(vec![b'x'; 32 << 20]));
    let gateway = public(&upstream, "send_timeout = \"300ms\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    // Written when the response is given up; nothing was read until then.
    let line = gateway.wait_for_event("a line", |event| field(event, "message") == "request").await;
    assert_eq!(field(&line, "complete"), false, "{line}");
    assert!(client.read_response().await.is_err(), "and what there is of it is not complete");
}

#[tokio::test]
async fn a_refusal_is_read_though_most_of_the_body_was_not() {
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
