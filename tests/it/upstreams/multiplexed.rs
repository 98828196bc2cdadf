//! HTTP/2 servers: refused streams and trailers.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::gateway;
use crate::support::client::{Client, Request};
use crate::support::gateway::Gateway;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;
use crate::support::within;

type Call = (http::Request<RecvStream>, SendResponse<Bytes>);

/// Starts an HTTP/2 server without TLS. Returns its URL and a channel of its requests.
async fn server() -> (String, mpsc::Receiver<Call>) {
    server_with(100).await
}

/// Starts a server that allows this many concurrent streams of a connection.
async fn server_with(streams: u32) -> (String, mpsc::Receiver<Call>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("h2c://{}", listener.local_addr().expect("is bound"));
    let (calls, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let calls = calls.clone();
            tokio::spawn(async move {
                let handshake = h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream);
                let mut connection = handshake.await.expect("a handshake");
                while let Some(Ok(call)) = connection.accept().await {
                    calls.send(call).await.expect("the test is running");
                }
            });
        }
    });
    (url, receiver)
}

async fn body(mut body: RecvStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.expect("the whole body");
        body.flow_control().release_capacity(data.len()).expect("was received");
        all.extend_from_slice(&data);
    }
    all
}

#[tokio::test]
async fn refused_stream_is_retried_with_the_whole_body() {
    let (server, mut calls) = server().await;
    let gateway = gateway(&[server], "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::new("POST", "/").header("Content-Length", "5")).await;
    let (_, mut respond) = within("the request", calls.recv()).await.expect("a request");
    respond.send_reset(Reason::REFUSED_STREAM);
    let (request, mut respond) = within("the retry", calls.recv()).await.expect("a request");
    client.send("hello").await;
    assert_eq!(within("the body", body(request.into_body())).await, b"hello");
    respond.send_response(http::Response::new(()), true).expect("is open");
    assert_eq!(client.read_response().await.expect("a response").status, 200);
}

#[tokio::test]
async fn stream_reset_with_another_error_is_not_retried() {
    let (server, mut calls) = server().await;
    let gateway = gateway(&[server], "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::new("POST", "/").header("Content-Length", "5")).await;
    let (_, mut respond) = within("the request", calls.recv()).await.expect("a request");
    respond.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.read_response().await.expect("a response").status, 502);
    assert!(calls.try_recv().is_err(), "the request was retried");
}

#[tokio::test]
async fn request_trailers_are_forwarded_to_http_2_servers_without_scrubbed_names() {
    let (server, mut calls) = server().await;
    let gateway = gateway(&[server], "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\
             X-Session-Status: active\r\nX-Forwarded-For: 6.6.6.6\r\nX-HTTP-Method-Override: DELETE\r\n\
             Authorization: Basic YTpi\r\n\r\n",
        )
        .await;
    let (request, mut respond) = within("the request", calls.recv()).await.expect("a request");
    let mut stream = request.into_body();
    let mut received = Vec::new();
    while let Some(data) = within("the body", stream.data()).await {
        received.extend_from_slice(&data.expect("the whole body"));
    }
    let trailers = within("the trailers", stream.trailers()).await.expect("the trailers").expect("some");
    let trailers: Vec<_> = trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!((received.as_slice(), trailers), (&b"abc"[..], vec![("x-sum", &b"1"[..])]));
    respond.send_response(http::Response::new(()), true).expect("is open");
    assert_eq!(client.read_response().await.expect("a response").status, 200);
}

#[tokio::test]
async fn response_that_is_reset_with_no_error_is_incomplete() {
    let (server, mut calls) = server().await;
    let gateway = gateway(&[server], "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    let (_, mut respond) = within("the request", calls.recv()).await.expect("a request");
    let mut body = respond.send_response(http::Response::new(()), false).expect("is open");
    body.send_data(Bytes::from_static(b"half"), false).expect("is open");
    client.read_until("half").await;
    body.send_reset(Reason::NO_ERROR);
    assert!(!client.read_to_end().await.ends_with(b"0\r\n\r\n"), "the response looks complete");
}

#[tokio::test]
async fn websocket_handshakes_are_sent_to_servers_with_http_1_only() {
    let (multiplexed, _calls) = server().await;
    let plain = Upstream::responding(|_| ScriptedResponse::new(403, ""));
    let servers = format!("[upstreams.app]\nservers = [\"{multiplexed}\", \"http://{}\"]", plain.address());
    let gateway = Gateway::builder().toml(&servers).route("/", "public", "websocket = true").start().await;
    let handshake = Request::get("/")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    for _ in 0..4 {
        assert_eq!(gateway.send(&handshake).await.status, 403);
    }
    assert_eq!(plain.request_count(), 4);
}

#[tokio::test]
async fn another_connection_is_opened_if_the_server_allows_no_further_stream() {
    let (server, mut calls) = server_with(1).await;
    let gateway = gateway(&[server], "").server("workers = 1").start().await;
    let mut first = Client::connect(gateway.address()).await;
    first.send_request(&Request::get("/events")).await;
    let (_, mut respond) = within("the first request", calls.recv()).await.expect("a request");
    let mut events = respond.send_response(http::Response::new(()), false).expect("is open");
    events.send_data(Bytes::from_static(b"one"), false).expect("is open");
    first.read_until("one").await;
    let mut second = Client::connect(gateway.address()).await;
    second.send_request(&Request::get("/")).await;
    let (_, mut respond) = within("the second request", calls.recv()).await.expect("a request");
    respond.send_response(http::Response::new(()), true).expect("is open");
    assert_eq!(second.read_response().await.expect("a response").status, 200);
}
