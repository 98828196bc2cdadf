//! `/metrics`: counters and durations of requests, sessions and the store. No client can choose a label's value.

use serde_json::json;

use crate::support::client::Request;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gateway::{Builder, Gateway};
use crate::support::metrics::Metrics;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::{self, patch_target, set_cookie};
use crate::support::table::{self, DUE, Session};
use crate::support::upstream::Upstream;

const REQUESTS: &str = "sessiongate_requests_total";

fn builder(engine: &Engine, upstream: &Upstream) -> Builder {
    Gateway::builder().engine(engine).upstream("app", upstream).toml("[admin]\naddress = \"127.0.0.1:0\"")
}

async fn gateway(engine: &Engine, upstream: &Upstream) -> Gateway {
    builder(engine, upstream)
        .realm("")
        .route("/", "required", "writes = true\n[routes.headers]\nX-User = \"user\"")
        .route("/optional", "optional", "")
        .route("/public", "public", "methods = [\"GET\"]")
        .start()
        .await
}

#[tokio::test]
async fn requests_are_counted_by_route_status_and_verdict() {
    let (engine, upstream) = (
        table::engine().await,
        Upstream::responding(|request| match request.target.as_str() {
            "/optional/404" => ScriptedResponse::new(404, ""),
            _ => ScriptedResponse::ok("ok"),
        }),
    );
    let gateway = gateway(&engine, &upstream).await;
    let session = table::alice_session(&engine).await;
    for target in ["/", "/a", "/optional", "/optional/404", "/public"] {
        gateway.get(target, &session.cookie()).await;
    }
    gateway.get("/", "a=b").await;
    gateway.get("/optional", "a=b").await;
    gateway.send(&Request::post("/public", "x")).await;
    gateway.get("//", "a=b").await;

    let metrics = Metrics::scrape(&gateway).await;
    for (route, status, verdict, expected) in [
        ("/", "2xx", "active", 2.0),
        ("/", "4xx", "refused", 1.0),
        ("/optional", "2xx", "active", 1.0),
        ("/optional", "4xx", "active", 1.0),
        ("/optional", "2xx", "anonymous", 1.0),
        ("/public", "2xx", "public", 1.0),
        // Two requests without a route: one has another method, and one an ambiguous path.
        ("-", "4xx", "refused", 2.0),
    ] {
        let labels = [("route", route), ("status", status), ("verdict", verdict)];
        assert_eq!(metrics.sum(REQUESTS, &labels), expected, "{labels:?}\n{}", metrics.text());
    }
    assert_eq!(metrics.sum(REQUESTS, &[]), 9.0);
    for (cause, expected) in [("unauthenticated", 1.0), ("method", 1.0), ("ambiguous-path", 1.0)] {
        assert_eq!(metrics.sum("sessiongate_refusals_total", &[("cause", cause)]), expected, "{cause}");
    }
    // The routes' names, and `-`; no path of a request.
    assert_eq!(
        metrics.label_values(REQUESTS, "route").len(),
        4,
        "{:?}",
        metrics.label_values(REQUESTS, "route")
    );
}

#[tokio::test]
async fn duration_is_the_sum_of_gateway_store_and_upstream_durations() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).await;
    let session = table::alice_session(&engine).await;
    for _ in 0..3 {
        gateway.get("/", &session.cookie()).await;
    }
    gateway.get("/", "a=b").await;

    let metrics = Metrics::scrape(&gateway).await;
    let count = |part: &str| {
        metrics.sum(&format!("sessiongate_request_{part}duration_seconds_count"), &[("route", "/")])
    };
    let sum = |part: &str| {
        metrics.sum(&format!("sessiongate_request_{part}duration_seconds_sum"), &[("route", "/")])
    };
    assert_eq!((count(""), count("gateway_")), (4.0, 4.0));
    assert_eq!(
        (count("store_"), count("upstream_")),
        (1.0, 3.0),
        "one session was read, and one request was not forwarded"
    );
    let parts = sum("gateway_") + sum("store_") + sum("upstream_");
    assert!((sum("") - parts).abs() < 1e-6, "{} {parts}", sum(""));
    assert!(sum("store_") > 0.0 && sum("upstream_") > 0.0 && sum("gateway_") > 0.0);
}

#[tokio::test]
async fn session_operations_are_counted_by_realm() {
    let (engine, upstream) = (
        table::engine().await,
        Upstream::responding(|request| match request.target.as_str() {
            "/patch" => ScriptedResponse::ok("").header("X-Session-Patch", "{\"a\":1}"),
            "/late" => ScriptedResponse::ok("")
                .header("X-Session-Patch", "{\"a\":2}")
                .header("X-Session-If-Version", "99"),
            "/end" => ScriptedResponse::ok("").header("X-Session-Action", "destroy"),
            _ => ScriptedResponse::ok("ok"),
        }),
    );
    let gateway = gateway(&engine, &upstream).await;
    let session = table::alice_session(&engine).await;
    for target in ["/", "/", "/patch", "/late", "/end", "/"] {
        gateway.get(target, &session.cookie()).await;
    }
    let absent = Session::new(json!({ "user": "nobody" }));
    gateway.get("/", &absent.cookie()).await;
    gateway.get("/", &absent.cookie()).await;
    gateway.get("/", "session_id=odd").await;
    gateway.get("/", "a=b").await;
    let due = Session::new(json!({ "user": "bob" })).aged(DUE);
    due.put(&engine).await;
    gateway.get("/", &due.cookie()).await;

    crate::support::eventually("the reissue is counted", || async {
        let won = [("realm", "main"), ("outcome", "won")];
        Metrics::scrape(&gateway).await.sum("sessiongate_session_reissues_total", &won) == 1.0
    })
    .await;
    let metrics = Metrics::scrape(&gateway).await;
    let count = |family: &str, label: &str, value: &str| {
        metrics.sum(&format!("sessiongate_session_{family}_total"), &[("realm", "main"), (label, value)])
    };
    let resolved = |outcome| count("resolutions", "outcome", outcome);
    assert_eq!((resolved("active"), resolved("absent")), (6.0, 3.0), "{}", metrics.text());
    assert_eq!((resolved("cookie-shape"), resolved("no-cookie")), (1.0, 1.0));
    let cached = |result| count("cache_lookups", "result", result);
    assert_eq!(cached("hit") + cached("miss") + cached("negative") + cached("stale"), 9.0);
    assert!(cached("hit") >= 3.0 && cached("negative") >= 1.0, "{}", metrics.text());
    let changed = |outcome| count("changes", "outcome", outcome);
    assert_eq!((changed("written"), changed("conflict"), changed("ended")), (1.0, 1.0, 1.0));
    assert_eq!(count("reissues", "outcome", "failed"), 0.0);
    let bound = [("realm", "main"), ("bound", "session_cache")];
    assert!(metrics.sum("sessiongate_realm_bound_used", &bound) >= 1.0);
    assert!(metrics.sum("sessiongate_realm_bound_limit", &bound) >= 100_000.0);
}

#[tokio::test]
async fn store_operations_and_consumed_capacity_are_counted() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).await;
    let session = table::alice_session(&engine).await;
    gateway.get("/", &session.cookie()).await;
    let other = table::alice_session(&engine).await;
    engine.inject(Affected::All, Fault::Throttle);
    assert_eq!(gateway.get("/", &other.cookie()).await.status, 503);

    let metrics = Metrics::scrape(&gateway).await;
    let count = |outcome| {
        let labels = [("table", "sessions"), ("operation", "get"), ("outcome", outcome)];
        metrics.sum("sessiongate_store_operations_total", &labels)
    };
    assert_eq!((count("done"), count("throttled"), count("unavailable")), (1.0, 1.0, 0.0));
    let reads = [("table", "sessions"), ("operation", "get")];
    assert_eq!(metrics.sum("sessiongate_store_consumed_capacity_units_total", &reads), 0.5);
    assert_eq!(metrics.sum("sessiongate_store_operation_duration_seconds_count", &reads), 2.0);
    assert_eq!(metrics.sum(REQUESTS, &[("route", "/"), ("status", "5xx")]), 1.0);
}

#[tokio::test]
async fn writes_to_the_embedded_engine_consume_capacity() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/login" => ScriptedResponse::ok("").header("X-Session-Patch", "{\"user\":\"alice\"}"),
        "/rotate" => ScriptedResponse::ok("").header("X-Session-Action", "rotate"),
        "/logout" => ScriptedResponse::ok("").header("X-Session-Action", "destroy"),
        _ => ScriptedResponse::ok("").header("X-Session-Patch", "{\"n\":1}"),
    });
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .toml(
            "[admin]\naddress = \"127.0.0.1:0\"\n[sessions.main]\nformat = \"native\"\ntable = \"sessions\"",
        )
        .route("/", "optional", "writes = true")
        .start()
        .await;
    let mut cookie = "a=b".to_owned();
    for target in ["/login", "/change", "/rotate", "/logout"] {
        let response = gateway.get(target, &cookie).await;
        assert_eq!(response.status, 200, "{target}");
        cookie = set_cookie(&response);
    }
    let metrics = Metrics::scrape(&gateway).await;
    for operation in ["create", "update", "rotate", "delete"] {
        let labels = [("table", "sessions"), ("operation", operation)];
        let units = metrics.sum("sessiongate_store_consumed_capacity_units_total", &labels);
        assert!(units >= 1.0, "{operation}: {units}\n{}", metrics.text());
    }
}

#[tokio::test]
async fn scrubbed_headers_process_build_and_server_metrics_are_present() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).await;
    let spoofed =
        Request::get("/public").header("X-User", "root").header("x_user", "root").header("Accept", "*/*");
    gateway.send(&spoofed.header("X-Session-Ref", "1")).await;

    let metrics = Metrics::scrape(&gateway).await;
    assert_eq!(metrics.sum("sessiongate_scrubbed_headers_total", &[]), 3.0);
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(metrics.sum("sessiongate_build_info", &version), 1.0);
    assert_eq!(metrics.sum("sessiongate_workers", &[]), 1.0);
    assert!(metrics.sum("process_resident_memory_bytes", &[]) > 1_000_000.0);
    assert!(metrics.sum("process_open_fds", &[]) < metrics.sum("process_max_fds", &[]));
    assert!(metrics.sum("process_start_time_seconds", &[]) <= table::now() as f64);
    let app = [("upstream", "app")];
    for (name, expected) in [
        ("upstream_available", 1.0),
        ("server_healthy", 1.0),
        ("server_ejected", 0.0),
        ("server_connections_total", 1.0),
    ] {
        assert_eq!(metrics.sum(&format!("sessiongate_{name}"), &app), expected, "{name}");
    }
}

/// A series for each value that a client invents would exhaust memory.
#[tokio::test]
async fn values_of_a_request_create_no_series() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).await;
    let series = |metrics: &Metrics| metrics.text().lines().filter(|line| !line.starts_with('#')).count();
    let mut counts = Vec::new();
    for number in 0..40 {
        let made_up = format!("/made-up-{number}");
        let session = Session::new(json!({ "user": number }));
        let request = Request::new(&format!("M{number}"), &made_up).cookie(&session.cookie());
        gateway.send(&request.header("Host", &format!("h{number}.test"))).await;
        gateway.send(&Request::get("/public").header("User-Agent", &made_up)).await;
        counts.push(series(&Metrics::scrape(&gateway).await));
    }
    // A few of the gateway's own label values may appear first here, such as the one of too many lookups of unknown sessions.
    assert!(counts[39] - counts[1] < 5, "{counts:?}");
    assert!(!Metrics::scrape(&gateway).await.text().contains("made-up"));
}

#[tokio::test]
async fn session_that_grows_by_changes_counts_for_more_in_the_cache() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = builder(&engine, &upstream)
        .realm("cache.ttl = \"1m\"")
        .route("/", "required", "writes = true")
        .start()
        .await;
    let session = table::alice_session(&engine).await;
    let mut cookie = session.cookie();
    for name in ["a", "b", "c", "d"] {
        let changed = gateway.get(&patch_target(&json!({ name: "x".repeat(5000) })), &cookie).await;
        cookie = set_cookie(&changed);
    }
    let metrics = Metrics::scrape(&gateway).await;
    let labels = [("realm", "main"), ("bound", "session_cache")];
    assert_eq!(metrics.sum("sessiongate_realm_bound_used", &labels), 5.0, "20 KB in units of 4 KiB");
}
