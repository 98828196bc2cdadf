//! Long-lived responses: event streams and long downloads end when their session ends.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table;
use crate::support::upstream::Upstream;
use crate::support::within;

const LONG_CACHE: &str = "[sessions.main.cache]\nttl = \"1m\"";

fn gateway(engine: &Engine, upstream: &Upstream, lines: &str) -> Builder {
    let builder = Gateway::builder().engine(engine).upstream("app", upstream).realm(LONG_CACHE);
    builder.route("/", "optional", lines)
}

/// Returns a response that pauses after `data: one` until the gate is open.
fn long_response(kind: &str, gate: &Gate) -> ScriptedResponse {
    let response =
        ScriptedResponse::ok("data: one\n\ndata: two\n\n").header("Content-Type", kind).chunked(&[]);
    response.paused_after("16\r\ndata: one\n\n".len(), gate)
}

fn upstream(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::responding(move |request| match request.target.as_str() {
        "/events" => long_response("text/event-stream; charset=utf-8", &gate),
        "/download" => long_response("application/octet-stream", &gate),
        _ => ScriptedResponse::ok("ok"),
    })
}

/// Requests `target` and reads up to the pause.
async fn open(gateway: &Gateway, target: &str, cookie: &str) -> Client {
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get(target).cookie(cookie).header("Connection", "close")).await;
    client.read_until("data: one").await;
    client
}

/// Reads the rest of the response. Returns whether it is incomplete.
async fn is_aborted(mut client: Client) -> bool {
    !client.read_to_end().await.ends_with(b"0\r\n\r\n")
}

fn reads(all: &[crate::support::engine::Operation]) -> usize {
    all.iter().filter(|operation| operation.name == "GetItem").count()
}

#[tokio::test]
async fn responses_of_a_deleted_session_are_aborted_by_the_recheck() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (table::alice_session(&engine).await, upstream(&gate));
    let gateway = gateway(&engine, &upstream, "recheck = \"1s\"").start().await;
    let before = reads(&engine.operations());
    let mut clients = Vec::new();
    for target in ["/events", "/download", "/events", "/download"] {
        clients.push(open(&gateway, target, &session.cookie()).await);
    }
    let anonymous = open(&gateway, "/download", "").await;
    engine.wait_until("two rechecks", |all| reads(all) >= before + 3).await;
    session.delete(&engine).await;
    for client in clients {
        assert!(is_aborted(client).await);
    }
    assert!(reads(&engine.operations()) < before + 12, "one read for each response");
    let closed = |event: &serde_json::Value| {
        field(event, "closed") == "session-ended" && field(event, "complete") == false
    };
    let lines = || gateway.events("request").iter().filter(|event| closed(event)).count();
    crate::support::eventually("four lines", || async { lines() == 4 }).await;
    gate.open();
    assert!(!is_aborted(anonymous).await, "a response without a session was aborted");
}

/// The client reads more slowly than the server sends, so the gateway never waits for the server.
#[tokio::test]
async fn download_of_a_slow_client_is_aborted_by_the_recheck() {
    const SIZE: usize = 64 << 20;
    let upstream = Upstream::responding(|_| ScriptedResponse::ok(vec![b'x'; SIZE]));
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &upstream, "recheck = \"1s\"").start().await;
    let mut client = TcpStream::connect(gateway.address()).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", session.cookie());
    client.write_all(head.as_bytes()).await.unwrap();
    let mut piece = vec![0; 64 * 1024];
    let mut received = client.read(&mut piece).await.unwrap();
    session.delete(&engine).await;
    loop {
        match client.read(&mut piece).await {
            Ok(1..) if received >= SIZE => panic!("the response is complete"),
            Ok(count @ 1..) => received += count,
            Ok(0) | Err(_) => break,
        }
        // The pace of the client.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!((&line["closed"], &line["complete"]), (&"session-ended".into(), &false.into()), "{line}");
}

#[tokio::test]
async fn outage_of_the_store_aborts_no_response() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (table::alice_session(&engine).await, upstream(&gate));
    let gateway = gateway(&engine, &upstream, "recheck = \"1s\"").start().await;
    let events = open(&gateway, "/events", &session.cookie()).await;
    let download = open(&gateway, "/download", &session.cookie()).await;
    engine.inject(Affected::All, Fault::ServerError);
    let before = reads(&engine.operations());
    engine.wait_until("two failed rechecks", |all| reads(all) >= before + 4).await;
    gate.open();
    assert!(!is_aborted(events).await);
    assert!(!is_aborted(download).await);
}

#[tokio::test]
async fn destroy_by_the_same_gateway_aborts_event_streams_at_once() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let session = table::alice_session(&engine).await;
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| match request.target.as_str() {
        "/events" => long_response("text/event-stream", &held),
        _ => ScriptedResponse::ok("bye").header("X-Session-Action", "destroy"),
    });
    let gateway = gateway(&engine, &upstream, "recheck = \"1h\"\nwrites = true").start().await;
    let events = open(&gateway, "/events", &session.cookie()).await;
    assert_eq!(gateway.get("/out", &session.cookie()).await.status, 200);
    assert!(is_aborted(events).await);
}

#[tokio::test]
async fn event_stream_may_be_idle_for_longer_than_the_response_timeout() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (table::alice_session(&engine).await, upstream(&gate));
    let builder = Gateway::builder().engine(&engine).realm(LONG_CACHE);
    let builder = builder.upstream_at("app", upstream.address(), "response_timeout = \"1s\"");
    let brief =
        "[[routes]]\npath = \"/brief\"\nupstream = \"app\"\naccess = \"public\"\nidle_timeout = \"1s\"";
    let gateway = builder.route("/", "optional", "").toml(brief).start().await;
    let events = open(&gateway, "/events", &session.cookie()).await;
    let download = open(&gateway, "/download", &session.cookie()).await;
    assert!(is_aborted(download).await, "not ended by the response timeout");
    gate.open();
    assert!(!is_aborted(events).await, "ended by the response timeout");
}

#[tokio::test]
async fn drain_aborts_event_streams_at_once_and_waits_for_downloads() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (table::alice_session(&engine).await, upstream(&gate));
    let gateway = gateway(&engine, &upstream, "").server("workers = 1\ndrain = \"10m\"").start().await;
    let events = open(&gateway, "/events", &session.cookie()).await;
    let download = open(&gateway, "/download", &session.cookie()).await;
    gateway.signal("TERM");
    assert!(is_aborted(events).await);
    gate.open();
    assert!(!is_aborted(download).await);
    let (status, log) = gateway.wait_with_log().await;
    assert!(status.success(), "{log}");
}

/// The gateway does not wait for the next event to notice that the client has disconnected.
#[tokio::test]
async fn disconnection_is_noticed_although_the_client_has_sent_more_than_is_read() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::builder()
        .upstream_at("app", server.local_addr().unwrap(), "")
        .route("/", "public", "")
        .server("send_timeout = \"1s\"")
        .start()
        .await;
    let unread_body = "POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let get = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
    for (count, sent) in [unread_body.to_owned(), get.repeat(4000)].into_iter().enumerate() {
        let mut client = Client::connect(gateway.address()).await;
        client.send(sent).await;
        let (mut connection, _) = within("a connection", server.accept()).await.unwrap();
        assert!(connection.read(&mut [0; 1024]).await.unwrap() > 0);
        let event = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n";
        connection.write_all(event).await.unwrap();
        client.read_until("data: one").await;
        drop(client);
        let line = gateway.nth_event("request", count + 1).await;
        assert_eq!((&line["path"], &line["complete"]), (&"/events".into(), &false.into()), "{line}");
    }
}
