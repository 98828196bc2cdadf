//! The table is away, throttles, refuses or is silent. The rule: what cannot be told is never told. Nobody gets in who
//! would not have, nobody loses a session, and it ends by itself when the table is back.

use std::time::Duration;

use serde_json::json;
use sessiongate::time::Clock;

use crate::support::client::Response;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, DUE, Session};
use crate::support::upstream::Upstream;

/// The store answers within this, or it counts as down.
const TIMEOUT: Duration = Duration::from_millis(500);

fn gateway(engine: &Engine, upstream: &Upstream, realm: &str) -> Builder {
    Gateway::builder()
        .engine_with(engine, "timeout = \"500ms\"\nattempts = 2")
        .upstream("app", upstream)
        .realm(realm)
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .route("/optional", "optional", "[routes.headers]\nX-User = \"user\"")
        .route("/public", "public", "")
}

async fn alice(engine: &Engine) -> Session {
    let session = Session::new(json!({ "user": "alice" }));
    session.put(engine).await;
    session
}

/// 503, when to come back, and not a word that would end the session at the browser.
fn assert_unavailable(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(response.set_cookies().is_empty());
    let text = response.text().to_lowercase();
    assert!(!text.contains("dynamodb") && !text.contains("throttl") && !text.contains("127.0.0.1"), "{text}");
}

/// What holds while nothing can be read.
async fn assert_refused(gateway: &Gateway, upstream: &Upstream, session: &Session) {
    let before = upstream.request_count();
    assert_unavailable(&gateway.get("/", &session.cookie()).await);
    assert_unavailable(&gateway.get("/optional", &session.cookie()).await);
    assert_eq!(upstream.request_count(), before);
    // Where there is nothing to look up, there is nothing to miss.
    assert_eq!(gateway.get("/", "other=cookie").await.status, 401);
    assert_eq!(gateway.get("/optional", "other=cookie").await.status, 200);
    assert_eq!(upstream.last_request().header("x-session-status"), Some("anonymous"));
    assert_eq!(gateway.get("/public", &session.cookie()).await.status, 200);
    assert_eq!(upstream.last_request().header("x-user"), None);
}

async fn assert_recovers(gateway: &Gateway, upstream: &Upstream, session: &Session) {
    crate::support::eventually("recovery", || async {
        gateway.get("/", &session.cookie()).await.status == 200
    })
    .await;
    assert_eq!(upstream.last_request().header("x-user"), Some("alice"));
}

#[tokio::test]
async fn a_table_that_is_away_and_comes_back() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for _ in 0..2 {
        let session = alice(&engine).await;
        engine.server().stop().await;
        assert_refused(&gateway, &upstream, &session).await;
        engine.server().resume();
        assert_recovers(&gateway, &upstream, &session).await;
    }
}

#[tokio::test]
async fn a_table_that_throttles_fails_or_denies() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for fault in [Fault::Throttle, Fault::ServerError, Fault::AccessDenied, Fault::BrokenOff] {
        let session = alice(&engine).await;
        engine.inject(Affected::All, fault);
        assert_refused(&gateway, &upstream, &session).await;
        engine.clear_faults();
        assert_recovers(&gateway, &upstream, &session).await;
        assert!(!gateway.log().contains(&session.id));
    }
}

/// A proxy that answers for the table, or a connection that loses what it said: neither has said that there is no session.
#[tokio::test]
async fn an_answer_that_is_not_dynamodbs_is_unavailable_and_not_remembered() {
    let faults = [
        Fault::Body(""),
        Fault::Body("<html>It works!</html>"),
        Fault::Body("[]"),
        Fault::Body("{\"message\":\"Forbidden\"}"),
        Fault::Truncated,
        Fault::WrongChecksum,
    ];
    for mode in ["\"refuse\"", "\"anonymous\"", "{ stale = \"1m\" }"] {
        let (engine, upstream) = (table::engine().await, Upstream::start());
        // What is remembered is remembered for the whole test.
        let realm = format!("cache.ttl = \"1m\"\non_store_error = {mode}");
        let gateway = gateway(&engine, &upstream, &realm).start().await;
        for fault in &faults {
            let session = alice(&engine).await;
            engine.inject(Affected::All, fault.clone());
            assert_unavailable(&gateway.get("/", &session.cookie()).await);
            let optional = gateway.get("/optional", &session.cookie()).await;
            if mode.contains("anonymous") {
                assert_eq!((optional.status, optional.set_cookies().len()), (200, 0), "{mode} {fault:?}");
                assert_eq!(upstream.last_request().header("x-session-status"), Some("unavailable"));
            } else {
                assert_unavailable(&optional);
            }
            engine.clear_faults();
            assert_eq!(gateway.get("/", &session.cookie()).await.status, 200, "{mode} {fault:?}");
            assert_eq!(upstream.last_request().header("x-user"), Some("alice"));
        }
        // An empty object is the table's own word that there is no such row.
        let session = alice(&engine).await;
        engine.inject(Affected::All, Fault::Body("{}"));
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 401, "{mode}");
    }
}

/// The same of a write: it is not done because somebody has said 200.
#[tokio::test]
async fn a_write_that_is_answered_with_nothing_is_not_done() {
    let engine = table::engine().await;
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/end" => ScriptedResponse::ok("done").header("X-Session-Action", "destroy"),
        "/rotate" => ScriptedResponse::ok("done").header("X-Session-Action", "rotate"),
        _ => ScriptedResponse::ok("done").header("X-Session-Patch", r#"{"user":"bob"}"#),
    });
    let gateway = gateway(&engine, &upstream, "")
        .route("/write", "optional", "writes = true")
        .route("/end", "optional", "writes = true")
        .route("/rotate", "optional", "writes = true")
        .start()
        .await;
    for fault in [Fault::Body(""), Fault::Body("<html>"), Fault::Body("[]")] {
        let session = alice(&engine).await;
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
        for write in ["UpdateItem", "PutItem", "DeleteItem", "TransactWriteItems"] {
            engine.inject(Affected::Only(write), fault.clone());
        }
        for path in ["/write", "/end", "/rotate"] {
            let response = gateway.get(path, &session.cookie()).await;
            assert_unavailable(&response);
            assert!(!response.text().contains("done"), "{path}");
        }
        assert_unavailable(&gateway.get("/write", "other=cookie").await);
        engine.clear_faults();
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
        assert_eq!(upstream.last_request().header("x-user"), Some("alice"));
    }
}

#[tokio::test]
async fn a_silent_table_is_given_up_in_time() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &upstream, "").start().await;
    engine.inject(Affected::All, Fault::NoResponse);

    let mut fastest = Duration::MAX;
    // A busy machine makes one of them late, but not each of them.
    for _ in 0..3 {
        let started = Clock.mono();
        assert_unavailable(&gateway.get("/", &session.cookie()).await);
        fastest = fastest.min(Clock.mono() - started);
    }
    assert!(fastest >= TIMEOUT.mul_f32(0.9), "{fastest:?}: the table was not given its time");
    assert!(fastest < TIMEOUT + Duration::from_millis(300), "{fastest:?}");
    engine.clear_faults();
    assert_recovers(&gateway, &upstream, &session).await;
}

#[tokio::test]
async fn optional_routes_go_on_without_a_session_where_that_is_configured() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &upstream, "on_store_error = \"anonymous\"").start().await;
    engine.inject(Affected::All, Fault::Throttle);

    assert_unavailable(&gateway.get("/", &session.cookie()).await);
    let response = gateway.get("/optional", &session.cookie()).await;

    assert_eq!((response.status, response.set_cookies().len()), (200, 0));
    let seen = upstream.only_request();
    assert_eq!((seen.header("x-session-status"), seen.header("x-user")), (Some("unavailable"), None));
}

#[tokio::test]
async fn who_is_in_the_cache_notices_nothing() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let session = alice(&engine).await;
    let gateway = gateway(&engine, &upstream, "cache.ttl = \"1m\"").start().await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);

    engine.server().stop().await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
        assert_eq!(upstream.last_request().header("x-user"), Some("alice"));
    }
    // A browser that has seen a newer version is not given the row that is remembered.
    assert_unavailable(&gateway.get("/", &session.clone().version(2).cookie()).await);
}

#[tokio::test]
async fn a_row_that_is_no_longer_fresh_is_used_where_that_is_configured() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let (session, other) = (alice(&engine).await, alice(&engine).await);
    let realm = "cache.ttl = \"1ms\"\non_store_error = { stale = \"1m\" }";
    let gateway = gateway(&engine, &upstream, realm).start().await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);

    engine.server().stop().await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
        assert_eq!(upstream.last_request().header("x-user"), Some("alice"));
    }
    assert_unavailable(&gateway.get("/", &session.clone().version(2).cookie()).await);
    assert_unavailable(&gateway.get("/", &other.cookie()).await);
}

#[tokio::test]
async fn a_due_session_lives_on_through_an_outage() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(&engine).await;
    let gateway = gateway(&engine, &upstream, "cache.ttl = \"1m\"").start().await;
    engine.inject(Affected::Only("UpdateItem"), Fault::Throttle);
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);

    engine.server().stop().await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    }
    engine.clear_faults();
    engine.server().resume();
    crate::support::eventually("the reissue", || async {
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
        engine.counts().updates == 1
    })
    .await;
}
