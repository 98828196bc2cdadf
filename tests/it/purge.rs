//! `sessiongate session purge`: exactly what is over goes, whatever happens in the meantime.

#![cfg(feature = "embedded")]
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::engine::{Affected, Engine, Fault, Operation};
use crate::support::gate::Gate;
use crate::support::table::{self, Session, TABLE, TIMEOUT};
use crate::support::within;

/// How many rows the large table has, half of them over: enough for many pages. The whole of what is promised is a
/// hundred thousand; `SESSIONGATE_PURGE_ROWS` sets that.
const ROWS: usize = 10_000;

/// A configuration of one Pyramid realm over `engine`, in a directory of its own.
fn site_on(engine: &Engine) -> TempDir {
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

/// Credentials that no developer's own can get in the way of.
const AWS: [(&str, &str); 6] = [
    ("AWS_ACCESS_KEY_ID", "test"),
    ("AWS_SECRET_ACCESS_KEY", "test"),
    ("AWS_REGION", "eu-central-1"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/dev/null"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
];

fn command(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiongate"));
    command.args(["session"]).args(args).current_dir(directory).env_clear().envs(AWS);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command under way.
fn start(directory: &Path, args: &[&str]) -> Child {
    command(directory, args).spawn().unwrap()
}

async fn end(child: Child) -> Ended {
    within("the command's end", slow_end(child)).await
}

/// The end of a command that may take longer than anything else.
async fn slow_end(child: Child) -> Ended {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    Ended::new(waiting.await.unwrap().unwrap())
}

async fn run(directory: &Path, args: &[&str]) -> Ended {
    end(start(directory, args)).await
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    summary: Value,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            summary: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        self
    }
}

/// A session that ended this long ago.
fn ended(ago: u64) -> Session {
    Session::new(json!({ "user": "alice" })).aged(TIMEOUT + Duration::from_secs(ago))
}

fn live() -> Session {
    Session::new(json!({ "user": "bob" }))
}

async fn filled(over: usize, alive: usize) -> (Engine, Vec<Session>, Vec<Session>) {
    let engine = table::engine().await;
    let over: Vec<_> = (0..over).map(|_| ended(60)).collect();
    let alive: Vec<_> = (0..alive).map(|_| live()).collect();
    for session in over.iter().chain(&alive) {
        session.put(&engine).await;
    }
    (engine, over, alive)
}

async fn rows_of(engine: &Engine) -> usize {
    let count = engine.call("Scan", json!({ "TableName": TABLE, "Select": "COUNT" })).await;
    usize::try_from(count["Count"].as_u64().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_large_table_exactly_the_sessions_that_are_over_go() {
    let rows = std::env::var("SESSIONGATE_PURGE_ROWS").map_or(ROWS, |rows| rows.parse().unwrap());
    let engine = table::engine().await;
    let directory = site_on(&engine);
    let put = |session: Session| json!({ "PutRequest": { "Item": session.item() } });
    let rows: Vec<_> = (0..rows).map(|n| if n % 2 == 0 { ended(1) } else { live() }).collect();
    for batch in rows.chunks(25) {
        let puts: Vec<_> = batch.iter().cloned().map(put).collect();
        engine.call("BatchWriteItem", json!({ "RequestItems": { TABLE: puts } })).await;
    }

    let child = start(directory.path(), &["purge", "--json"]);
    let ended = slow_end(child).await.with(0);

    let half = rows.len() as u64 / 2;
    for (count, expected) in [("scanned", half * 2), ("live", half), ("over", half), ("deleted", half)] {
        assert_eq!(ended.summary[count], expected, "{count}: {ended:?}");
    }
    assert_eq!((&ended.summary["complete"], &ended.summary["left"]), (&json!(true), &json!({})));
    assert!(ended.stderr.contains(&format!("DynamoDB counts about {} rows", rows.len())), "{}", ended.stderr);
    // A line comes every few seconds: at least one in ten.
    let took = ended.summary["seconds"].as_f64().unwrap();
    assert!(took < 10.0 || ended.stderr.contains("rows processed, "), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("{half} deleted: {} rows", rows.len())), "{}", ended.stderr);
    assert_eq!(engine.counts().deletes as u64, half, "what lives is never even tried");
    for (n, session) in rows.iter().enumerate().step_by(rows.len() / 100) {
        assert_eq!(session.row(&engine).await.is_object(), n % 2 == 1);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn at_a_terminal_there_is_a_bar_while_it_works() {
    let (engine, ..) = filled(20, 20).await;
    let directory = site_on(&engine);
    // `script` runs a command in a terminal of its own; what appears there is its output.
    let mut script = Command::new("script");
    let purge = concat!(env!("CARGO_BIN_EXE_sessiongate"), " session purge");
    script.args(["-qec", purge, "/dev/null"]).current_dir(directory.path()).env("TERM", "xterm").envs(AWS);
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let shown = end(script.spawn().unwrap()).await.with(0).stdout;
    assert!(shown.contains("/40 rows, ") && shown.contains("s left, "), "{shown:?}");
    assert!(shown.contains("20 deleted"), "{shown:?}");
}

#[tokio::test]
async fn a_session_that_is_used_before_its_delete_arrives_stays() {
    let (engine, over, _) = filled(2, 1).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("DeleteItem"), Fault::HoldRequest(gate.clone()));
    let directory = site_on(&engine);
    let purge = start(directory.path(), &["purge", "--json"]);
    gate.wait_for_arrival().await;
    gate.wait_for_arrival().await;
    let used = Session { issued: table::now(), expires: table::now() + 1200, ..over[0].clone() };
    used.put(&engine).await;
    gate.open();

    let ended = end(purge).await.with(0);
    assert_eq!((&ended.summary["deleted"], &ended.summary["changed"]), (&json!(1), &json!(1)));
    assert_eq!(used.row(&engine).await, used.item());
    assert_eq!(over[1].row(&engine).await, Value::Null);
}

#[tokio::test]
async fn a_session_that_only_changed_its_data_stays_and_one_that_is_gone_stays_gone() {
    let (engine, over, _) = filled(2, 0).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("DeleteItem"), Fault::HoldRequest(gate.clone()));
    let directory = site_on(&engine);
    let purge = start(directory.path(), &["purge", "--json"]);
    gate.wait_for_arrival().await;
    gate.wait_for_arrival().await;
    let changed = Session { claims: json!({ "user": "carol" }), ..over[0].clone() };
    changed.put(&engine).await;
    over[1].delete(&engine).await;
    gate.open();

    let ended = end(purge).await.with(0);
    assert_eq!((&ended.summary["changed"], &ended.summary["gone"]), (&json!(1), &json!(1)));
    assert_eq!(rows_of(&engine).await, 1);
}

#[tokio::test]
async fn a_dry_run_counts_and_deletes_nothing() {
    let (engine, over, alive) = filled(7, 5).await;
    let directory = site_on(&engine);
    let ended = run(directory.path(), &["purge", "--dry-run", "--json"]).await.with(0);
    assert_eq!(ended.summary["over"], over.len());
    assert_eq!(ended.summary["deleted"], 0);
    assert_eq!(ended.summary["dry_run"], true);
    assert!(ended.stderr.contains("7 to delete"), "{}", ended.stderr);
    assert_eq!(engine.counts().deletes, 0);
    assert_eq!(rows_of(&engine).await, over.len() + alive.len());
}

#[tokio::test]
async fn what_is_no_session_is_left_and_counted() {
    let (engine, ..) = filled(1, 1).await;
    ended(10).put_with(&engine, json!({ "exp": null })).await;
    ended(10).put_with(&engine, json!({ "dat": { "S": "{" } })).await;
    ended(10).put_with(&engine, json!({ "dat": { "S": "{}" } })).await;
    live().put_with(&engine, json!({ "dat": { "S": "{}" } })).await;
    let directory = site_on(&engine);
    let ended = run(directory.path(), &["purge", "--json"]).await.with(0);
    let left = json!({
        "attribute `exp` is missing": 1, "attribute `dat` cannot be decoded": 1, "the session is empty": 2,
    });
    assert_eq!((&ended.summary["deleted"], &ended.summary["left"]), (&json!(1), &left));
    assert!(ended.stderr.contains("2 rows left alone: the session is empty"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("alice"), "{}", ended.stderr);

    let ended = run(directory.path(), &["purge", "--empty", "--json"]).await.with(0);
    assert_eq!(
        (&ended.summary["deleted"], &ended.summary["left"]["the session is empty"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(rows_of(&engine).await, 4);
}

#[tokio::test]
async fn the_scan_uses_no_more_read_capacity_than_it_may() {
    let (engine, ..) = filled(40, 0).await;
    // About 8 KB a row: one read unit each.
    for session in (0..40).map(|_| Session::new(json!({ "text": "x".repeat(8000) }))) {
        session.put(&engine).await;
    }
    let directory = site_on(&engine);
    let begun = mono();
    let ended =
        run(directory.path(), &["purge", "--dry-run", "--max-rcu", "10", "--segments", "1", "--json"])
            .await
            .with(0);
    let took = mono().duration_since(begun).as_secs_f64();
    let units = ended.summary["read_units"].as_f64().unwrap();
    assert!((30.0..80.0).contains(&units), "{units} read units");
    // The last page is not paid for before the end, and a second's worth may be saved: that much comes on top.
    assert!(units <= 10.0 * took + 10.0 + 20.0, "{units} read units in {took} s");
    assert!(took > 1.0, "{took}");
    let pages = engine.operations().iter().filter(|operation| operation.name == "Scan").count();
    assert!(pages >= 4, "{pages} pages");
}

#[expect(clippy::disallowed_methods, reason = "a test measures")]
fn mono() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn a_table_that_throttles_is_waited_for() {
    for operation in ["Scan", "DeleteItem"] {
        let (engine, over, alive) = filled(5, 5).await;
        engine.inject(Affected::Only(operation), Fault::Throttle);
        let directory = site_on(&engine);
        let purge = start(directory.path(), &["purge", "--json"]);
        let is_one = |one: &&Operation| one.name == operation;
        engine.wait_until("a dozen tries", |all| all.iter().filter(is_one).count() > 12).await;
        assert_eq!(rows_of(&engine).await, over.len() + alive.len());
        engine.clear_faults();
        let ended = end(purge).await.with(0);
        assert_eq!(ended.summary["deleted"], over.len());
        assert!(ended.summary["pauses"].as_u64().unwrap() > 8, "{ended:?}");
        assert!(ended.stderr.contains("because DynamoDB throttled or failed"), "{}", ended.stderr);
        assert_eq!(rows_of(&engine).await, alive.len());
    }
}

#[tokio::test]
async fn an_interrupt_ends_it_with_the_summary_so_far() {
    let (engine, ..) = filled(3, 1).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("DeleteItem"), Fault::HoldRequest(gate.clone()));
    let directory = site_on(&engine);
    let purge = start(directory.path(), &["purge", "--json", "--segments", "1"]);
    gate.wait_for_arrival().await;
    let pid = purge.id().to_string();
    let kill = Command::new("sh").args(["-c", r#"kill -s INT "$0""#, &pid]).status();
    assert!(kill.unwrap().success());
    // The deletes that were sent end at their time limit, and are not tried again.
    let ended = end(purge).await.with(1);
    assert_eq!((&ended.summary["over"], &ended.summary["complete"]), (&json!(3), &json!(false)), "{ended:?}");
    assert_eq!(ended.summary["deleted"], 0);
    assert!(ended.stderr.contains("stopped before the end of the table"), "{}", ended.stderr);
    assert_eq!(engine.counts().deletes, 3);
}

#[tokio::test]
async fn a_table_that_is_not_there_or_not_ours_is_left_alone() {
    let engine = Engine::start();
    let directory = site_on(&engine);
    let ended = run(directory.path(), &["purge"]).await.with(1);
    assert!(ended.stderr.contains(TABLE) && ended.stderr.contains("error: "), "{}", ended.stderr);

    let mut schema = table::schema();
    schema["AttributeDefinitions"][0]["AttributeType"] = "S".into();
    engine.call("CreateTable", schema).await;
    let ended = run(directory.path(), &["purge"]).await.with(1);
    assert!(ended.stderr.contains("key"), "{}", ended.stderr);
    for args in [
        &["purge", "--realm", "other"] as &[&str],
        &["purge", "--max-rcu", "0"],
        &["purge", "--segments", "257"],
    ] {
        run(directory.path(), args).await.with(2);
    }
    assert!(
        engine.operations().iter().all(|operation| !matches!(operation.name.as_str(), "Scan" | "DeleteItem"))
    );
}

#[tokio::test]
async fn a_store_that_denies_the_delete_ends_it() {
    let (engine, ..) = filled(3, 0).await;
    engine.inject(Affected::Only("DeleteItem"), Fault::AccessDenied);
    let directory = site_on(&engine);
    let ended = run(directory.path(), &["purge", "--json"]).await.with(1);
    assert!(ended.stderr.contains("error: DynamoDB denied access"), "{}", ended.stderr);
    assert_eq!((&ended.summary["complete"], &ended.summary["deleted"]), (&json!(false), &json!(0)));
}

#[tokio::test]
async fn a_list_shows_the_sessions_that_are_asked_for() {
    let (engine, ..) = filled(2, 1).await;
    Session::new(json!({ "user": "dora", "roles": ["admin", "staff"], "level": 7 })).put(&engine).await;
    live().put_with(&engine, json!({ "exp": null })).await;
    let directory = site_on(&engine);
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
        let ended = run(directory.path(), &args).await.with(0);
        assert_eq!(ended.stdout.lines().count(), expected, "{args:?}:\n{}", ended.stdout);
    }
    run(directory.path(), &["list", "--live", "--expired"]).await.with(2);
    run(directory.path(), &["list", "--claim", "user"]).await.with(2);
}
