//! `Expect: 100-continue` (RFC 9110, 10.1.1): the server decides whether the client sends the request's body.

use std::net::SocketAddr;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::http1::{Message, Reader};
use crate::support::within;

/// A request as the server received it: whether its head had Expect, and its body.
type Received = (bool, Vec<u8>);

/// Starts a server whose response depends on the path: `/accept` sends a 100 response and reads the body, `/refuse`
/// responds with 403 without it, and `/ignore` reads the body without a 100 response.
async fn server() -> (SocketAddr, mpsc::UnboundedReceiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(Reader::new(stream), sender.clone()));
        }
    });
    (address, receiver)
}

async fn serve(mut client: Reader<TcpStream>, sender: mpsc::UnboundedSender<Received>) -> Option<()> {
    while let Some(mut request) = client.read_head().await.ok()? {
        let expects = request.header("expect") == Some("100-continue");
        if request.start.contains(" /refuse ") {
            client.stream().write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await.ok()?;
            // The gateway closes the connection, since this server may wait for the body.
            let body = client.read_to_end().await.unwrap_or_default();
            return sender.send((expects, body)).ok();
        }
        if request.start.contains(" /accept ") {
            client.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
        }
        let framing = request.framing()?;
        client.read_body(&mut request, framing).await.ok()?;
        let Message { body, .. } = request;
        sender.send((expects, body)).ok()?;
        client.stream().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok()?;
    }
    Some(())
}

fn head(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
}

async fn start() -> (Gateway, mpsc::UnboundedReceiver<Received>) {
    let (address, received) = server().await;
    let gateway = Gateway::builder().upstream_at("app", address, "").route("/", "public", "").start().await;
    (gateway, received)
}

#[tokio::test]
async fn client_sends_the_body_after_the_100_of_the_server() {
    let (gateway, mut received) = start().await;
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..2 {
        client.send(head("/accept")).await;
        client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send("abc").await;
        assert_eq!(client.read_response().await.unwrap().status, 200);
        assert_eq!(within("the request", received.recv()).await, Some((true, b"abc".to_vec())));
    }
}

#[tokio::test]
async fn refusal_of_the_server_is_forwarded_without_a_100() {
    let (gateway, mut received) = start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(head("/refuse")).await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.interim.len()), (403, 0));
    assert_eq!(response.header("connection"), Some("close"));
    assert_eq!(within("the request", received.recv()).await, Some((true, Vec::new())));
}

#[tokio::test]
async fn server_that_ignores_expect_gets_the_body_and_is_not_asked_again() {
    let (gateway, mut received) = start().await;
    for asked in [true, false] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(head("/ignore")).await;
        client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
        client.send("abc").await;
        assert_eq!(client.read_response().await.unwrap().status, 200);
        assert_eq!(within("the request", received.recv()).await, Some((asked, b"abc".to_vec())));
    }
}

/// The client has got its 100 response during the first attempt.
#[tokio::test]
async fn retry_after_the_100_does_not_ask_the_server_again() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let mut urls = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("\"http://{}\"", listener.local_addr().unwrap()));
        let sender = sender.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = Reader::new(stream);
                if let Ok(Some(head)) = connection.read_head().await {
                    sender.send((head, connection)).unwrap();
                }
            }
        });
    }
    let upstream = format!("[upstreams.app]\nservers = [{}]", urls.join(", "));
    let gateway = Gateway::builder().toml(&upstream).route("/", "public", "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send(head("/").replace("POST", "PUT")).await;
    let (first, connection) = within("the first attempt", received.recv()).await.unwrap();
    assert_eq!(first.header("expect"), Some("100-continue"));
    client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
    drop(connection);
    let (mut second, mut connection) = within("the second attempt", received.recv()).await.unwrap();
    assert_eq!(second.header("expect"), None);
    client.send("abc").await;
    let framing = second.framing().unwrap();
    connection.read_body(&mut second, framing).await.unwrap();
    assert_eq!(second.body, b"abc");
    connection.stream().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.read_response().await.unwrap().status, 200);
}
