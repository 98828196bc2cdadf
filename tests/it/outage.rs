//! Outages of the store: the table is unreachable, throttles, rejects requests or does not respond. No request is admitted
//! that would be refused otherwise, no session is lost, and the gateway recovers by itself.

use std::time::Duration;

use serde_json::json;
use sessiongate::time::Clock;

use crate::support::client::Response;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, DUE, Session};
use crate::support::upstream::Upstream;

/// Timeout for an operation of the store.
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

/// Asserts a 503 with Retry-After that does not expire the cookie and names no internals.
fn assert_unavailable(response: &Response) {
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(response.set_cookies().is_empty());
    let text = response.text().to_lowercase();
    assert!(!text.contains("dynamodb") && !text.contains("throttl") && !text.contains("127.0.0.1"), "{text}");
}

/// Asserts that requests that look up a session get 503, and that others get their usual responses.
async fn assert_unavailable_to_sessions(gateway: &Gateway, upstream: &Upstream, session: &Session) {
    let before = upstream.request_count();
    assert_unavailable(&gateway.get("/", &session.cookie()).await);
    assert_unavailable(&gateway.get("/optional", &session.cookie()).await);
    assert_eq!(upstream.request_count(), before);
    // Requests without a session need no lookup.
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
async fn unreachable_table_is_503_until_it_is_back() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for _ in 0..2 {
        let session = table::alice_session(&engine).await;
        engine.server().stop().await;
        assert_unavailable_to_sessions(&gateway, &upstream, &session).await;
        engine.server().resume();
        assert_recovers(&gateway, &upstream, &session).await;
    }
}

#[tokio::test]
async fn throttled_failing_or_denied_operations_are_503_until_they_succeed() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for fault in [Fault::Throttle, Fault::ServerError, Fault::AccessDenied, Fault::BrokenOff] {
        let session = table::alice_session(&engine).await;
        engine.inject(Affected::All, fault);
        assert_unavailable_to_sessions(&gateway, &upstream, &session).await;
        engine.clear_faults();
        assert_recovers(&gateway, &upstream, &session).await;
        assert!(!gateway.log().contains(&session.id));
    }
}

/// Another server's response, or a truncated one, does not mean that the session is absent.
#[tokio::test]
async fn invalid_response_of_the_store_is_503_and_not_cached() {
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
        // Rows stay cached for the whole test.
        let realm = format!("cache.ttl = \"1m\"\non_store_error = {mode}");
        let gateway = gateway(&engine, &upstream, &realm).start().await;
        for fault in &faults {
            let session = table::alice_session(&engine).await;
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
        // An empty object is DynamoDB's response for an absent row.
        let session = table::alice_session(&engine).await;
        engine.inject(Affected::All, Fault::Body("{}"));
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 401, "{mode}");
    }
}

#[tokio::test]
async fn write_with_an_invalid_response_is_503() {
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
        let session = table::alice_session(&engine).await;
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
async fn table_that_does_not_respond_is_503_after_the_timeout() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &upstream, "").start().await;
    engine.inject(Affected::All, Fault::NoResponse);

    let mut fastest = Duration::MAX;
    // On a busy machine one of three may be late.
    for _ in 0..3 {
        let started = Clock.mono();
        assert_unavailable(&gateway.get("/", &session.cookie()).await);
        fastest = fastest.min(Clock.mono() - started);
    }
    assert!(fastest >= TIMEOUT.mul_f32(0.9), "{fastest:?}: before the timeout");
    assert!(fastest < TIMEOUT + Duration::from_millis(300), "{fastest:?}");
    engine.clear_faults();
    assert_recovers(&gateway, &upstream, &session).await;
}

#[tokio::test]
async fn on_store_error_anonymous_serves_optional_routes_without_a_session() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &upstream, "on_store_error = \"anonymous\"").start().await;
    engine.inject(Affected::All, Fault::Throttle);

    assert_unavailable(&gateway.get("/", &session.cookie()).await);
    let response = gateway.get("/optional", &session.cookie()).await;

    assert_eq!((response.status, response.set_cookies().len()), (200, 0));
    let seen = upstream.only_request();
    assert_eq!((seen.header("x-session-status"), seen.header("x-user")), (Some("unavailable"), None));
}

#[tokio::test]
async fn cached_session_is_served_during_an_outage() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &upstream, "cache.ttl = \"1m\"").start().await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);

    engine.server().stop().await;
    for _ in 0..50 {
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
        assert_eq!(upstream.last_request().header("x-user"), Some("alice"));
    }
    // The cookie has a newer version than the cached row.
    assert_unavailable(&gateway.get("/", &session.clone().version(2).cookie()).await);
}

#[tokio::test]
async fn on_store_error_stale_serves_stale_rows() {
    let (mut engine, upstream) = (table::engine().await, Upstream::start());
    let (session, other) = (table::alice_session(&engine).await, table::alice_session(&engine).await);
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
async fn due_session_is_reissued_after_an_outage() {
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

/// Reads still succeed, so the session that was deleted meanwhile is not served from the cache.
#[tokio::test]
async fn failed_reissue_does_not_let_stale_rows_be_used() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(&engine).await;
    let realm = "cache.ttl = \"1ms\"\non_store_error = { stale = \"1m\" }";
    let gateway = gateway(&engine, &upstream, realm).start().await;
    engine.inject(Affected::Only("UpdateItem"), Fault::AccessDenied);
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    gateway.wait_for_line("could not be reissued").await;
    session.delete(&engine).await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 401);
}
