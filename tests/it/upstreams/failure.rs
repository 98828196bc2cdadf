//! Failing servers: retries, ejection and health checks.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{gateway, url};
use crate::support::client::{Client, Request};
use crate::support::gateway::{Gateway, field};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// Waits for an event with this message.
async fn wait_for(gateway: &Gateway, message: &str) {
    gateway.wait_for_event(message, |event| field(event, "message") == message).await;
}

/// Starts a server that reads requests and closes the connection without a response.
fn closing_server() -> Upstream {
    Upstream::responding(|_| ScriptedResponse::raw(""))
}

#[tokio::test]
async fn no_get_fails_and_no_post_is_repeated_when_a_server_stops_under_load() {
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
                    assert_eq!(response.status, 200, "a GET failed");
                    let target = format!("/post/{client}/{number}");
                    posts.push(connection.request(&Request::post(&target, "x")).await.status);
                }
                posts
            })
        })
        .collect();
    servers[0].wait_for_requests(200).await;
    servers[0].server().stop().await;
    wait_for(&gateway, "a server is ejected").await;
    let mut lost = 0;
    for client in clients {
        let posts = within("a client", client).await.unwrap();
        assert!(posts.iter().all(|status| matches!(status, 200 | 502)), "{posts:?}");
        lost += posts.iter().filter(|status| **status != 200).count();
    }
    assert!(lost <= 64, "{lost} POSTs failed");
    let mut times = HashMap::new();
    for request in servers.iter().flat_map(Upstream::requests).filter(|request| request.method == "POST") {
        *times.entry(request.target).or_insert(0) += 1;
    }
    assert!(times.values().all(|times| *times == 1), "a POST was executed twice");
}

#[tokio::test]
async fn only_idempotent_methods_are_retried() {
    let (bad, good) = (closing_server(), Upstream::start());
    let gateway = gateway(&[url(&bad), url(&good)], "ejection.failures = 0").start().await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        for _ in 0..2 {
            assert_eq!(gateway.send(&Request::new(method, "/")).await.status, 200, "{method}");
        }
    }
    assert_eq!(bad.request_count(), 5, "each method once");
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
async fn request_is_not_retried_after_its_body_was_sent() {
    let (bad, good) = (closing_server(), Upstream::start());
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
    // The bad server has read the body, so the gateway had sent it.
    assert_eq!(statuses, [200, 502]);
    assert_eq!((bad.request_count(), good.request_count()), (1, 1));
}

#[tokio::test]
async fn with_one_attempt_only_a_refused_connection_is_retried() {
    let (bad, good, mut stopped) = (closing_server(), Upstream::start(), Upstream::start());
    stopped.server().stop().await;
    let lines = "retries.attempts = 1\nejection.failures = 0";
    let gateway = gateway(&[url(&bad), url(&stopped), url(&good)], lines).start().await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(gateway.send(&Request::get("/")).await.status);
    }
    statuses.sort_unstable();
    assert!(statuses.starts_with(&[200, 200]) && statuses.ends_with(&[502, 502]), "{statuses:?}");
    assert_eq!(bad.request_count() + good.request_count(), 6);
}

#[tokio::test]
async fn failing_server_is_ejected_once_and_still_used_if_it_is_the_only_one() {
    let mut server = Upstream::start();
    let lines = "ejection = { failures = 2, for = \"1h\" }";
    let gateway = gateway(&[url(&server)], lines).start().await;
    server.server().stop().await;
    for _ in 0..4 {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 502);
    }
    wait_for(&gateway, "a server is ejected").await;
    assert_eq!(gateway.events("a server is ejected").len(), 1, "logged more than once");
    server.server().resume();
    assert_eq!(gateway.send(&Request::get("/")).await.status, 200, "the only server is not used");
}

#[tokio::test]
async fn server_that_does_not_respond_is_ejected() {
    let (stalled, good) = (Upstream::responding(|_| ScriptedResponse::never()), Upstream::start());
    let lines = "response_timeout = \"100ms\"\nejection = { failures = 2, for = \"1h\" }";
    let gateway = gateway(&[url(&stalled), url(&good)], lines).start().await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(gateway.send(&Request::get("/")).await.status);
    }
    wait_for(&gateway, "a server is ejected").await;
    assert_eq!(statuses.iter().filter(|status| **status == 504).count(), 2, "{statuses:?}");
    assert_eq!(stalled.request_count(), 2);
}

#[tokio::test]
async fn server_with_an_ejection_status_is_ejected() {
    let (bad, good) = (Upstream::responding(|_| ScriptedResponse::new(503, "")), Upstream::start());
    let lines = "ejection = { failures = 2, for = \"1h\", status = \"503\" }";
    let gateway = gateway(&[url(&bad), url(&good)], lines).start().await;
    for _ in 0..12 {
        gateway.send(&Request::get("/")).await;
    }
    assert_eq!((bad.request_count(), good.request_count()), (2, 10));
}

#[tokio::test]
async fn unhealthy_server_gets_no_requests() {
    let healthy = Arc::new(AtomicBool::new(false));
    let is_healthy = healthy.clone();
    let server = Upstream::responding(move |request| match request.target.as_str() {
        "/healthz" if !is_healthy.load(Ordering::Relaxed) => ScriptedResponse::new(500, ""),
        _ => ScriptedResponse::ok("ok"),
    });
    let lines = "health = { path = \"/healthz\", interval = \"500ms\", healthy = 1, unhealthy = 2 }";
    let gateway = gateway(&[url(&server)], lines).start().await;
    wait_for(&gateway, "a server is not healthy").await;
    let refused = gateway.send(&Request::get("/")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(!refused.text().contains(&server.address().to_string()), "{}", refused.text());
    healthy.store(true, Ordering::Relaxed);
    wait_for(&gateway, "a server is healthy").await;
    assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    healthy.store(false, Ordering::Relaxed);
    eventually("503 of the unhealthy server", || async {
        gateway.send(&Request::get("/")).await.status == 503
    })
    .await;
    let checks = server.requests().into_iter().filter(|request| request.target == "/healthz");
    let host = server.address().to_string();
    assert!(checks.into_iter().all(|check| check.header("host") == Some(&host)));
}

#[tokio::test]
async fn server_whose_name_does_not_resolve_is_skipped() {
    let server = Upstream::start();
    let named = format!("http://localhost:{}", server.address().port());
    let lines = "connect_timeout = \"5s\"\nejection.failures = 1";
    let gateway = gateway(&["http://unknown.invalid:80".to_owned(), named], lines).start().await;
    wait_for(&gateway, "a name cannot be looked up").await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    }
}

#[tokio::test]
async fn server_whose_responses_are_repaired_is_healthy() {
    let server = Upstream::responding(|_| {
        ScriptedResponse::raw("HTTP/1.1 200 OK\r\nServer : old\r\nContent-Length: 2\r\n\r\nok")
    });
    let lines = "health = { path = \"/healthz\", interval = \"500ms\", healthy = 1, unhealthy = 1 }";
    let gateway = gateway(&[url(&server)], lines).start().await;
    server.wait_for_requests(2).await;
    assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    assert_eq!(gateway.events("a server is not healthy").len(), 0);
}

#[tokio::test]
async fn server_that_switches_protocols_without_being_asked_is_ejected() {
    let server = Upstream::responding(|_| ScriptedResponse::upgrade("websocket"));
    let lines = "ejection = { failures = 2, for = \"1h\" }";
    let gateway = gateway(&[url(&server)], lines).start().await;
    for _ in 0..2 {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 502);
    }
    wait_for(&gateway, "a server is ejected").await;
}

/// An event stream keeps the pool in use.
#[tokio::test]
async fn reload_that_changes_an_upstream_closes_its_idle_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let gateway = gateway(&[server], "response_timeout = \"10s\"").server("workers = 1").start().await;
    let mut clients = Vec::new();
    let mut connections = Vec::new();
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: one\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/")).await;
        let (mut connection, _) = within("a connection", listener.accept()).await.unwrap();
        assert!(connection.read(&mut [0; 1024]).await.unwrap() > 0);
        connection.write_all(response.as_bytes()).await.unwrap();
        client.read_until(response.rsplit("\r\n").next().unwrap()).await;
        clients.push(client);
        connections.push(connection);
    }
    gateway.edit_config(|text| text.replace("\"10s\"", "\"11s\""));
    gateway.reload().await;
    let closed = within("the end of the idle connection", connections[1].read(&mut [0; 16])).await;
    assert_eq!(closed.unwrap(), 0);
}
