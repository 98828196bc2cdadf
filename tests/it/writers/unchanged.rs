//! Changes that change nothing in the row that a gateway has cached, but in the current one.

use serde_json::json;

use super::{Cluster, FORMATS, LONG_CACHE, SessionHeaders, cookie, if_version, patch};
use crate::support::engine::Engine;
use crate::support::session_commands::command_target;

#[tokio::test]
async fn patch_that_undoes_the_change_of_another_gateway_is_written() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 2, LONG_CACHE).await;
        let first = cluster.log_in(&json!({"user": "alice", "n": 1})).await;
        cluster.session(0, &first).await.expect("cached");
        let set = |n: u8| command_target("/", &[patch(&json!({ "n": n }))]);
        let changed = cookie(&cluster.gateways[1].get(&set(2), &first).await).expect("a cookie");

        let response = cluster.gateways[0].get(&set(1), &first).await;

        assert_eq!(response.status, 200, "{rows:?}");
        let last = cookie(&response).unwrap_or(changed);
        assert_eq!(cluster.session(0, &last).await.unwrap().claims, json!(1), "{rows:?}");
        // The same patch again changes nothing, and costs a read.
        let (before, response) = (engine.counts(), cluster.gateways[0].get(&set(1), &last).await);
        assert_eq!((response.status, response.set_cookies().len()), (200, 0), "{rows:?}");
        let after = engine.counts();
        assert_eq!(after.updates, before.updates, "{rows:?}");
        assert_eq!(after.strong_reads, before.strong_reads + 1, "{rows:?}");
    }
}

#[tokio::test]
async fn patch_that_changes_nothing_is_409_if_another_gateway_has_changed_the_version() {
    for rows in FORMATS {
        let engine = Engine::start();
        let cluster = Cluster::start(engine.address(), rows, 2, LONG_CACHE).await;
        let first = cluster.log_in(&json!({"user": "alice", "n": 1})).await;
        let SessionHeaders { version, .. } = cluster.session(0, &first).await.expect("cached");
        let unchanged = command_target("/", &[patch(&json!({"n": 1})), if_version(&version)]);
        assert_eq!(cluster.gateways[0].get(&unchanged, &first).await.status, 200, "{rows:?}");
        let change = command_target("/", &[patch(&json!({"n": 2}))]);
        assert_eq!(cluster.gateways[1].get(&change, &first).await.status, 200, "{rows:?}");

        assert_eq!(cluster.gateways[0].get(&unchanged, &first).await.status, 409, "{rows:?}");
        let now = cluster.session(0, &first).await.unwrap();
        assert_eq!(now.claims, json!(2), "{rows:?}: the next request sees the row as it is");
    }
}
