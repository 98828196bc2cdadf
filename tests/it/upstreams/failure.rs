//! Servers that fail: what is sent again, what never is, and who is left out.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{gateway, url};
use crate::support::client::{Client, Request};
use crate::support::gateway::{Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// Waits for the log to say this.
async fn said(gateway: &Gateway, message: &str) {
    gateway.wait_for_event(message, |event| field(event, "message") == message).await;
}

/// A server that takes requests and breaks off.
fn broken() -> Upstream {
    Upstream::responding(|_| ScriptedResponse::raw(""))
}

#[tokio::test]
async fn one_of_three_dies_under_load() {
    let mut servers = [Upstream::start(), Upstream::start(), Upstream::start()];
    let gateway = gateway(&servers.each_ref().map(url), "").server("workers = 2").start().await;
    let address = gateway.address();
    let clients: Vec<_> = (0..64)
        .map(|client| {
            tokio::spawn(async move {
                let mut connection = Client::connect(address).await;
                let mut posts = Vec::new();
                for number in 0..40 {
                    let target = format!("/{client}/{number}");
                    let response = connection.request(&Request::get(&target)).await;
                    assert_eq!(response.status, 200, "a GET has no error");
                    let target = format!("/post/{client}/{number}");
                    posts.push(connection.request(&Request::post(&target, "x")).await.status);
                }
                posts
            })
        })
        .collect();
    servers[0].wait_for_requests(200).await;
    servers[0].server().stop().await;
    said(&gateway, "a server is ejected").await;
    let mut lost = 0;
    for client in clients {
        let posts = within("a client", client).await.unwrap();
        assert!(posts.iter().all(|status| matches!(status, 200 | 502)), "{posts:?}");
        lost += posts.iter().filter(|status| **status != 200).count();
    }
    assert!(lost <= 64, "{lost} of the POSTs that were under way");
    let mut times = HashMap::new();
    for request in servers.iter().flat_map(Upstream::requests).filter(|request| request.method == "POST") {
        *times.entry(request.target).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1), "a POST was executed twice");
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again() {
    let (bad, good) = (broken(), Upstream::start());
    let gateway = gateway(&[url(&bad), url(&good)], "ejection.failures = 0").start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for _ in 0..2 {
            assert_eq!(gateway.send(&Request::new(method, "/")).await.status, 200, "{method}");
        }
    }
    assert_eq!(bad.request_count(), 5, "each had one turn there");
    for method in ["POST", "PATCH"] {
        let mut statuses = [
            gateway.send(&Request::new(method, "/").header("Content-Length", "0")).await.status,
            gateway.send(&Request::new(method, "/").header("Content-Length", "0")).await.status,
        ];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502], "{method}");
    }
    assert_eq!((bad.request_count(), good.request_count()), (7, 12));
}

#[tokio::test]
async fn a_body_that_was_taken_is_not_sent_again() {
    let (bad, good) = (broken(), Upstream::start());
    let gateway = gateway(&[url(&bad), url(&good)], "ejection.failures = 0").start().await;
    let put = Request::new("PUT", "/").header("Content-Length", "3");
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&put).await;
        client.send("abc").await;
        statuses.push(client.read_response().await.unwrap().status);
    }
    statuses.sort_unstable();
    // The bad server had read the body, so the gateway had passed it on.
    assert_eq!(statuses, [200, 502]);
    assert_eq!((bad.request_count(), good.request_count()), (1, 1));
}

#[tokio::test]
async fn one_attempt_is_one_attempt_but_what_was_not_sent_goes_on() {
    let (bad, good, mut gone) = (broken(), Upstream::start(), Upstream::start());
    gone.server().stop().await;
    let lines = "retries.attempts = 1\nejection.failures = 0";
    let gateway = gateway(&[url(&bad), url(&gone), url(&good)], lines).start().await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(gateway.send(&Request::get("/")).await.status);
    }
    statuses.sort_unstable();
    assert!(statuses.starts_with(&[200, 200]) && statuses.ends_with(&[502, 502]), "{statuses:?}");
    assert_eq!(bad.request_count() + good.request_count(), 6);
}

#[tokio::test]
async fn who_fails_is_left_out_and_all_of_them_are_tried_all_the_same() {
    let mut server = Upstream::start();
    let lines = "ejection = { failures = 2, for = \"1h\" }";
    let gateway = gateway(&[url(&server)], lines).start().await;
    server.server().stop().await;
    for _ in 0..4 {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 502);
    }
    said(&gateway, "a server is ejected").await;
    assert_eq!(gateway.events("a server is ejected").len(), 1, "said once");
    server.server().resume();
    assert_eq!(gateway.send(&Request::get("/")).await.status, 200, "there is no other");
}

#[tokio::test]
async fn who_does_not_answer_is_left_out() {
    let (silent, good) = (Upstream::responding(|_| ScriptedResponse::never()), Upstream::start());
    let lines = "response_timeout = \"100ms\"\nejection = { failures = 2, for = \"1h\" }";
    let gateway = gateway(&[url(&silent), url(&good)], lines).start().await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(gateway.send(&Request::get("/")).await.status);
    }
    said(&gateway, "a server is ejected").await;
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 2, "{statuses:?}");
    assert_eq!(silent.request_count(), 2);
}

#[tokio::test]
async fn answers_can_be_failures_too() {
    let (bad, good) = (Upstream::responding(|_| ScriptedResponse::new(503, "")), Upstream::start());
    let lines = "ejection = { failures = 2, for = \"1h\", status = \"503\" }";
    let gateway = gateway(&[url(&bad), url(&good)], lines).start().await;
    for _ in 0..12 {
        gateway.send(&Request::get("/")).await;
    }
    assert_eq!((bad.request_count(), good.request_count()), (2, 10));
}

#[tokio::test]
async fn only_healthy_servers_are_asked() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = well.clone();
    let server = Upstream::responding(move |request| match request.target.as_str() {
        "/healthz" if !is_well.load(Ordering::Relaxed) => ScriptedResponse::new(500, ""),
        _ => ScriptedResponse::ok("ok"),
    });
    let lines = "health = { path = \"/healthz\", interval = \"500ms\", healthy = 1, unhealthy = 2 }";
    let gateway = gateway(&[url(&server)], lines).start().await;
    said(&gateway, "a server is not healthy").await;
    let refused = gateway.send(&Request::get("/")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(!refused.text().contains(&server.address().to_string()), "{}", refused.text());
    well.store(true, Ordering::Relaxed);
    said(&gateway, "a server is healthy").await;
    assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    well.store(false, Ordering::Relaxed);
    eventually("it is out again", || async { gateway.send(&Request::get("/")).await.status == 503 }).await;
    let checks = server.requests().into_iter().filter(|request| request.target == "/healthz");
    let host = server.address().to_string();
    assert!(checks.into_iter().all(|check| check.header("host") == Some(&host)));
}

#[tokio::test]
async fn a_name_without_an_address_stops_nobody() {
    let server = Upstream::start();
    let named = format!("http://localhost:{}", server.address().port());
    let lines = "connect_timeout = \"5s\"\nejection.failures = 1";
    let gateway = gateway(&["http://nobody.invalid:80".to_owned(), named], lines).start().await;
    said(&gateway, "a name cannot be looked up").await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    }
}
