//! Log-outs by session commands, and the requests that follow them.

use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::Gateway;
use crate::support::session_commands::{self, command_target};
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

async fn start(engine: &Engine, upstream: &Upstream) -> Gateway {
    Gateway::builder()
        .engine_with(engine, "timeout = \"5s\"\nattempts = 2")
        .upstream("app", upstream)
        .realm("cache.ttl = \"1m\"")
        .route("/", "optional", "writes = true")
        .route("/page", "required", "")
        .start()
        .await
}

fn log_out() -> String {
    command_target("/", &[("X-Session-Action", "destroy")])
}

fn is_confirmed(response: &Response) -> bool {
    response.status == 200 && response.set_cookies().iter().any(|cookie| cookie.contains("Max-Age=0"))
}

#[tokio::test]
async fn request_after_a_log_out_does_not_join_a_read_that_began_before_it() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = start(&engine, &upstream).await;
    let session = Session::new(json!({"user": "alice"})).version(2);
    session.put(&engine).await;
    // Browser tabs that have seen different versions have lookups of their own.
    let (older, newer) = (session.clone().version(1).cookie(), session.cookie());
    let gate = Gate::closed();
    let held = gate.clone();
    let reads = std::sync::atomic::AtomicUsize::new(0);
    engine.inject_with(Affected::Only("GetItem"), move || {
        let is_first = reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        is_first.then(|| Fault::HoldResponse(held.clone()))
    });
    let ((), before) = tokio::join!(
        async {
            gate.wait_for_arrival().await;
            assert!(is_confirmed(&gateway.get(&log_out(), &newer).await));
            assert_eq!(gateway.get("/page", &older).await.status, 401, "after the log-out");
            gate.open();
        },
        gateway.get("/page", &older),
    );
    assert_eq!(before.status, 200, "the request that began before the log-out");
}

#[tokio::test]
async fn lagging_replica_does_not_revive_a_session_that_this_gateway_ended() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = start(&engine, &upstream).await;
    let session = table::alice_session(&engine).await;
    engine.inject(Affected::Only("GetItem"), Fault::Stale(session.item()));
    assert!(is_confirmed(&gateway.get(&log_out(), &session.cookie()).await));
    assert_eq!(session.row(&engine).await, Value::Null);
    assert_eq!(gateway.get("/page", &session.cookie()).await.status, 401);
}

#[tokio::test]
async fn log_out_with_cookies_of_two_live_sessions_is_409() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = start(&engine, &upstream).await;
    let (one, other) = (table::alice_session(&engine).await, table::alice_session(&engine).await);
    let both = format!("{}; {}", one.cookie(), other.cookie());
    let response = gateway.get(&log_out(), &both).await;
    assert_eq!((response.status, response.set_cookies().len()), (409, 0));
    for session in [one, other] {
        assert_eq!(gateway.get("/page", &session.cookie()).await.status, 200);
        assert!(is_confirmed(&gateway.get(&log_out(), &session.cookie()).await));
    }
    let response = gateway.get(&log_out(), &both).await;
    assert!(is_confirmed(&response), "the cookies of sessions that have ended: {response:?}");
}
