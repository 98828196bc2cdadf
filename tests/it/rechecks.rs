//! Rechecks of the sessions of WebSockets: when they are made, and which changes of a session they survive.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Engine, Fault, Operation};
use crate::support::gate::Gate;
use crate::support::gateway::Gateway;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::{self, command_target, patch_target, set_cookie};
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;
use crate::support::websocket::{EchoServer, WebSocket};

const ENDED: Option<(u16, &str)> = Some((1008, "the session has ended"));
const PYRAMID: &str = "format = \"pyramid\"";
const NATIVE: &str = "format = \"native\"\nrotation_grace = \"1s\"";
const HANDSHAKE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

/// Starts a gateway with WebSockets at `/ws`, and an app that sends session commands at `/`.
async fn start(
    engine: &Engine,
    sockets: std::net::SocketAddr,
    app: &Upstream,
    format: &str,
    recheck: &str,
) -> Gateway {
    Gateway::builder()
        .engine_with(engine, "timeout = \"5s\"\nattempts = 2")
        .toml(&format!(
            "[sessions.main]\n{format}\ntable = \"sessions\"\nuser = \"user\"\ncache.ttl = \"1m\""
        ))
        .upstream_at("app", sockets, "")
        .upstream("commands", app)
        .route("/ws", "required", &format!("websocket = true\nrecheck = \"{recheck}\""))
        .toml("[[routes]]\npath = \"/\"\nsession = \"main\"\naccess = \"optional\"\nupstream = \"commands\"\nwrites = true")
        .start()
        .await
}

fn action(action: &str) -> String {
    command_target("/", &[("X-Session-Action", action)])
}

async fn assert_closed(socket: &mut WebSocket) {
    let closed = socket.read_close().await;
    assert_eq!(closed.as_ref().map(|(code, reason)| (*code, reason.as_str())), ENDED);
}

fn reads(all: &[Operation]) -> impl Iterator<Item = &Operation> {
    all.iter().filter(|operation| operation.name == "GetItem" && operation.outcome.is_some())
}

#[tokio::test]
async fn session_that_is_used_is_reissued_when_it_is_due_even_if_the_recheck_is_later() {
    let (engine, echo, app) =
        (table::engine().await, EchoServer::start().await, session_commands::upstream());
    let gateway = start(&engine, echo.address(), &app, PYRAMID, "1h").await;
    // Due in two seconds, with the realm's `reissue_time` of two minutes.
    let session = Session::new(json!({"user": "alice"})).aged(Duration::from_secs(118));
    session.put(&engine).await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    socket.echo("active").await;
    let is_reissued = |all: &Vec<Operation>| all.iter().any(|operation| operation.name == "UpdateItem");
    engine.wait_until("the reissue", is_reissued).await;
    socket.echo("still here").await;
}

#[tokio::test]
async fn change_of_the_id_by_another_gateway_closes_nothing_in_native() {
    let (engine, echo, app) =
        (table::engine().await, EchoServer::start().await, session_commands::upstream());
    let here = start(&engine, echo.address(), &app, NATIVE, "1s").await;
    let there = start(&engine, echo.address(), &app, NATIVE, "1s").await;
    let old = set_cookie(&here.get(&patch_target(&json!({"user": "alice"})), "").await);
    let mut socket = WebSocket::with_cookie(&here, "/ws", &old).await;
    socket.echo("hello").await;
    let new = set_cookie(&there.get(&action("rotate"), &old).await);
    // The new id is monitored, too.
    let mut other = WebSocket::with_cookie(&here, "/ws", &new).await;

    let rows = engine.call("Scan", json!({"TableName": "sessions"})).await;
    let is_current = |row: &&Value| row.get("nxt").is_none();
    let current = rows["Items"].as_array().unwrap().iter().find(is_current).unwrap()["sid"].clone();
    let is_rotated = engine.operations().len();
    // The retired row expires after a second.
    let of_new = |operation: &&Operation| operation.request["Key"]["sid"] == current;
    engine
        .wait_until("rechecks of the new id", |all| reads(&all[is_rotated..]).filter(of_new).count() >= 4)
        .await;
    socket.echo("after the grace period").await;
    // A log-out under the new id closes both at once.
    assert_eq!(here.get(&action("destroy"), &new).await.status, 200);
    assert_closed(&mut socket).await;
    assert_closed(&mut other).await;
}

/// The rotation has deleted the row, and its response has not arrived yet.
#[tokio::test]
async fn check_during_a_rotation_that_deletes_the_row_closes_nothing() {
    let (engine, echo, app) =
        (table::engine().await, EchoServer::start().await, session_commands::upstream());
    let gateway = start(&engine, echo.address(), &app, PYRAMID, "1s").await;
    let session = table::alice_session(&engine).await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    socket.echo("hello").await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("TransactWriteItems"), Fault::HoldResponse(gate.clone()));
    let (rotate, cookie) = (action("rotate"), session.cookie());
    let rotating = gateway.get(&rotate, &cookie);
    let (rotated, ()) = tokio::join!(rotating, async {
        let begun = |all: &Vec<Operation>| {
            all.iter().any(|operation| operation.name == "TransactWriteItems" && operation.outcome.is_some())
        };
        engine.wait_until("the transaction", begun).await;
        let before = engine.operations().len();
        // An eventually consistent read and a strongly consistent one.
        engine.wait_until("a check", |all| reads(&all[before..]).count() >= 2).await;
        for _ in 0..50 {
            socket.echo("during the rotation").await;
        }
        gate.open();
    });
    let new = set_cookie(&rotated);
    socket.echo("after the rotation").await;
    assert_eq!(gateway.get(&action("destroy"), &new).await.status, 200);
    assert_closed(&mut socket).await;
}

#[tokio::test]
async fn tunnel_of_a_session_that_ended_during_the_handshake_is_closed_at_once() {
    let gate = Gate::closed();
    let held = gate.clone();
    let sockets = Upstream::responding(move |_| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        ScriptedResponse::raw_then_echo(head).after(&held)
    });
    let (engine, app) = (table::engine().await, session_commands::upstream());
    let gateway = start(&engine, sockets.address(), &app, PYRAMID, "1h").await;
    let session = table::alice_session(&engine).await;
    let handshake =
        HANDSHAKE.iter().fold(Request::get("/ws").cookie(&session.cookie()), |request, (name, value)| {
            request.header(name, value)
        });
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&handshake).await;
    gate.wait_for_arrival().await;
    assert_eq!(gateway.get(&action("destroy"), &session.cookie()).await.status, 200);
    gate.open();
    assert_eq!(client.read_response().await.unwrap().status, 101);
    client.read_until("the session has ended").await;
}

/// Whether the log-out has deleted the row is unknown, so the session is checked.
#[tokio::test]
async fn log_out_whose_response_is_lost_closes_tunnels_at_once() {
    let (engine, echo, app) =
        (table::engine().await, EchoServer::start().await, session_commands::upstream());
    let gateway = start(&engine, echo.address(), &app, PYRAMID, "1h").await;
    let session = table::alice_session(&engine).await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    socket.echo("hello").await;
    engine.inject(Affected::Only("DeleteItem"), Fault::BrokenOff);
    assert_eq!(gateway.get(&action("destroy"), &session.cookie()).await.status, 503);
    assert_closed(&mut socket).await;
}
