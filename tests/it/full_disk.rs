//! Full disks. A limit on the size of files (`RLIMIT_FSIZE`) simulates a full disk: the system writes what fits and rejects
//! the rest.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway};
use crate::support::metrics::Metrics;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::set_cookie;
use crate::support::upstream::Upstream;

/// Limits the size of the gateway's files, or removes the limit. The hard limit is unchanged, so this needs no privilege.
fn limit_files(gateway: &Gateway, size: Option<u64>) {
    let pid = Pid::from_raw(gateway.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: size, maximum: None }).expect("sets the limit");
}

fn builder(upstream: &Upstream, server: &str) -> Builder {
    Gateway::builder()
        .upstream("app", upstream)
        .server(&format!("workers = 2\n{server}"))
        .toml("[admin]\naddress = \"127.0.0.1:0\"")
}

/// Returns the lines of a log. Panics if one is incomplete.
fn read_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "a line without an end: {text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

/// Returns the numbers of written and of dropped lines.
async fn line_counts(gateway: &Gateway) -> (usize, usize) {
    let metrics = Metrics::scrape(gateway).await;
    let count = |outcome| {
        let lines = metrics.sum("sessiongate_access_log_lines_total", &[("outcome", outcome)]);
        lines.to_string().parse().expect("a whole number")
    };
    (count("written"), count("dropped"))
}

async fn send(gateway: &Gateway, requests: usize) {
    for _ in 0..requests {
        assert_eq!(gateway.send(&Request::get("/")).await.status, 200);
    }
}

/// Waits until this many lines were written or dropped.
async fn wait_for_lines(gateway: &Gateway, requests: usize) {
    eventually("all lines are counted", || async {
        let (written, dropped) = line_counts(gateway).await;
        written + dropped == requests
    })
    .await;
}

#[tokio::test]
async fn access_log_on_a_full_disk_has_complete_lines_and_reports_the_dropped_ones() {
    let upstream = Upstream::start();
    let gateway =
        builder(&upstream, "access_log = { file = \"access.log\" }").route("/", "public", "").start().await;
    let file = gateway.directory().join("access.log");
    send(&gateway, 20).await;
    wait_for_lines(&gateway, 20).await;
    let size = fs::metadata(&file).unwrap().len();
    let line = size / 20;

    // First there is space for two and a half lines, then for half a line.
    for room in [line * 5 / 2, line / 2] {
        let size = fs::metadata(&file).unwrap().len();
        let (written, dropped) = line_counts(&gateway).await;
        limit_files(&gateway, Some(size + room));
        send(&gateway, 10).await;
        wait_for_lines(&gateway, written + dropped + 10).await;
        let fitted = usize::try_from(room / line).unwrap();
        assert_eq!(line_counts(&gateway).await, (written + fitted, dropped + 10 - fitted));
        assert_eq!(read_lines(&file).len(), written + fitted);

        limit_files(&gateway, None);
        send(&gateway, 1).await;
        wait_for_lines(&gateway, written + dropped + 11).await;
        assert_eq!(read_lines(&file).len(), written + fitted + 1);
    }
    let failed = gateway.events("the access log cannot be written");
    assert!((1..=4).contains(&failed.len()), "once a second at most: {failed:?}");
    // The second report is written after a second, or at exit.
    let (status, log) = gateway.terminate().await;
    assert!(status.success());
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let reported: u64 = events.filter_map(|event| event["dropped"].as_u64()).sum();
    assert_eq!(reported, 8 + 10, "{log}");
    assert!(log.contains("the access log is being written again"), "{log}");
}

/// A process that is killed while it writes leaves a part of a line.
#[tokio::test]
async fn access_log_starts_a_new_line_after_an_incomplete_one() {
    let upstream = Upstream::start();
    let gateway = builder(&upstream, "access_log = { file = \"access.log\" }")
        .file("access.log", "{\"half\":1")
        .route("/", "public", "")
        .start()
        .await;
    let file = gateway.directory().join("access.log");
    send(&gateway, 3).await;
    wait_for_lines(&gateway, 3).await;
    let text = fs::read_to_string(&file).unwrap();
    let (half, rest) = text.split_once('\n').unwrap();
    assert_eq!(half, "{\"half\":1");
    assert!(
        rest.lines().count() == 3 && rest.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{text}"
    );
}

async fn readiness(gateway: &Gateway) -> Response {
    Request::get("/readyz").send(gateway.addresses("admin")[0]).await
}

/// Reads succeed, `/readyz` reports the failing writes, and dependencies log nothing.
#[tokio::test]
async fn store_on_a_full_disk_is_not_writable_until_there_is_space() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/login" => {
            ScriptedResponse::ok("").header("X-Session-Patch", &json!({ "user": "alice" }).to_string())
        }
        _ => ScriptedResponse::ok(request.header("x-user").unwrap_or("nobody").to_owned()),
    });
    let gateway = builder(&upstream, "")
        .store("[store.embedded]\npath = \"sessions.db\"")
        .toml("[sessions.main]\nformat = \"native\"\ntable = \"sessions\"\ncache.ttl = \"0s\"")
        .route("/", "optional", "writes = true\n[routes.headers]\nX-User = \"user\"")
        .start()
        .await;
    let login = gateway.send(&Request::get("/login")).await;
    let cookie = set_cookie(&login);
    assert_eq!(gateway.get("/", &cookie).await.text(), "alice");
    assert_eq!(readiness(&gateway).await.status, 200);

    limit_files(&gateway, Some(1));
    for _ in 0..4 {
        assert_eq!(gateway.send(&Request::get("/login")).await.status, 503);
    }
    eventually("503 of /readyz", || async {
        let ready = readiness(&gateway).await;
        ready.status == 503 && ready.json()["checks"]["stores"]["main"] == "not writable: unavailable"
    })
    .await;
    assert_eq!(gateway.get("/", &cookie).await.text(), "alice", "reads fail");
    let log = gateway.log();
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let targets = events.filter_map(|event| event["target"].as_str().map(str::to_owned));
    let foreign: Vec<_> =
        targets.filter(|target| target != "access" && !target.starts_with("sessiongate")).collect();
    assert_eq!(foreign, Vec::<String>::new(), "{log}");

    limit_files(&gateway, None);
    assert_eq!(gateway.send(&Request::get("/login")).await.status, 200);
    eventually("200 of /readyz", || async { readiness(&gateway).await.status == 200 }).await;
}
