//! The access log: one complete line for each request, however it ends, and no request waits for the log.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::client::{Client, Request};
use crate::support::engine::{Affected, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::metrics::Metrics;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table;
use crate::support::upstream::Upstream;
use crate::support::within;

fn builder(upstream: &Upstream, server: &str) -> Builder {
    Gateway::builder()
        .upstream("app", upstream)
        .route("/", "public", "")
        .server(&format!("workers = 2\n{server}"))
        .toml("[admin]\naddress = \"127.0.0.1:0\"")
}

fn read_lines(path: &PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

#[tokio::test]
async fn line_describes_the_request_and_its_response() {
    let upstream = Upstream::responding(|_| ScriptedResponse::new(201, "four"));
    let gateway = builder(&upstream, "").start().await;
    gateway.send(&Request::post("/a/b?secret=1", "x").header("X-Request-Id", "the-id")).await;
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
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

#[tokio::test]
async fn a_head_with_invalid_syntax_is_logged_and_counted() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "").start().await;
    for (head, status, cause) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n".to_owned(), 400, "bad-syntax"),
        (format!("GET /{}", "a".repeat(70_000)), 414, "uri-too-long"),
        (format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(70_000)), 431, "too-many-headers"),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        client.send(&head).await;
        let response = client.read_response().await.unwrap();
        assert_eq!((response.status, response.header("connection")), (status, Some("close")));
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert!(client.is_closed().await);
        let id = response.header("x-request-id").unwrap();
        let line = gateway.wait_for_event("the line", |event| field(event, "id") == id).await;
        let logged = (&line["status"], &line["verdict"], &line["client"], &line["complete"]);
        assert_eq!(logged, (&json!(status), &json!(cause), &json!("127.0.0.1"), &json!(true)));
        let metrics = Metrics::scrape(&gateway).await;
        assert_eq!(metrics.sum("sessiongate_refusals_total", &[("cause", cause)]), 1.0);
    }
    assert_eq!(upstream.request_count(), 0);
}

/// A JSON parser would take a placeholder such as `-` for a value.
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
    let always = "timestamp target message id trace span client method protocol host path status verdict reissue \
                      bytes complete ms store_ms";
    for (path, status, more) in [
        ("/public", 200, "route upstream upstream_ms"),
        ("/in", 401, "route reason"),
        ("/elsewhere", 404, ""),
    ] {
        assert_eq!(gateway.send(&Request::get(path)).await.status, status);
        let line = gateway.wait_for_event("line", |event| field(event, "path") == path).await;
        let names: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = always.split_whitespace().chain(more.split_whitespace()).collect::<BTreeSet<_>>();
        assert_eq!(names, expected, "{line}");
        assert!(line.as_object().unwrap().values().all(|value| value != "-" && value != ""), "{line}");
    }
}

#[tokio::test]
async fn request_path_cannot_forge_a_line() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "access_log = { file = \"access.log\" }").start().await;
    let file = gateway.directory().join("access.log");
    let targets = ["/plain", "/%0a%22forged%22", "/a'{}b=c"];
    for target in targets {
        assert_eq!(gateway.send(&Request::get(target)).await.status, 200);
    }
    crate::support::eventually("lines", || async { read_lines(&file).len() == 3 }).await;
    let paths: Vec<_> =
        read_lines(&file).iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    assert!(targets.iter().all(|target| paths.iter().any(|path| path == target)), "{paths:?}");
    assert!(gateway.events("request").is_empty(), "lines go only to the file");
}

/// No line is lost or truncated when the file is moved away.
#[tokio::test]
async fn rotation_loses_no_line() {
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
        files.iter().map(|file| read_lines(file).len()).sum::<usize>() == 151
    })
    .await;
    assert_eq!(gateway.events("the access log was reopened").len(), 3);
    let metrics = Metrics::scrape(&gateway).await;
    let count = |outcome| metrics.sum("sessiongate_access_log_lines_total", &[("outcome", outcome)]);
    assert_eq!((count("written"), count("dropped")), (151.0, 0.0));
}

/// The output is a pipe that nobody reads.
#[tokio::test]
async fn blocked_output_drops_lines_and_delays_no_request() {
    let upstream = Upstream::start();
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // Open and never read.
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
async fn all_lines_are_written_before_exit() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "").start().await;
    for _ in 0..200 {
        gateway.send(&Request::get("/")).await;
    }
    let (_, log) = gateway.terminate().await;
    assert_eq!(log.matches("\"message\":\"request\"").count(), 200);
}

/// The old log is a pipe that is smaller than the lines, and that is read only when the workers have ended.
#[tokio::test]
async fn lines_of_a_log_that_a_reload_has_replaced_are_written_before_exit() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("12345").paused_after(2, &held));
    let fifo = tempfile::tempdir().unwrap();
    let path = fifo.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let both_ends = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let log = format!("{{ file = \"{}\" }}", path.display());
    let mut gateway = builder(&upstream, &format!("watch = false\naccess_log = {log}")).start().await;
    let mut reader = fs::File::open(&path).unwrap();
    drop(both_ends);
    let mut clients = Vec::new();
    for _ in 0..80 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get(&format!("/{}", "x".repeat(12_000)))).await;
        gate.wait_for_arrival().await;
        clients.push(client);
    }

    gateway.edit_config(|text| text.replace(&log, "false"));
    gateway.reload().await;
    gateway.signal("TERM");
    gateway.nth_event("draining", 1).await;
    gate.open();
    let count = clients.len();
    for mut client in clients {
        assert_eq!(client.read_response().await.unwrap().text(), "12345");
    }
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    let text = within("the end of the log", reading).await.unwrap().unwrap();

    assert!(gateway.wait().await.success());
    assert!(text.ends_with('\n'));
    assert_eq!(text.lines().count(), count);
    assert!(gateway.events("the last lines of the access log could not be written").is_empty());
}

#[tokio::test]
async fn truncated_response_is_logged_as_incomplete() {
    let upstream = Upstream::responding(|_| ScriptedResponse::ok("x".repeat(5000)).truncated_to(100));
    let gateway = builder(&upstream, "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    assert!(client.read_response().await.is_err());
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!(line["complete"], false);
}

#[tokio::test]
async fn generated_response_to_head_is_logged_as_complete_and_announces_its_length() {
    let upstream = Upstream::start();
    let page = "[[routes]]\npath = \"/page\"\naccess = \"public\"\nrespond = { body = \"hello\" }";
    let gateway = builder(&upstream, "").toml(page).start().await;
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..2 {
        let response = client.request(&Request::new("HEAD", "/page")).await;
        assert_eq!((response.status, response.header("content-length")), (200, Some("5")));
    }
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!((&line["bytes"], &line["complete"]), (&0.into(), &true.into()), "{line}");
}

/// 499 is nginx's status for this; nothing is sent.
#[tokio::test]
async fn client_that_disconnects_before_the_upstream_responds_is_logged_as_499() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("late").after(&held));
    let gateway = builder(&upstream, "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/a")).await;
    gate.wait_for_arrival().await;
    drop(client);
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    let expected = json!([499, "gone", "/a", "/", 0, false]);
    let logged = ["status", "verdict", "path", "route", "bytes", "complete"].map(|name| line[name].clone());
    assert_eq!(json!(logged), expected, "{line}");
    assert!(line["upstream_ms"].as_f64().unwrap() > 0.0, "{line}");

    let metrics = Metrics::scrape(&gateway).await;
    let labels = [("route", "/"), ("status", "499"), ("verdict", "gone")];
    assert_eq!(metrics.sum("sessiongate_requests_total", &labels), 1.0, "{}", metrics.text());
    let count = |part: &str| metrics.sum(&format!("sessiongate_request_{part}duration_seconds_count"), &[]);
    assert_eq!((count(""), count("upstream_")), (1.0, 0.0), "the upstream's duration is unknown");
}

#[tokio::test]
async fn client_that_disconnects_during_the_lookup_is_logged_as_499() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&upstream, "").engine_with(&engine, "timeout = \"10s\"\nattempts = 2").realm("");
    let gateway = gateway.route("/in", "required", "").start().await;
    let session = table::alice_session(&engine).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("GetItem"), Fault::HoldRequest(gate.clone()));
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/in").cookie(&session.cookie())).await;
    gate.wait_for_arrival().await;
    drop(client);
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!((&line["status"], &line["route"]), (&499.into(), &"/in".into()), "{line}");
    // The read continues, and the next request uses its result.
    gate.open();
    assert_eq!(gateway.get("/in", &session.cookie()).await.status, 200);
    assert_eq!(engine.counts().reads(), 1);
    assert_eq!(upstream.request_count(), 1);
}

#[tokio::test]
async fn client_that_disconnects_during_the_body_is_logged_as_incomplete() {
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
    let line = gateway.wait_for_event("line", |event| field(event, "message") == "request").await;
    assert_eq!((&line["status"], &line["complete"]), (&200.into(), &false.into()), "{line}");
}
