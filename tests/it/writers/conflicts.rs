//! Writes that conflict with a transaction on their row, such as a rotation in another gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Cluster, FORMATS, NO_CACHE, cookie, patch};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::Gateway;
use crate::support::session_commands::{self, command_target};
use crate::support::table;

/// Makes the next `count` writes to an existing row fail with a transaction conflict.
fn inject_conflicts(engine: &Engine, count: usize) {
    let attempts = Arc::new(AtomicUsize::new(0));
    for operation in ["UpdateItem", "DeleteItem", "TransactWriteItems"] {
        let attempts = attempts.clone();
        engine.inject_with(Affected::Only(operation), move || {
            (attempts.fetch_add(1, Ordering::Relaxed) < count).then_some(Fault::Conflict)
        });
    }
}

#[tokio::test]
async fn change_rotation_and_log_out_succeed_after_one_transaction_conflict() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 1, NO_CACHE).await;
        let mut session = cluster.log_in(&json!({"user": "alice", "n": 1})).await;
        for (headers, is_kept) in [
            (patch(&json!({"n": 2})), true),
            (("X-Session-Action", "rotate".to_owned()), true),
            (("X-Session-Action", "destroy".to_owned()), false),
        ] {
            inject_conflicts(&engine, 1);
            let response =
                cluster.gateways[0].get(&command_target("/", std::slice::from_ref(&headers)), &session).await;
            engine.clear_faults();
            assert_eq!(response.status, 200, "{rows:?} {headers:?}: {}", response.text());
            session = cookie(&response).unwrap_or(session);
            let now = cluster.session(0, &session).await;
            assert_eq!(now.map(|now| now.claims), is_kept.then(|| json!(2)), "{rows:?} {headers:?}");
        }
    }
}

#[tokio::test]
async fn change_rotation_and_log_out_are_409_after_too_many_transaction_conflicts() {
    let engine = table::engine().await;
    let app = session_commands::upstream();
    let gateway = Gateway::builder()
        .engine_with(&engine, "timeout = \"500ms\"\nattempts = 2")
        .upstream("app", &app)
        .realm("cache.ttl = \"0s\"")
        .route("/", "required", "writes = true")
        .start()
        .await;
    let session = table::alice_session(&engine).await;
    for headers in [
        patch(&json!({"n": 2})),
        ("X-Session-Action", "rotate".to_owned()),
        ("X-Session-Action", "destroy".to_owned()),
    ] {
        inject_conflicts(&engine, usize::MAX);
        let response =
            gateway.get(&command_target("/", std::slice::from_ref(&headers)), &session.cookie()).await;
        engine.clear_faults();
        assert_eq!((response.status, response.set_cookies().len()), (409, 0), "{headers:?}");
        assert_eq!(session.row(&engine).await, session.item(), "{headers:?}");
    }
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
}
