//! WebSockets: handshakes, tunnels, and their end when the session ends.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::set_cookie;
use crate::support::table::{self, DUE, Session, number};
use crate::support::upstream::Upstream;
use crate::support::websocket::{EchoServer, WebSocket, rejected_status};

/// Rows stay cached for the whole test, so that every read after the first is a recheck.
const LONG_CACHE: &str = "[sessions.main.cache]\nttl = \"1m\"";
const HEADERS: &str = "[routes.headers]\nX-User = \"user\"";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Returns a gateway with a route `/ws` with these lines, and a route `/`.
fn gateway(engine: &Engine, echo: &EchoServer, lines: &str) -> Builder {
    let builder = Gateway::builder().engine(engine).upstream_at("app", echo.address(), "").realm(LONG_CACHE);
    builder.route("/ws", "required", lines).route("/", "optional", "")
}

#[tokio::test]
async fn handshake_has_the_session_headers_and_the_log_line_has_the_bytes_of_the_tunnel() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, &format!("websocket = true\n{HEADERS}")).start().await;

    let lines = [
        ("Cookie", session.cookie()),
        ("X-User", "mallory".into()),
        ("x_user", "mallory".into()),
        ("X-Session-Status", "active".into()),
        ("Sec-WebSocket-Protocol", "chat".into()),
    ];
    let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let opened = WebSocket::open(&gateway, "/ws", &lines).await;
    // The server selects no subprotocol, which the client library rejects.
    assert!(opened.is_err());
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    socket.echo("hello").await;

    let names: Vec<_> = socket.headers.keys().map(|name| name.as_str().to_owned()).collect();
    assert!(!names.iter().any(|name| name.starts_with("x-session-")), "{names:?}");
    assert!(names.iter().any(|name| name == "x-request-id"));
    let seen = echo.seen();
    let all = |name: &str| {
        let values = seen.handshakes[0].get_all(name).iter();
        values.map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(all("x-user"), ["alice"]);
    assert!(all("x_user").is_empty());
    assert_eq!(all("x-session-status"), ["active"]);
    assert_eq!(all("connection"), ["upgrade"]);
    assert_eq!(all("upgrade"), ["websocket"]);
    assert_eq!(all("sec-websocket-protocol"), ["chat"]);

    socket.close(1000).await;
    let line =
        gateway.wait_for_event("line of the tunnel", |event| field(event, "received") == 6 + 5 + 8).await;
    assert_eq!((field(&line, "status"), field(&line, "verdict")), (&json!(101), &json!("active")));
    assert_eq!(field(&line, "bytes"), 2 + 5 + 4);
}

#[tokio::test]
async fn messages_of_a_megabyte_are_forwarded_in_both_directions() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, "websocket = true").start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    let message: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
    for _ in 0..8 {
        socket.send(Message::binary(message.clone())).await;
    }
    for _ in 0..8 {
        assert!(socket.next().await == Some(Message::binary(message.clone())));
    }
    socket.close(1000).await;
    assert_eq!(echo.wait_for_ends(1).await, [Some(1000)]);
}

#[tokio::test]
async fn handshake_without_a_session_is_401_and_from_another_origin_403() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let lines = "websocket = { origins = [\"https://partner.example\"] }\nlogin = \"/login\"";
    let gateway = gateway(&engine, &echo, lines).start().await;
    let html = ("Accept", "text/html");
    assert_eq!(rejected_status(WebSocket::open(&gateway, "/ws", &[html]).await), 401, "not a redirect");

    let cookie = session.cookie();
    let here = format!("http://{}", gateway.address());
    for (origin, is_allowed) in [
        (here.as_str(), true),
        ("https://partner.example", true),
        ("https://evil.example", false),
        ("http://127.0.0.1", false),
        ("null", false),
    ] {
        let opened = WebSocket::open(&gateway, "/ws", &[("Cookie", &cookie), ("Origin", origin)]).await;
        match opened {
            Ok(socket) if is_allowed => drop(socket),
            other if !is_allowed => assert_eq!(rejected_status(other), 403, "{origin}"),
            other => panic!("{origin}: {other:?}"),
        }
    }
    gateway.wait_for_event("line of a refusal", |event| field(event, "verdict") == "cross-site").await;
}

/// On a public route that lists no origins, no session is at risk.
#[tokio::test]
async fn origin_is_checked_where_sessions_are_looked_up_and_not_on_public_routes() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, "websocket = true");
    let gateway = gateway.route("/public", "public", "websocket = true").start().await;
    let cookie = session.cookie();
    let headers = [("Cookie", cookie.as_str()), ("Origin", "https://evil.example")];
    assert_eq!(rejected_status(WebSocket::open(&gateway, "/ws", &headers).await), 403);
    assert!(WebSocket::open(&gateway, "/public", &headers).await.is_ok());
}

/// Returns the request of a handshake.
fn handshake(session: &Session) -> Request {
    let request = Request::get("/ws").cookie(&session.cookie()).header("Connection", "Upgrade");
    let request = request.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13");
    request.header("Sec-WebSocket-Key", KEY)
}

fn switching_protocols(accept: &str, upgrade: &str) -> ScriptedResponse {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\
         X-Session-Ref: x\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    ScriptedResponse::raw_then_echo(&head)
}

fn scripted_gateway(engine: &Engine, upstream: &Upstream) -> Builder {
    let builder = Gateway::builder().engine(engine).upstream("app", upstream).realm(LONG_CACHE);
    builder.route("/ws", "required", "websocket = true").route("/", "optional", "")
}

#[tokio::test]
async fn invalid_handshake_is_400_and_other_upgrades_are_ignored() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = scripted_gateway(&engine, &upstream).start().await;
    let plain = || Request::get("/ws").cookie(&session.cookie()).header("Connection", "Upgrade");
    let without_key = plain().header("Upgrade", "websocket");
    let with_body = handshake(&session).header("Content-Length", "2");
    for request in [without_key.clone(), without_key.header("Sec-WebSocket-Key", "short"), with_body] {
        assert_eq!(gateway.send(&request).await.status, 400);
    }
    assert_eq!(upstream.request_count(), 0);
    // An upgrade to another protocol is ignored.
    let other = plain().header("Upgrade", "h2c");
    assert_eq!(gateway.send(&other).await.status, 200);
    assert_eq!(upstream.only_request().header("upgrade"), None);
    // And so is a handshake on a route without `websocket`.
    let elsewhere = Request::get("/").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let response = gateway.send(&elsewhere.header("Sec-WebSocket-Key", KEY)).await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(
        (upstream.last_request().header("upgrade"), upstream.last_request().header("connection")),
        (None, None)
    );
}

#[tokio::test]
async fn invalid_101_is_502() {
    let upstream = Upstream::responding(|request| match request.header("x-case").unwrap() {
        "accept" => switching_protocols("c29tZXRoaW5nIGVsc2U=", "websocket"),
        "protocol" => switching_protocols(ACCEPT, "h2c"),
        "no-accept" => ScriptedResponse::upgrade("websocket"),
        _ => switching_protocols(ACCEPT, "websocket"),
    });
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let gateway = scripted_gateway(&engine, &upstream).start().await;
    for case in ["accept", "protocol", "no-accept"] {
        assert_eq!(gateway.send(&handshake(&session).header("X-Case", case)).await.status, 502, "{case}");
    }
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&handshake(&session).header("X-Case", "valid")).await;
    let response = client.read_response().await.unwrap();
    assert_eq!((response.status, response.header("upgrade")), (101, Some("websocket")));
    assert_eq!(response.header("x-session-ref"), None);
    // Bytes that are not frames are forwarded, too.
    client.send("not a frame").await;
    assert_eq!(client.read_until("frame").await, "not a frame");
}

#[tokio::test]
async fn early_bytes_are_forwarded_only_after_a_101() {
    let gate = crate::support::gate::Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| match request.header("x-case").unwrap() {
        "refuse" => ScriptedResponse::new(403, "no"),
        _ => switching_protocols(ACCEPT, "websocket").after(&held),
    });
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let gateway = scripted_gateway(&engine, &upstream).start().await;
    let early = "GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n";

    let mut refused = Client::connect(gateway.address()).await;
    refused.send_request(&handshake(&session).header("X-Case", "refuse")).await;
    refused.send(early).await;
    let response = refused.read_response().await.unwrap();
    assert_eq!((response.status, response.header("connection")), (403, Some("close")));
    assert!(refused.is_closed().await);
    assert_eq!(upstream.request_count(), 1, "early bytes were read as a request");

    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&handshake(&session).header("X-Case", "accept")).await;
    client.send(early).await;
    gate.wait_for_arrival().await;
    gate.open();
    assert_eq!(client.read_response().await.unwrap().status, 101);
    assert_eq!(client.read_until("\r\n\r\n").await, early, "the echo of the early bytes");
    assert_eq!((upstream.request_count(), upstream.connections()), (2, 1));
    drop(client);
    gateway.wait_for_event("end of the tunnel", |event| field(event, "closed") == "client").await;
    let refuse = Request::get("/").header("X-Case", "refuse");
    assert_eq!(gateway.send(&refuse).await.status, 403);
    assert_eq!(upstream.connections(), 2, "the tunnel's connection was reused");
}

#[tokio::test]
async fn tunnels_of_a_deleted_session_are_closed_by_the_recheck() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, "websocket = true\nrecheck = \"1s\"").start().await;
    let before = engine.counts().reads();
    let mut sockets = Vec::new();
    for _ in 0..100 {
        sockets.push(WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await);
    }
    assert_eq!(engine.counts().reads(), before + 1, "one read for all handshakes");
    engine.wait_until("three rechecks", |all| reads(all) >= before + 4).await;
    for socket in &mut sockets {
        socket.echo("still here").await;
    }
    session.delete(&engine).await;
    for socket in &mut sockets {
        assert_eq!(socket.read_close().await, Some((1008, "the session has ended".into())));
    }
    drop(sockets);
    assert_eq!(echo.wait_for_ends(100).await, [Some(1008); 100]);
    // One read each second for all tunnels, not one for each tunnel.
    let counts = engine.counts();
    assert!(counts.reads() - before < 20, "{counts:?}");
    let closed = |event: &serde_json::Value| field(event, "closed") == "session-ended";
    let lines = || gateway.events("request").iter().filter(|event| closed(event)).count();
    crate::support::eventually("a hundred lines", || async { lines() == 100 }).await;
}

fn reads(all: &[crate::support::engine::Operation]) -> usize {
    all.iter().filter(|operation| operation.name == "GetItem").count()
}

#[tokio::test]
async fn destroy_by_the_same_gateway_closes_tunnels_at_once_and_a_rotation_does_not() {
    let echo = EchoServer::start().await;
    let upstream = Upstream::responding(|request| {
        ScriptedResponse::ok("ok").header("X-Session-Action", request.header("x-action").unwrap())
    });
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let cookie = session.cookie();
    let lines = "websocket = true\nrecheck = \"1h\"";
    let gateway = Gateway::builder().engine(&engine).realm(LONG_CACHE).upstream_at("app", echo.address(), "");
    let gateway = gateway.upstream("commands", &upstream).route("/ws", "required", lines);
    let commands = "[[routes]]\npath = \"/\"\nsession = \"main\"\nupstream = \"commands\"\nwrites = true";
    let gateway = gateway.toml(commands).start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &cookie).await;
    socket.echo("hello").await;

    let command = |action: &str, cookie: &str| Request::get("/").cookie(cookie).header("X-Action", action);
    let rotated = gateway.send(&command("rotate", &cookie)).await;
    let new = set_cookie(&rotated);
    assert_ne!(new, cookie);
    socket.echo("after the rotation").await;
    assert_eq!(gateway.send(&command("destroy", &new)).await.status, 200);
    assert_eq!(socket.read_close().await, Some((1008, "the session has ended".into())));
}

#[tokio::test]
async fn app_that_expires_its_cookie_causes_a_recheck() {
    let echo = EchoServer::start().await;
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/out" => ScriptedResponse::ok("bye").header("Set-Cookie", "session_id=; Max-Age=0; Path=/"),
        _ => ScriptedResponse::ok("hello"),
    });
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let lines = "websocket = true\nrecheck = \"1h\"";
    let gateway = Gateway::builder().engine(&engine).realm(LONG_CACHE).upstream_at("app", echo.address(), "");
    let gateway = gateway.upstream("own", &upstream).route("/ws", "required", lines);
    let own = "[[routes]]\npath = \"/\"\nsession = \"main\"\nupstream = \"own\"";
    let gateway = gateway.toml(own).start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    gateway.get("/out", &session.cookie()).await;
    socket.echo("before the session was deleted").await;
    // Expiring the cookie has invalidated the cached row, so this request caches it again.
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    session.delete(&engine).await;
    assert_eq!(gateway.get("/out", &session.cookie()).await.status, 200);
    assert_eq!(socket.read_close().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test]
async fn outage_of_the_store_closes_no_tunnel_until_a_recheck_succeeds() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, "websocket = true\nrecheck = \"1s\"").start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    engine.inject(Affected::All, Fault::ServerError);
    session.delete(&engine).await;
    let before = reads(&engine.operations());
    engine.wait_until("two failed rechecks", |all| reads(all) >= before + 4).await;
    socket.echo("still here").await;
    engine.clear_faults();
    assert_eq!(socket.read_close().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test]
async fn tunnel_is_closed_when_a_required_claim_no_longer_matches() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = Session::new(json!({ "user": "alice", "role": "admin" }));
    session.put(&engine).await;
    let lines = "websocket = true\nrecheck = \"1s\"\nrequire = { role = \"admin\" }";
    let gateway = gateway(&engine, &echo, lines).start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    let demoted = Session { claims: json!({ "user": "alice", "role": "staff" }), version: 2, ..session };
    demoted.put(&engine).await;
    assert_eq!(socket.read_close().await, Some((1008, "no longer allowed".into())));
}

#[tokio::test]
async fn tunnel_is_closed_when_its_user_logs_out_or_changes() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    for (path, access) in [("/ws", "required"), ("/any", "session"), ("/open", "optional")] {
        for after in [json!({ "cart": 1 }), json!({ "user": "" }), json!({ "user": "bob" })] {
            let session = table::alice_session(&engine).await;
            let lines = "websocket = true\nrecheck = \"1s\"";
            let gateway =
                Gateway::builder().engine(&engine).upstream_at("app", echo.address(), "").realm(LONG_CACHE);
            let gateway = gateway.route(path, access, lines).start().await;
            let mut socket = WebSocket::with_cookie(&gateway, path, &session.cookie()).await;
            socket.echo("hello").await;
            let changed = Session { claims: after.clone(), version: 2, ..session };
            changed.put(&engine).await;
            let closed = socket.read_close().await;
            assert_eq!(closed, Some((1008, "the user has logged out".into())), "{access} {after}");
        }
    }
}

#[tokio::test]
async fn tunnel_of_a_guest_stays_open_after_the_login() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = Session::new(json!({ "cart": 1 }));
    session.put(&engine).await;
    let lines = "websocket = true\nrecheck = \"1s\"";
    let gateway = Gateway::builder().engine(&engine).upstream_at("app", echo.address(), "").realm(LONG_CACHE);
    let gateway = gateway.route("/open", "optional", lines).start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/open", &session.cookie()).await;
    let logged_in = Session { claims: json!({ "cart": 1, "user": "alice" }), version: 2, ..session.clone() };
    logged_in.put(&engine).await;
    let before = reads(&engine.operations());
    engine.wait_until("two rechecks", |all| reads(all) >= before + 2).await;
    socket.echo("still here").await;
    session.delete(&engine).await;
    assert_eq!(socket.read_close().await.map(|(code, _)| code), Some(1008));
}

#[tokio::test]
async fn message_of_the_client_reissues_its_session_and_a_pong_does_not() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, "websocket = true\nrecheck = \"1s\"").start().await;
    let mut socket = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    // The session was last active a while ago.
    let old = Session { issued: session.issued - 300, expires: session.expires - 300, ..session.clone() };
    assert!(Duration::from_secs(300) == DUE);
    old.put(&engine).await;
    let before = reads(&engine.operations());
    socket.send(Message::Pong(vec![1, 2, 3].into())).await;
    engine.wait_until("two rechecks", |all| reads(all) >= before + 2).await;
    assert_eq!(engine.counts().updates, 0);
    socket.echo("active").await;
    let updates = |all: &Vec<crate::support::engine::Operation>| {
        all.iter().any(|operation| operation.name == "UpdateItem" && operation.outcome.is_some())
    };
    engine.wait_until("the reissue", updates).await;
    assert!(number(&session.row(&engine).await, "exp") >= session.expires);
}

#[tokio::test]
async fn tunnel_without_a_session_is_not_rechecked_and_ends_after_max_age() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let builder = Gateway::builder().engine(&engine).upstream_at("app", echo.address(), "").realm(LONG_CACHE);
    let lines = "websocket = { max_age = \"2s\" }\nrecheck = \"1s\"";
    let gateway = builder.route("/", "optional", lines).start().await;
    let before = engine.counts().reads();
    let mut socket = WebSocket::open(&gateway, "/", &[]).await.unwrap();
    socket.echo("hello").await;
    assert_eq!(socket.read_close().await, Some((1001, "open for too long".into())));
    assert_eq!(engine.counts().reads(), before);
}

#[tokio::test]
async fn idle_tunnel_is_closed_after_the_timeout_and_others_by_a_drain() {
    let (engine, echo) = (table::engine().await, EchoServer::start().await);
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &echo, "websocket = true").route(
        "/short",
        "required",
        "websocket = true\nidle_timeout = \"1s\"",
    );
    let gateway = gateway.server("workers = 1\ndrain = \"10m\"").start().await;
    let mut short = WebSocket::with_cookie(&gateway, "/short", &session.cookie()).await;
    let mut long = WebSocket::with_cookie(&gateway, "/ws", &session.cookie()).await;
    assert_eq!(short.read_close().await, Some((1001, "silent for too long".into())));
    long.echo("hello").await;
    gateway.signal("TERM");
    assert_eq!(long.read_close().await, Some((1001, "the service is restarting".into())));
    drop(long);
    assert_eq!(echo.wait_for_ends(2).await, [Some(1001); 2]);
    let (status, log) = gateway.wait_with_log().await;
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn drain_finishes_the_current_frame_before_the_close_frame() {
    // Five of ten bytes of a frame; the rest, and another frame, are sent when the gate is open.
    let script = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                  Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\u{1}\u{a}hello";
    let gate = crate::support::gate::Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| {
        ScriptedResponse::raw_then_echo(script).then_send_before_echo(&held, b"world\x01\x05after".as_slice())
    });
    let engine = table::engine().await;
    let session = table::alice_session(&engine).await;
    let gateway = scripted_gateway(&engine, &upstream).server("workers = 1\ndrain = \"10m\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&handshake(&session)).await;
    assert_eq!(client.read_response().await.unwrap().status, 101);
    client.read_until("hello").await;
    gateway.signal("TERM");
    gateway.wait_for_line("draining").await;
    gate.open();
    let rest = client.read_to_end().await;
    assert!(rest.starts_with(b"world"), "{rest:?}");
    let after = &rest[5..];
    let after = after.strip_prefix(b"\x01\x05after").unwrap_or(after);
    assert!(after.starts_with(b"\x88"), "not a Close frame: {after:?}");
}
