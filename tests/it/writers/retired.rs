//! Requests with the old id of a rotated session.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{Cluster, LONG_CACHE, NATIVE, NO_CACHE, cookie, patch};
use crate::support::client::Response;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::session_commands::command_target;

fn action(action: &str) -> String {
    command_target("/", &[("X-Session-Action", action.to_owned())])
}

async fn rotate(cluster: &Cluster, old: &str) -> String {
    let response = cluster.gateways[0].get(&action("rotate"), old).await;
    assert_eq!(response.status, 200);
    cookie(&response).expect("a new id")
}

fn is_ended(response: &Response) -> bool {
    response.status == 200 && response.set_cookies().iter().any(|cookie| cookie.contains("Max-Age=0"))
}

/// The retired row has been removed, by DynamoDB's TTL or a purge, while a gateway still has the old row cached.
#[tokio::test]
async fn log_out_without_a_row_is_409_if_the_session_may_have_a_new_id() {
    let engine = Engine::start();
    let lines = format!("rotation_grace = \"0s\"\n{LONG_CACHE}");
    let cluster = Cluster::start(engine.address(), NATIVE, 2, &lines).await;
    let old = cluster.log_in(&json!({"user": "alice"})).await;
    cluster.session(1, &old).await.expect("cached");
    let rows = engine.call("Scan", json!({"TableName": "sessions"})).await;
    let new = rotate(&cluster, &old).await;
    let key = json!({ "sid": rows["Items"][0]["sid"] });
    engine.call("DeleteItem", json!({"TableName": "sessions", "Key": key})).await;

    let response = cluster.gateways[1].get(&action("destroy"), &old).await;

    assert_eq!((response.status, response.set_cookies().len()), (409, 0));
    assert!(cluster.session(1, &new).await.is_some());
}

#[tokio::test]
async fn second_log_out_by_another_gateway_succeeds() {
    let engine = Engine::start();
    let cluster = Cluster::start(engine.address(), NATIVE, 2, LONG_CACHE).await;
    let session = cluster.log_in(&json!({"user": "alice"})).await;
    cluster.session(1, &session).await.expect("cached");
    for gateway in &cluster.gateways {
        assert!(is_ended(&gateway.get(&action("destroy"), &session).await));
    }
}

/// Old ids can be read during `rotation_grace`, but not after a log-out under any of the ids.
#[tokio::test]
async fn log_out_ends_every_id_of_the_session() {
    let empty = command_target("/", &[patch(&json!({"user": null}))]);
    let engine = Engine::start();
    let cluster = Cluster::start(engine.address(), NATIVE, 1, NO_CACHE).await;
    for log_out in [action("destroy"), empty] {
        for used in 0..3 {
            let mut ids = vec![cluster.log_in(&json!({"user": "alice"})).await];
            for turn in 0..2 {
                ids.push(rotate(&cluster, &ids[turn]).await);
            }
            for id in &ids {
                assert!(cluster.session(0, id).await.is_some(), "during rotation_grace");
            }

            let response = cluster.gateways[0].get(&log_out, &ids[used]).await;

            if used < 2 && log_out != action("destroy") {
                assert_eq!(response.status, 409, "a retired row is not changed");
                continue;
            }
            assert!(is_ended(&response), "{response:?}");
            for id in &ids {
                assert!(cluster.session(0, id).await.is_none(), "logged out under id {used}: {log_out}");
            }
            let rows = engine.call("Scan", json!({"TableName": "sessions"})).await;
            assert!(log_out != action("destroy") || rows["Count"] == 0, "{rows}");
        }
    }
}

/// The session has ended, but its old id can still be read, so the log-out is not confirmed. A second log-out finds no session.
#[tokio::test]
async fn retired_row_whose_delete_failed_is_deleted_later() {
    let engine = Engine::start();
    let lines = format!("rotation_grace = \"1m\"\n{NO_CACHE}");
    let cluster = Cluster::start(engine.address(), NATIVE, 1, &lines).await;
    let old = cluster.log_in(&json!({"user": "alice"})).await;
    let new = rotate(&cluster, &old).await;
    let deletes = AtomicUsize::new(0);
    engine.inject_with(Affected::Only("DeleteItem"), move || {
        // Both attempts of the second delete.
        matches!(deletes.fetch_add(1, Ordering::Relaxed), 1 | 2).then_some(Fault::ServerError)
    });
    assert_eq!(cluster.gateways[0].get(&action("destroy"), &new).await.status, 503);
    assert!(cluster.session(0, &new).await.is_none());
    let again = command_target("/login", &[("X-Session-Action", "destroy".to_owned())]);
    assert!(is_ended(&cluster.gateways[0].get(&again, &new).await));
    crate::support::eventually("the end of the old id", || async {
        cluster.session(0, &old).await.is_none()
    })
    .await;
}
