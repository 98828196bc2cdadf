//! `sessiongate session purge` deletes exactly the expired sessions, also while the table changes; and `session list`.

#![cfg(feature = "embedded")]
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::engine::{Affected, Engine, Fault, Operation};
use crate::support::gate::Gate;
use crate::support::program::AWS_ENVIRONMENT;
use crate::support::table::{self, Session, TABLE, TIMEOUT};
use crate::support::within;

/// Number of rows in the large table, half of them expired: enough for many pages. `SESSIONGATE_PURGE_ROWS` sets another
/// number.
const ROWS: usize = 10_000;

/// Creates a directory with a configuration of one Pyramid realm in `engine`.
fn configure(engine: &Engine) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = engine.address();
    let config = format!(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.dynamodb]\nendpoint = \"http://{endpoint}\"\n\
         timeout = \"5s\"\nattempts = 1\n[sessions.main]\nformat = \"pyramid\"\n\
         table = \"{TABLE}\"\n[upstreams.app]\nservers = [\"http://127.0.0.1:1\"]\n[[routes]]\npath = \"/\"\n\
         session = \"main\"\naccess = \"optional\"\nupstream = \"app\"\n"
    );
    std::fs::write(directory.path().join("gateway.toml"), config).unwrap();
    directory
}

fn command(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiongate"));
    command.args(["session"]).args(args).current_dir(directory).env_clear().envs(AWS_ENVIRONMENT);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Starts a command.
fn start(directory: &Path, args: &[&str]) -> Child {
    command(directory, args).spawn().unwrap()
}

async fn wait(child: Child) -> Finished {
    within("a command", wait_without_timeout(child)).await
}

/// Waits for a command that may take long.
async fn wait_without_timeout(child: Child) -> Finished {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    Finished::new(waiting.await.unwrap().unwrap())
}

async fn run(directory: &Path, args: &[&str]) -> Finished {
    wait(start(directory, args)).await
}

/// Exit code and output of a command, and its stdout parsed as JSON.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    summary: Value,
    stdout: String,
    stderr: String,
}

impl Finished {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            summary: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Panics unless the exit code is `code`.
    #[track_caller]
    fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }
}

/// Returns a session that expired this long ago, in seconds.
fn expired(ago: u64) -> Session {
    Session::new(json!({ "user": "alice" })).aged(TIMEOUT + Duration::from_secs(ago))
}

fn live() -> Session {
    Session::new(json!({ "user": "bob" }))
}

/// Starts an engine with these numbers of expired and live sessions. Returns the engine and the sessions.
async fn engine_with(expired_count: usize, live_count: usize) -> (Engine, Vec<Session>, Vec<Session>) {
    let engine = table::engine().await;
    let expired: Vec<_> = (0..expired_count).map(|_| expired(60)).collect();
    let live: Vec<_> = (0..live_count).map(|_| live()).collect();
    for session in expired.iter().chain(&live) {
        session.put(&engine).await;
    }
    (engine, expired, live)
}

async fn row_count(engine: &Engine) -> usize {
    let count = engine.call("Scan", json!({ "TableName": TABLE, "Select": "COUNT" })).await;
    usize::try_from(count["Count"].as_u64().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn purge_of_a_large_table_deletes_exactly_the_expired_sessions() {
    let rows = std::env::var("SESSIONGATE_PURGE_ROWS").map_or(ROWS, |rows| rows.parse().unwrap());
    let engine = table::engine().await;
    let directory = configure(&engine);
    let put = |session: Session| json!({ "PutRequest": { "Item": session.item() } });
    let rows: Vec<_> = (0..rows).map(|n| if n % 2 == 0 { expired(1) } else { live() }).collect();
    for batch in rows.chunks(25) {
        let puts: Vec<_> = batch.iter().cloned().map(put).collect();
        engine.call("BatchWriteItem", json!({ "RequestItems": { TABLE: puts } })).await;
    }

    let child = start(directory.path(), &["purge", "--json"]);
    let finished = wait_without_timeout(child).await.with_code(0);

    let half = rows.len() as u64 / 2;
    for (count, expected) in [("scanned", half * 2), ("live", half), ("expired", half), ("deleted", half)] {
        assert_eq!(finished.summary[count], expected, "{count}: {finished:?}");
    }
    assert_eq!((&finished.summary["complete"], &finished.summary["left"]), (&json!(true), &json!({})));
    assert!(
        finished.stderr.contains(&format!("DynamoDB counts about {} rows", rows.len())),
        "{}",
        finished.stderr
    );
    // Progress is printed every few seconds.
    let took = finished.summary["seconds"].as_f64().unwrap();
    assert!(took < 10.0 || finished.stderr.contains("rows processed, "), "{}", finished.stderr);
    assert!(finished.stderr.contains(&format!("{half} deleted: {} rows", rows.len())), "{}", finished.stderr);
    assert_eq!(engine.counts().deletes as u64, half, "a delete of a live session was attempted");
    for (n, session) in rows.iter().enumerate().step_by(rows.len() / 100) {
        assert_eq!(session.row(&engine).await.is_object(), n % 2 == 1);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn purge_shows_a_progress_bar_on_a_terminal() {
    let (engine, ..) = engine_with(20, 20).await;
    let directory = configure(&engine);
    // `script` runs a command in a pseudoterminal and prints the output.
    let mut script = Command::new("script");
    let purge = concat!(env!("CARGO_BIN_EXE_sessiongate"), " session purge");
    script
        .args(["-qec", purge, "/dev/null"])
        .current_dir(directory.path())
        .env("TERM", "xterm")
        .envs(AWS_ENVIRONMENT);
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = wait(script.spawn().unwrap()).await.with_code(0).stdout;
    assert!(shown.contains("/40 rows, ") && shown.contains("s left, "), "{shown:?}");
    assert!(shown.contains("20 deleted"), "{shown:?}");
}

#[tokio::test]
async fn session_that_is_reissued_before_its_delete_is_kept() {
    let (engine, expired, _) = engine_with(2, 1).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("DeleteItem"), Fault::HoldRequest(gate.clone()));
    let directory = configure(&engine);
    let purge = start(directory.path(), &["purge", "--json"]);
    gate.wait_for_arrival().await;
    gate.wait_for_arrival().await;
    let used = Session { issued: table::now(), expires: table::now() + 1200, ..expired[0].clone() };
    used.put(&engine).await;
    gate.open();

    let finished = wait(purge).await.with_code(0);
    assert_eq!((&finished.summary["deleted"], &finished.summary["changed"]), (&json!(1), &json!(1)));
    assert_eq!(used.row(&engine).await, used.item());
    assert_eq!(expired[1].row(&engine).await, Value::Null);
}

#[tokio::test]
async fn session_that_changed_before_its_delete_is_kept_and_an_absent_one_is_counted() {
    let (engine, expired, _) = engine_with(2, 0).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("DeleteItem"), Fault::HoldRequest(gate.clone()));
    let directory = configure(&engine);
    let purge = start(directory.path(), &["purge", "--json"]);
    gate.wait_for_arrival().await;
    gate.wait_for_arrival().await;
    let changed = Session { claims: json!({ "user": "carol" }), ..expired[0].clone() };
    changed.put(&engine).await;
    expired[1].delete(&engine).await;
    gate.open();

    let finished = wait(purge).await.with_code(0);
    assert_eq!((&finished.summary["changed"], &finished.summary["gone"]), (&json!(1), &json!(1)));
    assert_eq!(row_count(&engine).await, 1);
}

#[tokio::test]
async fn dry_run_counts_and_deletes_nothing() {
    let (engine, expired, live) = engine_with(7, 5).await;
    let directory = configure(&engine);
    let finished = run(directory.path(), &["purge", "--dry-run", "--json"]).await.with_code(0);
    assert_eq!(finished.summary["expired"], expired.len());
    assert_eq!(finished.summary["deleted"], 0);
    assert_eq!(finished.summary["dry_run"], true);
    assert!(finished.stderr.contains("7 to delete"), "{}", finished.stderr);
    assert_eq!(engine.counts().deletes, 0);
    assert_eq!(row_count(&engine).await, expired.len() + live.len());
}

#[tokio::test]
async fn rows_that_are_not_sessions_are_kept_and_counted() {
    let (engine, ..) = engine_with(1, 1).await;
    expired(10).put_with(&engine, json!({ "exp": null })).await;
    expired(10).put_with(&engine, json!({ "dat": { "S": "{" } })).await;
    expired(10).put_with(&engine, json!({ "dat": { "S": "{}" } })).await;
    live().put_with(&engine, json!({ "dat": { "S": "{}" } })).await;
    let directory = configure(&engine);
    let finished = run(directory.path(), &["purge", "--json"]).await.with_code(0);
    let left = json!({
        "attribute `exp` is missing": 1, "attribute `dat` cannot be decoded": 1, "the session is empty": 2,
    });
    assert_eq!((&finished.summary["deleted"], &finished.summary["left"]), (&json!(1), &left));
    assert!(finished.stderr.contains("2 rows left alone: the session is empty"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("alice"), "{}", finished.stderr);

    let finished = run(directory.path(), &["purge", "--empty", "--json"]).await.with_code(0);
    assert_eq!(
        (&finished.summary["deleted"], &finished.summary["left"]["the session is empty"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(row_count(&engine).await, 4);
}

#[tokio::test]
async fn scan_keeps_to_the_limit_of_read_capacity() {
    let (engine, ..) = engine_with(40, 0).await;
    // About 8 KB for each row, which is one read unit.
    for session in (0..40).map(|_| Session::new(json!({ "text": "x".repeat(8000) }))) {
        session.put(&engine).await;
    }
    let directory = configure(&engine);
    let started = mono();
    let finished =
        run(directory.path(), &["purge", "--dry-run", "--max-rcu", "10", "--segments", "1", "--json"])
            .await
            .with_code(0);
    let took = mono().duration_since(started).as_secs_f64();
    let units = finished.summary["read_units"].as_f64().unwrap();
    assert!((30.0..80.0).contains(&units), "{units} read units");
    // The scan waits for the units of every page, the last one's too. A burst and a page more are tolerated.
    assert!(units <= 10.0 * took + 10.0 + 20.0, "{units} read units in {took} s");
    assert!(took > 1.0, "{took}");
    let pages = engine.operations().iter().filter(|operation| operation.name == "Scan").count();
    assert!(pages >= 4, "{pages} pages");
}

#[expect(clippy::disallowed_methods, reason = "measures the duration of a command")]
fn mono() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn throttled_operations_are_retried_until_they_succeed() {
    for operation in ["Scan", "DeleteItem"] {
        let (engine, expired, live) = engine_with(5, 5).await;
        engine.inject(Affected::Only(operation), Fault::Throttle);
        let directory = configure(&engine);
        let purge = start(directory.path(), &["purge", "--json"]);
        let is_affected = |other: &&Operation| other.name == operation;
        engine.wait_until("a dozen attempts", |all| all.iter().filter(is_affected).count() > 12).await;
        assert_eq!(row_count(&engine).await, expired.len() + live.len());
        engine.clear_faults();
        let finished = wait(purge).await.with_code(0);
        assert_eq!(finished.summary["deleted"], expired.len());
        assert!(finished.summary["pauses"].as_u64().unwrap() > 8, "{finished:?}");
        assert!(finished.stderr.contains("because DynamoDB throttled or failed"), "{}", finished.stderr);
        assert_eq!(row_count(&engine).await, live.len());
    }
}

#[tokio::test]
async fn interrupted_purge_is_exit_code_1_with_the_summary_so_far() {
    let (engine, ..) = engine_with(3, 1).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("DeleteItem"), Fault::HoldRequest(gate.clone()));
    let directory = configure(&engine);
    let purge = start(directory.path(), &["purge", "--json", "--segments", "1"]);
    gate.wait_for_arrival().await;
    let pid = purge.id().to_string();
    let kill = Command::new("sh").args(["-c", r#"kill -s INT "$0""#, &pid]).status();
    assert!(kill.unwrap().success());
    // The deletes that were sent time out and are not retried.
    let finished = wait(purge).await.with_code(1);
    assert_eq!(
        (&finished.summary["expired"], &finished.summary["complete"]),
        (&json!(3), &json!(false)),
        "{finished:?}"
    );
    assert_eq!(finished.summary["deleted"], 0);
    assert!(finished.stderr.contains("stopped before the end of the table"), "{}", finished.stderr);
    assert_eq!(engine.counts().deletes, 3);
}

#[tokio::test]
async fn missing_table_or_one_with_another_key_is_an_error_without_a_scan() {
    let engine = Engine::start();
    let directory = configure(&engine);
    let finished = run(directory.path(), &["purge"]).await.with_code(1);
    assert!(finished.stderr.contains(TABLE) && finished.stderr.contains("error: "), "{}", finished.stderr);

    let mut schema = table::schema();
    schema["AttributeDefinitions"][0]["AttributeType"] = "S".into();
    engine.call("CreateTable", schema).await;
    let finished = run(directory.path(), &["purge"]).await.with_code(1);
    assert!(finished.stderr.contains("key"), "{}", finished.stderr);
    for args in [
        &["purge", "--realm", "other"] as &[&str],
        &["purge", "--max-rcu", "0"],
        &["purge", "--segments", "257"],
    ] {
        run(directory.path(), args).await.with_code(2);
    }
    assert!(
        engine.operations().iter().all(|operation| !matches!(operation.name.as_str(), "Scan" | "DeleteItem"))
    );
}

#[tokio::test]
async fn denied_delete_is_an_error() {
    let (engine, ..) = engine_with(3, 0).await;
    engine.inject(Affected::Only("DeleteItem"), Fault::AccessDenied);
    let directory = configure(&engine);
    let finished = run(directory.path(), &["purge", "--json"]).await.with_code(1);
    assert!(finished.stderr.contains("error: DynamoDB denied access"), "{}", finished.stderr);
    assert_eq!((&finished.summary["complete"], &finished.summary["deleted"]), (&json!(false), &json!(0)));
}

#[tokio::test]
async fn list_shows_the_sessions_that_match() {
    let (engine, ..) = engine_with(2, 1).await;
    Session::new(json!({ "user": "dora", "roles": ["admin", "staff"], "level": 7 })).put(&engine).await;
    live().put_with(&engine, json!({ "exp": null })).await;
    let directory = configure(&engine);
    for (args, expected) in [
        (&[] as &[&str], 5),
        (&["--claim", "user=alice"], 2),
        (&["--claim", "roles=staff"], 1),
        (&["--claim", "level=7"], 1),
        (&["--claim", "level=\"7\""], 0),
        (&["--claim", "user=dora", "--claim", "roles=other"], 0),
        (&["--live"], 2),
        (&["--expired"], 2),
        (&["--expired", "--claim", "user=bob"], 0),
    ] {
        let args = [&["list", "--json"], args].concat();
        let finished = run(directory.path(), &args).await.with_code(0);
        assert_eq!(finished.stdout.lines().count(), expected, "{args:?}:\n{}", finished.stdout);
    }
    run(directory.path(), &["list", "--live", "--expired"]).await.with_code(2);
    run(directory.path(), &["list", "--claim", "user"]).await.with_code(2);
}
