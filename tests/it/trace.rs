//! W3C trace context on its way through: passed on with a span of the gateway's, or made; and found in every log.

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

async fn line(gateway: &Gateway) -> Value {
    gateway.wait_for_event("a line of the access log", |event| field(event, "message") == "request").await
}

#[tokio::test]
async fn a_trace_goes_on_with_a_new_span_and_its_state() {
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
    let line = line(&gateway).await;
    assert_eq!((line["trace"].as_str(), line["span"].as_str()), (Some(TRACE), Some(&parent[36..52])));
}

#[tokio::test]
async fn without_one_or_with_a_bad_one_a_trace_is_made() {
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
async fn where_traces_only_pass_nothing_is_touched() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream).server("workers = 1\ntraces = \"pass\"").start().await;
    gateway.send(&Request::get("/").header("traceparent", PARENT)).await;
    assert_eq!(upstream.last_request().header("traceparent"), Some(PARENT));
    gateway.send(&Request::get("/")).await;
    assert_eq!(upstream.last_request().header("traceparent"), None);
    assert_eq!(line(&gateway).await["trace"], TRACE);
}

/// At `debug`, every phase says under the request's id and trace how long it took; at `info` none is there.
#[tokio::test]
async fn every_phase_is_a_span() {
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
        let request = request.unwrap_or_else(|| panic!("{phase} is in no request: {span}"));
        assert_eq!((request["id"].as_str(), request["trace"].as_str()), (Some("the-request"), Some(TRACE)));
    }
    // What outlives the request is found by it too.
    let reissue = gateway.wait_for_event("the reissue", |event| field(event, "message") == "reissue").await;
    let spans = reissue["spans"].as_array().unwrap();
    assert!(spans.iter().any(|span| span["trace"] == TRACE), "{reissue}");
    let quiet = builder("info").start().await;
    quiet.send(&Request::get("/").cookie(&session.cookie())).await;
    line(&quiet).await;
    assert!(quiet.events("close").is_empty());
}

/// Where there is no access log, what failed is logged by itself, under both ids, once a second.
#[tokio::test]
async fn a_failed_request_is_found_by_its_trace() {
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
        gateway.wait_for_event("the failure", |event| field(event, "message") == "a request failed").await;
    assert_eq!((&event["id"], &event["trace"]), (&"the-request".into(), &TRACE.into()));
    assert_eq!(event["cause"], "store-unavailable");
    for message in ["a request failed", "a session could not be read"] {
        assert!(gateway.events(message).len() < 10, "{message} is not throttled");
    }
    assert!(gateway.events("request").is_empty());
}
