//! Writes that succeed, but whose response is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::{
    Cluster, FORMATS, LONG_CACHE, NATIVE, NO_CACHE, Rows, SessionHeaders, cookie, flash, if_version, patch,
};
use crate::support::client::Response;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::session_commands::command_target;

/// Loses the response of the next operation of this name: the operation succeeds, and the connection closes during the
/// response.
fn lose_response(engine: &Engine, operation: &'static str) {
    let lost = AtomicBool::new(false);
    engine.inject_with(Affected::Only(operation), move || {
        (!lost.swap(true, Ordering::Relaxed)).then_some(Fault::BrokenOff)
    });
}

async fn start(rows: Rows) -> (Engine, Cluster) {
    let engine = Engine::start();
    let cluster = Cluster::start(engine.address(), rows, 1, NO_CACHE).await;
    (engine, cluster)
}

/// Sends a request and loses the response of its first write.
async fn send_and_lose(
    engine: &Engine,
    cluster: &Cluster,
    operation: &'static str,
    target: &str,
    cookie: &str,
) -> Response {
    lose_response(engine, operation);
    let response = cluster.gateways[0].get(target, cookie).await;
    engine.clear_faults();
    response
}

#[tokio::test]
async fn change_whose_response_is_lost_is_made_once_and_acknowledged() {
    for rows in FORMATS {
        let (engine, cluster) = start(rows).await;
        let before = cluster.log_in(&json!({"user": "alice", "n": 1})).await;
        let SessionHeaders { version, .. } = cluster.session(0, &before).await.unwrap();
        let target = command_target("/", &[patch(&json!({"n": 2})), if_version(&version), flash("Saved")]);

        let response = send_and_lose(&engine, &cluster, "UpdateItem", &target, &before).await;

        assert_eq!(response.status, 200, "{rows:?}");
        let after = cookie(&response).expect("a cookie");
        let now = cluster.session(0, &after).await.unwrap();
        assert_eq!((now.claims, now.flash), (json!(2), vec!["Saved".to_owned()]), "{rows:?}");
        assert_eq!(cluster.gateways[0].get(&target, &after).await.status, 409, "{rows:?}");
    }
}

/// The response of the first attempt is lost, and another gateway writes before the second attempt. Whether the change was
/// made is unknown, so it must not be acknowledged.
#[tokio::test]
async fn change_whose_response_is_lost_before_another_write_is_503() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 2, LONG_CACHE).await;
        let cookie = cluster.log_in(&json!({"user": "alice", "n": 1})).await;
        let SessionHeaders { version, .. } = cluster.session(0, &cookie).await.unwrap();
        let first = command_target("/", &[patch(&json!({"n": 2})), if_version(&version)]);
        let second = command_target("/", &[patch(&json!({"n": 3}))]);
        let (gate, attempts) = (Gate::closed(), AtomicUsize::new(0));
        engine.inject_with(Affected::Only("UpdateItem"), {
            let gate = gate.clone();
            move || match attempts.fetch_add(1, Ordering::Relaxed) {
                0 => Some(Fault::BrokenOff),
                1 => Some(Fault::HoldRequest(gate.clone())),
                _ => None,
            }
        });

        let (first, second) = tokio::join!(cluster.gateways[0].get(&first, &cookie), async {
            gate.wait_for_arrival().await;
            let second = cluster.gateways[1].get(&second, &cookie).await;
            gate.open();
            second
        });

        engine.clear_faults();
        assert_eq!((first.status, first.set_cookies().len(), second.status), (503, 0, 200), "{rows:?}");
        let now = cluster.session(0, &cookie).await.unwrap();
        assert_eq!(now.claims, json!(3), "{rows:?}: the next request sees the row as it is");
    }
}

/// Whether the log-out or a rotation has deleted the row is unknown.
#[tokio::test]
async fn log_out_whose_response_is_lost_is_503() {
    for rows in FORMATS {
        let (engine, cluster) = start(rows).await;
        let cookie = cluster.log_in(&json!({"user": "alice"})).await;
        let log_out = command_target("/", &[("X-Session-Action", "destroy".to_owned())]);
        let response = send_and_lose(&engine, &cluster, "DeleteItem", &log_out, &cookie).await;
        assert_eq!((response.status, response.set_cookies().len()), (503, 0), "{rows:?}");
        assert!(cluster.session(0, &cookie).await.is_none(), "{rows:?}");
    }
}

/// A row under a new random key can only be this gateway's.
#[tokio::test]
async fn create_and_rotation_whose_response_is_lost_are_acknowledged() {
    for rows in FORMATS {
        let (engine, cluster) = start(rows).await;
        // DynamoDB returns these floats in another spelling than JSON's.
        let claims = json!({"user": "alice", "n": 1, "price": 10.0, "ratio": 1e-7});
        let log_in = command_target("/login", &[patch(&claims)]);
        let response = send_and_lose(&engine, &cluster, "PutItem", &log_in, "").await;
        assert_eq!(response.status, 200, "{rows:?}");
        let first = cookie(&response).expect("a cookie");
        assert_eq!(cluster.session(0, &first).await.unwrap().claims, json!(1), "{rows:?}");

        let rotate = command_target("/", &[("X-Session-Action", "rotate".to_owned())]);
        let response = send_and_lose(&engine, &cluster, "TransactWriteItems", &rotate, &first).await;
        assert_eq!(response.status, 200, "{rows:?}");
        let second = cookie(&response).expect("another cookie");
        assert_ne!(first, second, "{rows:?}");
        assert_eq!(cluster.session(0, &second).await.unwrap().claims, json!(1), "{rows:?}");
    }
}

/// DynamoDB returns 10.0 as 10, so the row that was created differs from the one that was sent.
#[tokio::test]
async fn lost_create_and_rotation_of_a_number_in_another_form_are_acknowledged() {
    let (engine, cluster) = start(NATIVE).await;
    let target = command_target("/login", &[("X-Session-Patch", r#"{"user":"alice","n":10.0}"#.to_owned())]);
    let response = send_and_lose(&engine, &cluster, "PutItem", &target, "").await;
    assert_eq!(response.status, 200);
    let first = cookie(&response).expect("a cookie");
    assert!(cluster.session(0, &first).await.is_some());
    let change = command_target(
        "/",
        &[("X-Session-Patch", r#"{"n":1e16}"#.to_owned()), ("X-Session-Action", "rotate".to_owned())],
    );
    let response = send_and_lose(&engine, &cluster, "TransactWriteItems", &change, &first).await;
    assert_eq!(response.status, 200);
    assert!(cluster.session(0, &cookie(&response).expect("another cookie")).await.is_some());
}
