//! The access log: one whole line for each request, whatever it holds, wherever it goes, however it ends; and never a
//! request that waits for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::metrics::Metrics;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

fn builder(upstream: &Upstream, server: &str) -> Builder {
    Gateway::builder()
        .upstream("app", upstream)
        .route("/", "public", "")
        .server(&format!("workers = 2\n{server}"))
        .toml("[admin]\naddress = \"127.0.0.1:0\"")
}

fn lines(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

#[tokio::test]
async fn a_line_says_what_was_asked_and_what_came_of_it() {
    let upstream = Upstream::responding(|_| ScriptedResponse::new(201, "four"));
    let gateway = builder(&upstream, "").start().await;
    gateway.send(&Request::post("/a/b?secret=1", "x").header("X-Request-Id", "the-id")).await;
    let line = gateway.wait_for_event("the line", |event| field(event, "message") == "request").await;
    for (name, value) in [
        ("target", "access"),
        ("id", "the-id"),
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("protocol", "HTTP/1.1"),
        ("host", "gateway.test"),
        ("path", "/a/b"),
        ("route", "/"),
        ("verdict", "public"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!((&line["status"], &line["bytes"], &line["complete"]), (&201.into(), &4.into(), &true.into()));
    assert!(line["ms"].as_f64().unwrap() >= line["upstream_ms"].as_f64().unwrap(), "{line}");
    assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
}

/// Readers of JSON would take a placeholder such as `-` for a value.
#[tokio::test]
async fn fields_that_do_not_apply_are_left_out() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/in", "required", "")
        .route("/public", "public", "")
        .start()
        .await;
    let everywhere = "timestamp target message id trace span client method protocol host path status verdict reissue \
                      bytes complete ms store_ms";
    for (path, status, more) in [
        ("/public", 200, "route upstream upstream_ms"),
        ("/in", 401, "route reason"),
        ("/elsewhere", 404, ""),
    ] {
        assert_eq!(gateway.send(&Request::get(path)).await.status, status);
        let line = gateway.wait_for_event("the line", |event| field(event, "path") == path).await;
        let names: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = everywhere.split_whitespace().chain(more.split_whitespace()).collect::<BTreeSet<_>>();
        assert_eq!(names, expected, "{line}");
        assert!(line.as_object().unwrap().values().all(|value| value != "-" && value != ""), "{line}");
    }
}

#[tokio::test]
async fn nobody_writes_a_line_of_his_own() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "access_log = { file = \"access.log\" }").start().await;
    let file = gateway.directory().join("access.log");
    let targets = ["/plain", "/%0a%22forged%22", "/a'{}b=c"];
    for target in targets {
        assert_eq!(gateway.send(&Request::get(target)).await.status, 200);
    }
    crate::support::eventually("the lines", || async { lines(&file).len() == 3 }).await;
    let paths: Vec<_> = lines(&file).iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    assert!(targets.iter().all(|target| paths.iter().any(|path| path == target)), "{paths:?}");
    assert!(gateway.events("request").is_empty(), "they go to the file");
}

/// Every request has its line, in the file that is there at the time, and no line is lost or cut when it is moved away.
#[tokio::test]
async fn rotation_loses_nothing() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "access_log = { file = \"access.log\" }").start().await;
    let directory = gateway.directory().to_owned();
    let file = directory.join("access.log");
    let mut files = vec![file.clone()];
    for turn in 0..3 {
        for _ in 0..50 {
            assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
        }
        let moved = directory.join(format!("access.log.{turn}"));
        fs::rename(&file, &moved).unwrap();
        files.push(moved);
        gateway.signal("USR1");
        crate::support::eventually("a new file", || async { file.exists() }).await;
    }
    gateway.send(&Request::get("/")).await;
    crate::support::eventually("all lines", || async {
        files.iter().map(|file| lines(file).len()).sum::<usize>() == 151
    })
    .await;
    assert_eq!(gateway.events("the access log was reopened").len(), 3);
    let metrics = Metrics::scrape(&gateway).await;
    let count = |outcome| metrics.sum("sessiongate_access_log_lines_total", &[("outcome", outcome)]);
    assert_eq!((count("written"), count("dropped")), (151.0, 0.0));
}

/// An output that does not keep up, such as a full pipe, costs lines and no request; and the gateway can still end.
#[tokio::test]
async fn an_output_that_stands_still_costs_lines_and_no_request() {
    let upstream = Upstream::start();
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Held open and never read.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let gateway =
        builder(&upstream, &format!("access_log = {{ file = \"{}\" }}", path.display())).start().await;
    let long = Request::get(&format!("/{}", "x".repeat(12_000)));
    let mut client = Client::connect(gateway.address()).await;
    let dropped = [("outcome", "dropped")];
    while Metrics::scrape(&gateway).await.sum("sessiongate_access_log_lines_total", &dropped) == 0.0 {
        for _ in 0..50 {
            assert_eq!(client.request(&long).await.status, 200);
        }
    }
    assert_eq!(client.request(&Request::get("/")).await.status, 200);
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_end() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "").start().await;
    for _ in 0..200 {
        gateway.send(&Request::get("/")).await;
    }
    let (_, log) = gateway.terminate().await;
    assert_eq!(log.matches("\"message\":\"request\"").count(), 200);
}

#[tokio::test]
async fn a_request_that_breaks_off_is_not_complete() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok("x".repeat(5000)).truncated_to(100));
    let gateway = builder(&upstream, "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    assert!(client.read_response().await.is_err());
    let line = gateway.wait_for_event("the line", |event| field(event, "message") == "request").await;
    assert_eq!(line["complete"], false);
}

/// Whoever hangs up before there is an answer is counted and written down as nginx does it, though nothing is sent.
#[tokio::test]
async fn a_client_that_hangs_up_while_the_upstream_works() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("late").after(&held));
    let gateway = builder(&upstream, "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/a")).await;
    gate.wait_for_arrival().await;
    drop(client);
    let line = gateway.wait_for_event("the line", |event| field(event, "message") == "request").await;
    let expected = json!([499, "gone", "/a", "/", 0, false]);
    let said = ["status", "verdict", "path", "route", "bytes", "complete"].map(|name| line[name].clone());
    assert_eq!(json!(said), expected, "{line}");
    assert!(line["upstream_ms"].as_f64().unwrap() > 0.0, "{line}");

    let metrics = Metrics::scrape(&gateway).await;
    let labels = [("route", "/"), ("status", "499"), ("verdict", "gone")];
    assert_eq!(metrics.sum("sessiongate_requests_total", &labels), 1.0, "{}", metrics.text());
    let count = |part: &str| metrics.sum(&format!("sessiongate_request_{part}duration_seconds_count"), &[]);
    assert_eq!((count(""), count("upstream_")), (1.0, 0.0), "what it would have taken is not known");
}

#[tokio::test]
async fn a_client_that_hangs_up_while_the_store_is_asked() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&upstream, "").engine_with(&engine, "timeout = \"10s\"\nattempts = 2").realm("");
    let gateway = gateway.route("/in", "required", "").start().await;
    let session = Session::new(json!({ "user": "alice" }));
    session.put(&engine).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("GetItem"), Fault::HoldRequest(gate.clone()));
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/in").cookie(&session.cookie())).await;
    gate.wait_for_arrival().await;
    drop(client);
    let line = gateway.wait_for_event("the line", |event| field(event, "message") == "request").await;
    assert_eq!((&line["status"], &line["route"]), (&499.into(), &"/in".into()), "{line}");
    // The read goes on, and the next one has it.
    gate.open();
    assert_eq!(gateway.get("/in", &session.cookie()).await.status, 200);
    assert_eq!(engine.counts().reads(), 1);
    assert_eq!(upstream.request_count(), 1);
}

/// What has begun keeps its status, and is not complete.
#[tokio::test]
async fn a_client_that_hangs_up_in_the_middle_of_a_body() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream =
        Upstream::responding(move |_| ScriptedResponse::ok("x".repeat(5000)).paused_after(1000, &held));
    let gateway = builder(&upstream, "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    gate.wait_for_arrival().await;
    client.read_until("xxx").await;
    drop(client);
    let line = gateway.wait_for_event("the line", |event| field(event, "message") == "request").await;
    assert_eq!((&line["status"], &line["complete"]), (&200.into(), &false.into()), "{line}");
}
