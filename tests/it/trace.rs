//! W3C trace context: forwarded with a new span, or created, and present in the logs.

use serde_json::Value;

use crate::support::client::Request;
use crate::support::engine::{Affected, Fault};
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn builder(upstream: &Upstream) -> Builder {
    Gateway::builder().upstream("app", upstream).route("/", "public", "")
}

async fn access_line(gateway: &Gateway) -> Value {
    gateway.wait_for_event("line", |event| field(event, "message") == "request").await
}

#[tokio::test]
async fn valid_traceparent_is_forwarded_with_a_new_span_and_its_tracestate() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream).start().await;
    let request = Request::get("/")
        .header("traceparent", PARENT)
        .header("tracestate", "a=1")
        .header("tracestate", "b=2");
    let response = gateway.send(&request).await;

    let seen = upstream.only_request();
    let parent = seen.header("traceparent").unwrap().to_owned();
    assert_eq!((&parent[..36], &parent[52..]), (&PARENT[..36], "-01"));
    assert_ne!(parent[36..52], PARENT[36..52]);
    assert_eq!(seen.all("tracestate"), ["a=1", "b=2"]);
    assert!(response.header("traceparent").is_none());
    let line = access_line(&gateway).await;
    assert_eq!((line["trace"].as_str(), line["span"].as_str()), (Some(TRACE), Some(&parent[36..52])));
}

#[tokio::test]
async fn missing_or_invalid_traceparent_is_replaced_by_a_new_trace() {
    for (setting, flags) in [("", "03"), ("traces = \"unsampled\"", "02")] {
        let upstream = Upstream::start();
        let gateway = builder(&upstream).server(&format!("workers = 1\n{setting}")).start().await;
        let bad = Request::get("/").header("traceparent", &PARENT.to_uppercase()).header("tracestate", "a=1");
        for request in [Request::get("/"), bad] {
            gateway.send(&request).await;
            let seen = upstream.last_request();
            let parent = seen.header("traceparent").unwrap().to_owned();
            assert_eq!((parent.len(), &parent[..3], &parent[53..]), (55, "00-", flags));
            assert!(!parent.contains(TRACE) && seen.all("tracestate").is_empty());
        }
    }
}

#[tokio::test]
async fn traces_pass_forwards_traceparent_unchanged() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream).server("workers = 1\ntraces = \"pass\"").start().await;
    gateway.send(&Request::get("/").header("traceparent", PARENT)).await;
    assert_eq!(upstream.last_request().header("traceparent"), Some(PARENT));
    gateway.send(&Request::get("/")).await;
    assert_eq!(upstream.last_request().header("traceparent"), None);
    assert_eq!(access_line(&gateway).await["trace"], TRACE);
}

/// Each span has the request's id and trace, and its duration.
#[tokio::test]
async fn every_phase_is_a_span_at_debug_and_none_at_info() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(serde_json::json!({ "user": "alice" })).aged(table::DUE);
    session.put(&engine).await;
    let builder = |level: &str| {
        Gateway::builder()
            .engine(&engine)
            .upstream("app", &upstream)
            .realm("")
            .route("/", "required", "")
            .env("RUST_LOG", &format!("warn,sessiongate={level}"))
    };
    let gateway = builder("debug").start().await;
    let request = Request::get("/").cookie(&session.cookie()).header("traceparent", PARENT);
    gateway.send(&request.header("X-Request-Id", "the-request")).await;
    for phase in ["resolve", "admit", "forward", "commands"] {
        let span = gateway
            .wait_for_event(phase, |event| {
                field(event, "message") == "close" && event["span"]["name"] == phase
            })
            .await;
        let request =
            span["spans"].as_array().unwrap().iter().find(|span| span["name"] == "request").cloned();
        let request = request.unwrap_or_else(|| panic!("{phase} is not in a request: {span}"));
        assert_eq!((request["id"].as_str(), request["trace"].as_str()), (Some("the-request"), Some(TRACE)));
    }
    // Also the reissue, which may end after the request.
    let reissue = gateway.wait_for_event("reissue", |event| field(event, "message") == "reissue").await;
    let spans = reissue["spans"].as_array().unwrap();
    assert!(spans.iter().any(|span| span["trace"] == TRACE), "{reissue}");
    let info = builder("info").start().await;
    info.send(&Request::get("/").cookie(&session.cookie())).await;
    access_line(&info).await;
    assert!(info.events("close").is_empty());
}

/// Without an access log, failed requests are logged, at most once a second.
#[tokio::test]
async fn log_line_of_a_failed_request_has_its_id_and_trace() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "required", "")
        .server("workers = 1\naccess_log = false")
        .start()
        .await;
    engine.inject(Affected::All, Fault::AccessDenied);
    let mut failed = 0;
    for _ in 0..20 {
        let session = Session::new(serde_json::json!({}));
        let request = Request::get("/").cookie(&session.cookie()).header("traceparent", PARENT);
        failed +=
            usize::from(gateway.send(&request.header("X-Request-Id", "the-request")).await.status == 503);
    }
    assert_eq!(failed, 20);
    let event =
        gateway.wait_for_event("failure", |event| field(event, "message") == "a request failed").await;
    assert_eq!((&event["id"], &event["trace"]), (&"the-request".into(), &TRACE.into()));
    assert_eq!(event["cause"], "store-unavailable");
    for message in ["a request failed", "a session could not be read"] {
        assert!(gateway.events(message).len() < 10, "{message} is not throttled");
    }
    assert!(gateway.events("request").is_empty());
}
