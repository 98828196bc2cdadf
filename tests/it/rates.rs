//! Rate limits for each client address: of requests, and of lookups of unknown session ids.

use std::sync::Arc;

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::metrics::Metrics;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

const TRUSTING: &str = "address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]";

fn from(address: &str, target: &str) -> Request {
    Request::get(target).header("X-Forwarded-For", address)
}

/// Returns the builder of a gateway that limits the lookups of unknown ids, to a rate of one a second, and requires a
/// session.
fn limiting_misses(upstream: &Upstream, burst: usize) -> Builder {
    Gateway::builder()
        .server(&format!("workers = 1\n[server.limits]\nmisses = {{ per_second = 1, burst = {burst} }}"))
        .upstream("app", upstream)
        .route("/", "required", "")
}

/// Sends `count` requests and returns how many were not refused.
async fn send(gateway: &Gateway, request: &Request, count: usize) -> usize {
    let mut client = Client::connect(gateway.address()).await;
    let mut served = 0;
    for _ in 0..count {
        let response = client.request(request).await;
        match response.status {
            200 => served += 1,
            status => {
                assert_eq!(status, 429);
                // One token is added each second, so the wait is at most a second.
                assert_eq!(response.header("retry-after"), Some("1"));
            }
        }
    }
    served
}

#[tokio::test]
async fn requests_above_the_gateway_s_or_the_route_s_rate_are_429() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server("workers = 1\n[server.limits]\nrate = { per_second = 1, burst = 40 }")
        .listener(TRUSTING)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .route("/login", "public", "rate = { per_second = 1, burst = 5 }")
        .start()
        .await;
    // On a busy machine the requests may take some seconds, in which tokens are added.
    let is_near = |served: usize, burst: usize| (burst..burst + 20).contains(&served);
    let at_login = send(&gateway, &from("192.0.2.1", "/login"), 35).await;
    assert!(is_near(at_login, 5), "{at_login}");
    assert_eq!(upstream.request_count(), at_login, "a refused request was forwarded");
    let anywhere = send(&gateway, &from("192.0.2.1", "/"), 60).await;
    assert!((5..30).contains(&anywhere), "requests that the route refused count, too: {anywhere}");
    assert_eq!(send(&gateway, &from("192.0.2.2", "/login"), 5).await, 5, "another address was limited");
    assert_eq!(
        send(&gateway, &from("192.0.2.1, 192.0.2.3", "/"), 5).await,
        5,
        "the address before the last was used"
    );
    let line = gateway.wait_for_event("line", |event| field(event, "status") == 429).await;
    assert_eq!(field(&line, "verdict"), "rate");
}

#[tokio::test]
async fn ipv6_addresses_of_one_network_share_a_limit() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .listener(TRUSTING)
        .upstream("app", &upstream)
        .route("/", "public", "rate = { per_second = 1, burst = 1 }")
        .start()
        .await;
    let mut refused = 0;
    for host in 0..30 {
        let response = gateway.send(&from(&format!("2001:db8::{host:x}"), "/")).await;
        refused += usize::from(response.status == 429);
    }
    assert!(refused > 10, "{refused}");
    assert_eq!(gateway.send(&from("2001:db8:0:1::1", "/")).await.status, 200);
}

#[tokio::test]
async fn lookups_of_unknown_ids_are_limited_and_cached_sessions_are_served() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let known = table::alice_session(&engine).await;
    let gateway = Gateway::builder()
        .engine(&engine)
        .server("workers = 1\n[server.limits]\nmisses = { per_second = 1, burst = 20 }")
        .listener(TRUSTING)
        .upstream("app", &upstream)
        .realm("cache.ttl = \"1h\"")
        .route("/", "optional", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await;
    let gateway = Arc::new(gateway);
    assert_eq!(gateway.send(&from("192.0.2.1", "/").cookie(&known.cookie())).await.status, 200);
    let before = engine.counts().reads();
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let gateway = Arc::clone(&gateway);
        clients.spawn(async move {
            let mut client = Client::connect(gateway.address()).await;
            let mut refused = 0;
            for _ in 0..500 {
                let forged = Session::new(json!({}));
                let response = client.request(&from("192.0.2.1", "/").cookie(&forged.cookie())).await;
                assert!(matches!(response.status, 200 | 429), "{response:?}");
                assert!(response.set_cookies().is_empty(), "the cookie was expired");
                refused += usize::from(response.status == 429);
            }
            refused
        });
    }
    let refused: usize = clients.join_all().await.into_iter().sum();
    // Two reads for each of the first 20 unknown ids, and for one more each second.
    let reads = engine.counts().reads() - before;
    assert!((40..=100).contains(&reads), "{reads} reads");
    assert!(refused >= 2000 - 50, "{refused}");

    // A cached session is served, and so is an uncached one from another address.
    let response = gateway.send(&from("192.0.2.1", "/").cookie(&known.cookie())).await;
    assert_eq!((response.status, upstream.last_request().header("x-user")), (200, Some("alice")));
    let other = Session::new(json!({ "user": "bob" }));
    other.put(&engine).await;
    let response = gateway.send(&from("192.0.2.2", "/").cookie(&other.cookie())).await;
    assert_eq!(
        (response.status, upstream.last_request().header("x-user")),
        (200, Some("bob")),
        "another address"
    );
    let line = gateway.wait_for_event("line", |event| field(event, "reason") == "misses").await;
    assert_eq!((field(&line, "status"), field(&line, "verdict")), (&json!(429), &json!("rate")));
}

#[tokio::test]
async fn lookups_of_existing_sessions_are_not_limited() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = limiting_misses(&upstream, 1).engine(&engine).realm("").start().await;
    for number in 1..=50 {
        let session = Session::new(json!({ "user": number }));
        session.put(&engine).await;
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    }
}

/// The reads are limited while they are in progress.
#[tokio::test]
async fn concurrent_lookups_of_unknown_ids_are_limited() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = limiting_misses(&upstream, 5)
        .engine_with(&engine, "timeout = \"10s\"\nattempts = 1")
        .realm("")
        .start()
        .await;
    let gateway = Arc::new(gateway);
    let gate = Gate::closed();
    engine.inject(Affected::Only("GetItem"), Fault::HoldRequest(gate.clone()));
    let mut requests = JoinSet::new();
    for _ in 0..100 {
        let gateway = Arc::clone(&gateway);
        requests.spawn(async move { gateway.get("/", &Session::new(json!({})).cookie()).await.status });
    }
    let mut statuses = Vec::new();
    // A token is added each second, so a few of the last requests may have got one.
    while statuses.len() < 80 {
        statuses.push(requests.join_next().await.unwrap().unwrap());
    }
    assert_eq!(statuses, [429; 80], "the other lookups are in progress");
    gate.open();
    requests.join_all().await;
}

/// The read goes on without its client.
#[tokio::test]
async fn lookup_whose_client_disconnects_does_not_count_as_a_miss() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = limiting_misses(&upstream, 5).engine(&engine).realm("").start().await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("GetItem"), Fault::HoldRequest(gate.clone()));
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let session = table::alice_session(&engine).await;
        let request = Request::get("/").cookie(&session.cookie());
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&request).await;
        gate.wait_for_arrival().await;
        drop(client);
        // Gets its response once the read, which it shares or finds in the cache, has returned its token.
        let mut other = Client::connect(gateway.address()).await;
        other.send_request(&request).await;
        waiting.push(other);
    }
    gateway.nth_event("request", 5).await;
    engine.clear_faults();
    gate.open();
    for mut client in waiting {
        assert_eq!(client.read_response().await.unwrap().status, 200);
    }
    for _ in 0..5 {
        let session = table::alice_session(&engine).await;
        assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    }
}

/// An id whose lookup fails may be a user's.
#[tokio::test]
async fn lookups_that_fail_do_not_count_as_misses() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = limiting_misses(&upstream, 5).engine_with(&engine, "attempts = 1").realm("").start().await;
    engine.inject(Affected::Only("GetItem"), Fault::Throttle);
    for _ in 0..50 {
        assert_eq!(gateway.get("/", &Session::new(json!({})).cookie()).await.status, 503);
    }
}

/// The cookies of Pyramid are unsigned, so a client can make up versions of its own session.
#[tokio::test]
async fn lookups_of_made_up_versions_are_limited() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = limiting_misses(&upstream, 5).engine(&engine).realm("cache.ttl = \"1h\"").start().await;
    let mut client = Client::connect(gateway.address()).await;
    let mut refused = 0;
    for version in 2..102 {
        let response =
            client.request(&Request::get("/").cookie(&session.clone().version(version).cookie())).await;
        refused += usize::from(response.status == 429);
    }
    assert!(refused >= 80, "{refused}");
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200, "the session itself");
}

#[tokio::test]
async fn number_of_addresses_in_limiters_is_bounded_and_a_metric() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server("workers = 1\n[server.limits]\nrate = { per_second = 100 }")
        .listener(TRUSTING)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .route("/login", "public", "rate = { per_second = 100 }")
        .toml("[admin]\naddress = \"127.0.0.1:0\"")
        .start()
        .await;
    for number in 1..=7 {
        let target = if number <= 3 { "/login" } else { "/" };
        assert_eq!(send(&gateway, &from(&format!("192.0.2.{number}"), target), 1).await, 1);
    }
    let metrics = Metrics::scrape(&gateway).await;
    for (route, limiter, used) in
        [("-", "rate", 7.0), ("/login", "rate", 3.0), ("-", "misses", 0.0), ("-", "reset_rate", 0.0)]
    {
        let labels = [("route", route), ("limiter", limiter)];
        assert_eq!(metrics.sum("sessiongate_limiter_bound_used", &labels), used, "{labels:?}");
        let limit = metrics.sum("sessiongate_limiter_bound_limit", &labels);
        assert!((65_536.0..=131_072.0).contains(&limit), "{labels:?}: {limit}");
    }
    assert_eq!(
        metrics.label_values("sessiongate_limiter_bound_limit", "route").len(),
        2,
        "a route without a limit has a limiter"
    );
}
