//! `max_connections` and the queue of requests that wait for a connection.

use futures_util::future::select;

use super::{gateway, url};
use crate::support::client::{Client, Request};
use crate::support::gate::Gate;
use crate::support::gateway::Gateway;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

/// Starts a gateway with two workers and `max_connections = 1`, and sends a request that waits at the gate. Returns the
/// gate, the upstream, the gateway and the client of that request.
async fn busy(lines: &str) -> (Gate, Upstream, Gateway, Client) {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("ok").after(&held));
    let lines = format!("max_connections = 1\n{lines}");
    let gateway = gateway(&[url(&upstream)], &lines).server("workers = 2").start().await;
    let mut first = Client::connect(gateway.address()).await;
    first.send_request(&Request::get("/first")).await;
    gate.wait_for_arrival().await;
    (gate, upstream, gateway, first)
}

#[tokio::test]
async fn request_that_finds_the_queue_full_is_503_and_the_queued_one_is_served() {
    let (gate, upstream, gateway, mut first) = busy("queue = { size = 1, timeout = \"1h\" }").await;
    let (mut one, mut other) =
        (Client::connect(gateway.address()).await, Client::connect(gateway.address()).await);
    one.send_request(&Request::get("/")).await;
    other.send_request(&Request::get("/")).await;
    // Either of the two may be queued.
    let (one, other) = (Box::pin(one.read_response()), Box::pin(other.read_response()));
    let (refused, waiting) = select(one, other).await.factor_first();
    let refused = refused.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(upstream.request_count(), 1, "a request above the limit was forwarded");
    gate.open();
    assert_eq!(first.read_response().await.unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn queued_request_is_503_after_the_queue_timeout() {
    let (gate, upstream, gateway, mut first) = busy("queue = { timeout = \"20ms\" }").await;
    assert_eq!(gateway.send(&Request::get("/")).await.status, 503);
    assert_eq!(upstream.request_count(), 1);
    gate.open();
    assert_eq!(first.read_response().await.unwrap().status, 200);
    assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
}

#[tokio::test]
async fn all_ejected_servers_are_used_if_one_is_full() {
    let gate = Gate::closed();
    let [mut one, mut other] = [0, 1].map(|_| {
        let held = gate.clone();
        Upstream::responding(move |request| {
            let response = ScriptedResponse::ok("ok");
            if request.target == "/held" { response.after(&held) } else { response }
        })
    });
    let lines = "max_connections = 1\nqueue = { size = 1, timeout = \"20ms\" }\n\
                 ejection = { failures = 1, for = \"1h\" }";
    let gateway = gateway(&[url(&one), url(&other)], lines).start().await;
    one.server().stop().await;
    other.server().stop().await;
    assert_eq!(gateway.send(&Request::get("/")).await.status, 502);
    gateway.nth_event("a server is ejected", 2).await;
    one.server().resume();
    other.server().resume();
    let mut first = Client::connect(gateway.address()).await;
    first.send_request(&Request::get("/held")).await;
    gate.wait_for_arrival().await;
    for _ in 0..4 {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    }
    gate.open();
    assert_eq!(first.read_response().await.unwrap().status, 200);
}
