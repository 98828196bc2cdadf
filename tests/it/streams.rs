//! Responses that go on for long: events, and whatever else does not end by itself.

use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

const WARM: &str = "[sessions.main.cache]\nttl = \"1m\"";

fn gateway(engine: &Engine, upstream: &Upstream, lines: &str) -> Builder {
    let builder = Gateway::builder().engine(engine).upstream("app", upstream).realm(WARM);
    builder.route("/", "optional", lines)
}

/// One event, or the beginning of what is none, and then nothing until the gate is open.
fn endless(kind: &str, gate: &Gate) -> ScriptedResponse {
    let answer = ScriptedResponse::ok("data: one\n\ndata: two\n\n").header("Content-Type", kind).chunked(&[]);
    answer.paused_after("16\r\ndata: one\n\n".len(), gate)
}

fn upstream(gate: &Gate) -> Upstream {
    let gate = gate.clone();
    Upstream::responding(move |request| match request.target.as_str() {
        "/events" => endless("text/event-stream; charset=utf-8", &gate),
        "/download" => endless("application/octet-stream", &gate),
        _ => ScriptedResponse::ok("ok"),
    })
}

async fn alice(engine: &Engine) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    session.put(engine).await;
    session
}

/// Asks for `target` and reads up to the silence.
async fn begun(gateway: &Gateway, target: &str, cookie: &str) -> Client {
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get(target).cookie(cookie).header("Connection", "close")).await;
    client.read_until("data: one").await;
    client
}

/// Whether what is left is no whole response.
async fn is_broken_off(mut client: Client) -> bool {
    !client.read_to_end().await.ends_with(b"0\r\n\r\n")
}

fn reads(all: &[crate::support::engine::Operation]) -> usize {
    all.iter().filter(|operation| operation.name == "GetItem").count()
}

#[tokio::test]
async fn a_stream_does_not_outlive_its_session_and_is_not_taken_for_whole() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (alice(&engine).await, upstream(&gate));
    let gateway = gateway(&engine, &upstream, "recheck = \"1s\"").start().await;
    let before = reads(&engine.operations());
    let mut clients = Vec::new();
    for target in ["/events", "/download", "/events", "/download"] {
        clients.push(begun(&gateway, target, &session.cookie()).await);
    }
    let stranger = begun(&gateway, "/download", "").await;
    engine.wait_until("two rechecks", |all| reads(all) >= before + 3).await;
    session.delete(&engine).await;
    for client in clients {
        assert!(is_broken_off(client).await);
    }
    assert!(reads(&engine.operations()) < before + 12, "one read for all of them");
    let closed = |event: &serde_json::Value| {
        field(event, "closed") == "session-ended" && field(event, "complete") == false
    };
    let lines = || gateway.events("request").iter().filter(|event| closed(event)).count();
    crate::support::eventually("a line of each", || async { lines() == 4 }).await;
    gate.open();
    assert!(!is_broken_off(stranger).await, "a visitor without a session goes on");
}

#[tokio::test]
async fn a_store_that_is_away_breaks_nothing_off() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (alice(&engine).await, upstream(&gate));
    let gateway = gateway(&engine, &upstream, "recheck = \"1s\"").start().await;
    let events = begun(&gateway, "/events", &session.cookie()).await;
    let download = begun(&gateway, "/download", &session.cookie()).await;
    engine.inject(Affected::All, Fault::ServerError);
    let before = reads(&engine.operations());
    engine.wait_until("two rechecks that fail", |all| reads(all) >= before + 4).await;
    gate.open();
    assert!(!is_broken_off(events).await);
    assert!(!is_broken_off(download).await);
}

#[tokio::test]
async fn a_log_out_here_ends_a_stream_of_events_at_once() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let session = alice(&engine).await;
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| match request.target.as_str() {
        "/events" => endless("text/event-stream", &held),
        _ => ScriptedResponse::ok("bye").header("X-Session-Action", "destroy"),
    });
    let gateway = gateway(&engine, &upstream, "recheck = \"1h\"\nwrites = true").start().await;
    let events = begun(&gateway, "/events", &session.cookie()).await;
    assert_eq!(gateway.get("/out", &session.cookie()).await.status, 200);
    assert!(is_broken_off(events).await);
}

#[tokio::test]
async fn events_may_be_silent_for_longer_than_other_answers() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (alice(&engine).await, upstream(&gate));
    let builder = Gateway::builder().engine(&engine).realm(WARM);
    let builder = builder.upstream_at("app", upstream.address(), "response_timeout = \"1s\"");
    let brief =
        "[[routes]]\npath = \"/brief\"\nupstream = \"app\"\naccess = \"public\"\nidle_timeout = \"1s\"";
    let gateway = builder.route("/", "optional", "").toml(brief).start().await;
    let events = begun(&gateway, "/events", &session.cookie()).await;
    let download = begun(&gateway, "/download", &session.cookie()).await;
    assert!(is_broken_off(download).await, "the upstream's limit");
    gate.open();
    assert!(!is_broken_off(events).await, "has a limit of its own");
}

#[tokio::test]
async fn a_drain_ends_events_at_once_and_waits_for_the_rest() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let (session, upstream) = (alice(&engine).await, upstream(&gate));
    let gateway = gateway(&engine, &upstream, "").server("workers = 1\ndrain = \"10m\"").start().await;
    let events = begun(&gateway, "/events", &session.cookie()).await;
    let download = begun(&gateway, "/download", &session.cookie()).await;
    gateway.signal("TERM");
    assert!(is_broken_off(events).await);
    gate.open();
    assert!(!is_broken_off(download).await);
    let (status, log) = gateway.wait_with_log().await;
    assert!(status.success(), "{log}");
}
