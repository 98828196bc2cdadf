//! The command line as a shell sees it: the built binary, its exit codes, what goes to stdout and what to stderr.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A gateway over a database file, which the commands share as they would share a table.
const CONFIG: &str = r#"
[[listeners]]
address = "127.0.0.1:0"

[store.embedded]
path = "sessions.db"

[sessions.main]
format = "native"
table = "sessions"
timeout = "20m"

[upstreams.app]
servers = ["builtin:demo"]

[[routes]]
path = "/"
session = "main"
access = "optional"
upstream = "app"
headers = { X-User = "user", X-Roles = { claim = "roles", join = "," } }

[[routes]]
path = "/admin"
session = "main"
access = "required"
require = { roles = ["admin"] }
login = "/login?next={uri}"
upstream = "app"

[[routes]]
path = "/public"
access = "public"
upstream = "app"
"#;

/// A directory with a `gateway.toml`, in which commands run.
struct Site(TempDir);

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Site {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("gateway.toml"), config).unwrap();
        Self(dir)
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Ended {
        run(self.0.path(), args, stdin)
    }

    /// A session's cookie, as `name=value`, and its ref.
    fn session(&self, claims: &[&str]) -> (String, String) {
        let mut args = vec!["session", "create", "--json"];
        args.extend(claims.iter().flat_map(|claim| ["--claim", claim]));
        let made = self.run(&args).done().json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (format!("{}={}", text(&made["cookie"]["name"]), text(&made["cookie"]["value"])), text(&made["ref"]))
    }
}

impl Ended {
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn done(self) -> Self {
        self.with(0)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiongate"));
    // Nothing of the developer's own AWS set-up, or of what colours output, has a part in this.
    command.args(args).current_dir(dir).env_clear();
    command
}

fn run(dir: &Path, args: &[&str], stdin: &str) -> Ended {
    let mut child = command(dir, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that reads no stdin may be gone before it is written.
    let _unread = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn help_is_data_and_names_every_command() {
    let site = Site::new(CONFIG);
    let help = site.run(&["--help"]).done();
    for command in ["serve", "check", "demo", "table", "session", "explain", "completions", "Exit codes"] {
        assert!(help.stdout.contains(command), "{command} is missing:\n{}", help.stdout);
    }
    assert_eq!(help.stderr, "");
    assert_eq!(
        site.run(&["--version"]).done().stdout,
        concat!("sessiongate ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn a_wrong_command_line_is_2_and_says_so_on_stderr() {
    let site = Site::new(CONFIG);
    for args in [
        &["frobnicate"] as &[&str],
        &["--frobnicate"],
        &["session"],
        &["session", "show"],
        &["session", "show", "0123456789abcdef", "--cookie", "x"],
        &["session", "create", "--claim", "user"],
        &["demo", "--port", "65536"],
        &["completions", "tcsh"],
        &["demo", "--config", "gateway.toml"],
    ] {
        let ended = site.run(args).with(2);
        assert_eq!(ended.stdout, "", "{args:?}");
        assert!(
            ended.stderr.starts_with("error: ") || ended.stderr.contains("Usage:"),
            "{args:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn completions_know_the_commands() {
    let site = Site::new(CONFIG);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = site.run(&["completions", shell]).done().stdout;
        assert!(script.contains("sessiongate") && script.contains("revoke"), "{shell}");
    }
}

#[test]
fn a_reader_that_hangs_up_has_had_enough() {
    let site = Site::new(CONFIG);
    for args in [&["completions", "bash"] as &[&str], &["--help"], &["table", "policy"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(site.0.path(), args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"" as &[u8]), "{args:?}");
    }
}

#[test]
fn a_good_file_passes_the_check() {
    let site = Site::new(CONFIG);
    let ended = site.run(&["check"]).done();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", "ok: `gateway.toml` has no errors\n"));
}

#[test]
fn a_bad_file_is_2_with_every_problem_and_its_place() {
    let site =
        Site::new(&CONFIG.replace("timeout", "timeuot").replace(r#"upstream = "app""#, r#"upstream = "ap""#));
    for command in ["check", "serve"] {
        let ended = site.run(&[command]).with(2);
        assert_eq!(ended.stdout, "");
        for expected in ["gateway.toml:11:1", "timeuot", "`timeout`", "`app`", "error: `gateway.toml` has "] {
            assert!(ended.stderr.contains(expected), "{expected}\n{}", ended.stderr);
        }
        assert!(!ended.stderr.contains('\u{1b}'), "colour, and no terminal");
    }
}

#[test]
fn a_file_that_is_not_there_is_2() {
    let site = Site::new(CONFIG);
    let ended = site.run(&["check", "--config", "other.toml"]).with(2);
    assert!(ended.stderr.contains("other.toml") && ended.stderr.contains("cannot read"), "{}", ended.stderr);
}

#[test]
fn connecting_finds_what_is_not_there() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new(&CONFIG.replace("builtin:demo", &format!("http://{nobody}")));
    let ended = site.run(&["check", "--connect"]).with(1);
    assert!(ended.stderr.contains(&format!("cannot connect to {nobody}")), "{}", ended.stderr);

    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = somebody.local_addr().unwrap();
    let site = Site::new(&CONFIG.replace("builtin:demo", &format!("http://{address}")));
    site.run(&["table", "create"]).done();
    let ended = site.run(&["check", "--connect"]).done();
    assert!(ended.stderr.contains(&format!("{address} accepts connections")), "{}", ended.stderr);
    assert!(ended.stderr.contains("table `sessions` is there"), "{}", ended.stderr);
}

#[test]
fn a_table_is_made_and_shown() {
    let site = Site::new(CONFIG);
    site.run(&["table", "show"]).with(1);
    site.run(&["table", "create"]).done();
    assert!(site.run(&["table", "create"]).done().stderr.contains("is there already"));
    let shown = site.run(&["table", "show", "--json"]).done().json();
    assert_eq!(shown["table"], "sessions");
    assert_eq!(shown["key"], json!({ "attribute": "sid", "type": "B", "sort": null }));
    assert_eq!(shown["ttl"]["attribute"], "exp");
    assert!(site.run(&["table", "show"]).done().stdout.contains("status   ACTIVE"));
}

#[test]
fn the_policy_is_json_for_the_table() {
    let policy = Site::new(CONFIG).run(&["table", "policy"]).done().json();
    assert_eq!(policy["Version"], "2012-10-17");
    assert!(policy["Statement"][0]["Resource"].as_str().unwrap().ends_with(":table/sessions"));
}

#[test]
fn a_session_s_life_on_the_command_line() {
    let site = Site::new(CONFIG);
    let created =
        site.run(&["session", "create", "--claim", "user=alice", "--claim", r#"roles=["admin"]"#]).done();
    let cookie = created.stdout.trim_end();
    assert_eq!(created.stdout.lines().count(), 1);
    assert!(!created.stderr.contains(cookie.split_once('=').unwrap().1), "the cookie is shown once");

    let shown = site.run(&["session", "show", "--cookie", cookie, "--json"]).done().json();
    assert_eq!(shown["state"], "live");
    assert_eq!(shown["claims"], json!({ "user": "alice", "roles": ["admin"] }));
    assert_eq!(shown["version"], 1);
    let reference = shown["ref"].as_str().unwrap();
    assert_eq!(reference.len(), 16);
    assert!(created.stderr.contains(reference));

    // A person sees the same, and so does who knows only the ref, or keeps the cookie out of the process list.
    let value = cookie.split_once('=').unwrap().1;
    for args in [
        &["session", "show", reference] as &[&str],
        &["session", "show", "--cookie", value],
        &["session", "show", "--cookie", "-"],
    ] {
        let text = site.run_with(args, &format!("{cookie}\n")).done().stdout;
        assert!(
            text.contains(reference)
                && text.contains(r#""user": "alice""#)
                && text.contains("expires in 19m"),
            "{text}"
        );
        assert!(!text.contains(value), "the cookie is shown once");
    }

    let revoked = site.run(&["session", "revoke", reference]).done();
    assert!(revoked.stderr.contains(reference) && revoked.stdout.is_empty());
    for args in [
        &["session", "revoke", reference] as &[&str],
        &["session", "show", reference],
        &["session", "show", "--cookie", cookie],
    ] {
        let ended = site.run(args).with(1);
        assert!(ended.stderr.contains(reference) && ended.stdout.is_empty(), "{args:?}: {ended:?}");
    }
}

#[test]
fn a_list_has_a_line_for_each_and_claims_only_on_demand() {
    let site = Site::new(CONFIG);
    assert!(site.run(&["session", "list"]).with(1).stderr.contains("there is no database"));
    let refs: Vec<_> = ["alice", "bob"].map(|user| site.session(&[&format!("user={user}")]).1).into();

    let text = site.run(&["session", "list"]).done();
    assert_eq!(text.stdout.lines().count(), 2);
    assert!(refs.iter().all(|reference| text.stdout.contains(reference)) && !text.stdout.contains("alice"));
    assert!(text.stderr.contains("2 sessions"), "{}", text.stderr);

    let rows = site.run(&["session", "list", "--json"]).done().lines();
    assert!(rows.iter().all(|row| row["state"] == "live" && row.get("claims").is_none()));
    let rows = site.run(&["session", "list", "--json", "--claims"]).done().lines();
    let mut users: Vec<_> = rows.iter().map(|row| row["claims"]["user"].as_str().unwrap()).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"]);
}

#[test]
fn claims_come_from_a_file_or_stdin_and_the_command_line_wins() {
    let site = Site::new(CONFIG);
    let claims = r#"{"user": "bob", "nested": {"deep": [1, 2.5, null]}}"#;
    std::fs::write(site.0.path().join("claims.json"), claims).unwrap();
    for source in ["claims.json", "-"] {
        let args = ["session", "create", "--claims-json", source, "--claim", "user=alice"];
        let cookie = site.run_with(&args, claims).done().stdout;
        let shown = site.run(&["session", "show", "--json", "--cookie", cookie.trim_end()]).done().json();
        assert_eq!(
            shown["claims"],
            json!({ "user": "alice", "nested": { "deep": [1, 2.5, null] } }),
            "{source}"
        );
    }
    let ended =
        site.run_with(&["session", "create", "--claims-json", "-"], r#"{"password": "hunter2"#).with(2);
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    site.run_with(&["session", "create", "--claims-json", "-"], "[]").with(2);
    site.run(&["session", "create", "--claims-json", "absent.json"]).with(2);
    site.run(&["session", "create"]).with(2);
}

#[test]
fn what_names_no_session_is_refused_without_being_repeated() {
    let site = Site::new(CONFIG);
    site.session(&["user=alice"]);
    for (args, code) in [
        (["session", "show", "--cookie", "not-one-of-ours"], 1),
        (["session", "show", "--cookie", "a=b; c=not-one-of-ours"], 1),
        (["session", "revoke", "--cookie", "not-one-of-ours"], 1),
        (["session", "show", "--realm=main", "not-one-of-ours"], 2),
        (["session", "show", "--realm=other", "0123456789abcdef"], 2),
        (["session", "show", "--realm=main", "0123456789abcdef"], 1),
    ] {
        let ended = site.run(&args).with(code);
        assert!(!ended.stderr.contains("not-one-of-ours") && ended.stdout.is_empty(), "{args:?}: {ended:?}");
    }
}

#[test]
fn with_several_realms_one_must_be_named() {
    let second = "\n[sessions.shop]\nformat = \"pyramid\"\ntable = \"shop\"\ncookie = { name = \"shop\" }\n\
                  [[routes]]\npath = \"/shop\"\nsession = \"shop\"\naccess = \"required\"\nupstream = \"app\"\n";
    let site = Site::new(&format!("{CONFIG}{second}"));
    let ended = site.run(&["session", "create", "--claim", "user=alice"]).with(2);
    assert!(ended.stderr.contains("hint: choose one with `--realm`: `main`, `shop`"), "{}", ended.stderr);
    let cookie = site.run(&["session", "create", "--realm", "shop", "--claim", "user=alice"]).done().stdout;
    assert!(cookie.starts_with("shop="), "{cookie}");
    let refused = site.run(&["session", "show", "--realm", "main", "--cookie", cookie.trim_end()]);
    assert_eq!(refused.code, Some(1));

    let policy = site.run(&["table", "policy"]).done().json();
    assert_eq!(policy["Statement"][0]["Resource"].as_array().unwrap().len(), 2);
}

#[test]
fn a_store_in_memory_is_out_of_reach_and_that_is_said() {
    let site = Site::new(&CONFIG.replace(r#"path = "sessions.db""#, ""));
    let ended = site.run(&["session", "list"]).with(1);
    assert!(ended.stderr.contains("hint: set `listen`"), "{}", ended.stderr);
}

#[test]
fn table_of_a_store_in_memory_is_made_with_the_gateway() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for store in [String::new(), format!("listen = \"{closed}\"")] {
        let site = Site::new(&CONFIG.replace(r#"path = "sessions.db""#, &store));
        let ended = site.run(&["table", "create"]).done();
        assert!(ended.stderr.contains("table `sessions` is in the gateway's memory"), "{}", ended.stderr);
    }
}

#[test]
fn an_explanation_tells_what_would_happen_and_changes_nothing() {
    let site = Site::new(CONFIG);
    let (cookie, reference) = site.session(&["user=alice", r#"roles=["admin","editor"]"#]);
    let before = site.run(&["session", "show", "--json", &reference]).done().json();

    let json = site.run(&["explain", "--cookie", &cookie, "--path", "/admin?x=1", "--json"]).done().json();
    assert_eq!(json["route"], "/admin");
    assert_eq!(json["session"]["ref"], reference.as_str());
    assert_eq!(json["cookies"][0]["row"]["claims"]["user"], "alice");
    assert_eq!(json["access"], json!({ "admitted": true }));
    let json = site.run(&["explain", "--cookie", &cookie, "--json", "-H", "X_User: root"]).done().json();
    assert_eq!(json["scrubbed"], json!(["x_user"]));
    assert_eq!(json["headers"]["X-User"], "alice");
    assert_eq!(json["headers"]["X-Roles"], "admin,editor");
    assert_eq!(json["headers"]["X-Session-Status"], "active");

    let text = site.run(&["explain", "--cookie", &cookie]).done().stdout;
    for expected in [
        "route    `/`: optional, realm `main`",
        "header   X-User: alice",
        "no reissue is due",
        "goes through",
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    assert_eq!(site.run(&["session", "show", "--json", &reference]).done().json(), before);
}

#[test]
fn an_explanation_of_a_due_reissue_does_not_carry_it_out() {
    let site = Site::new(&CONFIG.replace(r#"timeout = "20m""#, "timeout = \"20m\"\nreissue_time = \"1s\""));
    let (cookie, reference) = site.session(&["user=alice"]);
    let before = site.run(&["session", "show", "--json", &reference]).done().json();
    let mut tries = 0..10_000;
    while site.run(&["explain", "--cookie", &cookie, "--json"]).done().json()["session"]["reissue_to"]
        .is_null()
    {
        assert!(tries.next().is_some(), "a reissue never becomes due");
    }
    assert!(site.run(&["explain", "--cookie", &cookie]).done().stdout.contains("a reissue is due"));
    assert_eq!(site.run(&["session", "show", "--json", &reference]).done().json(), before);
}

#[test]
fn an_explanation_gives_the_reason_for_a_refusal() {
    let site = Site::new(CONFIG);
    let (bob, _) = site.session(&["user=bob"]);
    for (args, expected) in [
        (
            &["--path", "/admin"] as &[&str],
            &["401 unauthenticated", "no cookie", "302 to /login?next=%2Fadmin"] as &[&str],
        ),
        (&["--path", "/admin", "-H", "Accept: text/html"], &["302 login", "to /login?next=%2Fadmin"]),
        (&["--path", "/admin", "--cookie", &bob], &["403 forbidden", r#"wants `roles` to be "admin""#]),
        (
            &["--path", "/admin", "--cookie", "nonsense"],
            &[
                "401 unauthenticated",
                "costs no read: the cookie does not have the expected form: `ID/VERSION`, where ID is 43 to 128 \
                 characters of `A-Za-z0-9_-`",
            ],
        ),
        (
            &["--path", "/", "--cookie", &format!("{}\"", bob.replace('=', "=\""))],
            &["names session", "X-User: bob"],
        ),
        (&["--path", "/a//b"], &["400 ambiguous-path", "route    none"]),
        (&["--path", "/public", "--cookie", &bob], &["goes through", "X-Session-Status: anonymous"]),
        (
            &["--path", "/", "--cookie", &format!("{bob}; {bob}x")],
            &["names session", "costs no read", "X-User: bob"],
        ),
    ] {
        let text = site.run(&[&["explain"], args].concat()).done().stdout;
        for expected in expected {
            assert!(text.contains(expected), "{args:?}: {expected}\n{text}");
        }
    }
    site.run(&["explain", "--path", "no path"]).with(2);
    let ended = site.run(&["explain", "--cookie", "bell\u{7}"]).with(2);
    assert!(!ended.stderr.contains("bell"));
}

#[test]
fn explanation_says_who_is_logged_in_by_which_claim() {
    let site = Site::new(CONFIG);
    for (claim, user, verdict) in [
        ("user=alice", "logged in: `user` names the user", "200"),
        ("cart=1", "a guest: `user` is absent, or names nobody", "401 unauthenticated"),
    ] {
        let (cookie, _) = site.session(&[claim, "roles=[\"admin\"]"]);
        let text = site.run(&["explain", "--cookie", &cookie, "--path", "/admin"]).done().stdout;
        assert!(text.contains(user), "{text}");
        assert!(verdict == "200" || text.contains(verdict), "{text}");
        let json = site.run(&["explain", "--cookie", &cookie, "--path", "/admin", "--json"]).done().json();
        assert_eq!(json["access"]["admitted"], verdict == "200", "{json}");
        assert_eq!(json["session"]["status"], if verdict == "200" { "active" } else { "guest" });
    }
}

#[test]
fn an_explanation_without_a_cookie_needs_no_store() {
    let site = Site::new(&CONFIG.replace(r#"path = "sessions.db""#, ""));
    assert!(site.run(&["explain"]).done().stdout.contains("goes through"));
    site.run(&["explain", "--cookie", "x"]).with(1);
}

#[test]
fn an_explanation_tells_where_a_route_leads() {
    let routes = "\n[[routes]]\npath = \"/app\"\naccess = \"public\"\nupstream = \"app\"\nstrip_prefix = true\n\
                  [routes.request_headers]\nset = { X-Env = \"prod\" }\n\
                  [[routes]]\npath = \"/old\"\naccess = \"public\"\nredirect = \"https://new.example{uri}\"\n\
                  [[routes]]\npath = \"/down\"\naccess = \"public\"\nrespond = { status = 503 }\n";
    let site = Site::new(&format!("{CONFIG}{routes}"));
    for (path, expected) in [
        (
            "/app/x?y",
            &["forwarded as /x?y", "X-Forwarded-Prefix: /app", "X-Env: prod", "upstream `app`"] as &[&str],
        ),
        ("/old/x", &["a redirect", "answer   308 to https://new.example/old/x"]),
        ("/down", &["an answer of its own", "answer   503"]),
    ] {
        let text = site.run(&["explain", "--path", path]).done().stdout;
        for expected in expected {
            assert!(text.contains(expected), "{path}: {expected}\n{text}");
        }
    }
    let json = site.run(&["explain", "--json", "--path", "/app/x"]).done().json();
    assert_eq!(json["forwarded_as"], "/x");
}

#[test]
fn explanation_warns_of_paths_that_pass_a_guard_in_another_case() {
    let site = Site::new(CONFIG);
    for (path, other) in [("/ADMIN/x", "/ADMIN/x"), ("/admin/x", "/ADMIN/X")] {
        let warning = format!(
            "case     `{other}` takes `/`, and `/admin` if case is ignored: if the upstream ignores it, set \
             `ignore_case = true` on `/admin`, or on a route above it"
        );
        let text = site.run(&["explain", "--path", path]).done().stdout;
        assert!(text.contains(&warning), "{text}");
        assert_eq!(site.run(&["explain", "--json", "--path", path]).done().json()["case"], warning[9..]);
    }
    // The other way round, the stricter rule holds.
    for path in ["/", "/PUBLIC", "/public"] {
        assert!(!site.run(&["explain", "--path", path]).done().stdout.contains("case "), "{path}");
    }
    let site = Site::new(&CONFIG.replace("path = \"/admin\"", "path = \"/admin\"\nignore_case = true"));
    for path in ["/admin", "/ADMIN/x"] {
        let text = site.run(&["explain", "--path", path]).done().stdout;
        assert!(text.contains("401 unauthenticated") && !text.contains("case "), "{text}");
    }
}

#[test]
fn explanation_shows_the_merged_path() {
    let site = Site::new(&CONFIG.replace("path = \"/\"", "path = \"/\"\nduplicate_slashes = \"merge\""));
    assert!(
        site.run(&["explain", "--path", "/a//b?c"]).done().stdout.contains("path     forwarded as /a/b?c")
    );
    let page = ["explain", "--path", "/a//b?c", "-H", "Accept: text/html"];
    let text = site.run(&page).done().stdout;
    assert!(text.contains("308 duplicate-slashes") && text.contains("to /a/b?c"), "{text}");
    assert_eq!(site.run(&[&page[..], &["--json"]].concat()).done().json()["access"]["location"], "/a/b?c");
}

#[test]
fn explanation_tells_which_overrides_a_route_removes() {
    let route = "\n[[routes]]\npath = \"/app\"\naccess = \"public\"\nupstream = \"app\"\n\
                 allow_overrides = [\"X-HTTP-Method-Override\"]\n";
    let site = Site::new(&format!("{CONFIG}{route}"));
    let headers = ["-H", "X-HTTP-Method-Override: DELETE", "-H", "X-Original-URL: /admin"];
    for (path, expected) in
        [("/app", json!(["x-original-url"])), ("/", json!(["x-original-url", "x-http-method-override"]))]
    {
        let args = [&["explain", "--json", "--path", path] as &[&str], &headers].concat();
        assert_eq!(site.run(&args).done().json()["scrubbed"], expected, "{path}");
    }
}

#[test]
fn config_is_chosen_before_or_after_the_command_or_by_the_environment() {
    let site = Site::new("no toml");
    std::fs::write(site.0.path().join("other.toml"), CONFIG).unwrap();
    std::fs::write(site.0.path().join("third.toml"), "not toml").unwrap();
    let with = |variable: Option<&str>, args: &[&str]| {
        let mut command = command(site.0.path(), args);
        let output = command.envs(variable.map(|file| ("SESSIONGATE_CONFIG", file))).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let good = "ok: `other.toml` has no errors";
    for args in [
        &["-c", "other.toml", "check"] as &[&str],
        &["check", "-c", "other.toml"],
        &["--config", "other.toml", "check"],
        &["--config=other.toml", "check"],
    ] {
        // The command line wins over the environment.
        for variable in [None, Some("third.toml"), Some("")] {
            let (code, stderr) = with(variable, args);
            assert!(code == Some(0) && stderr.contains(good), "{args:?}: {stderr}");
        }
    }
    let (code, stderr) = with(Some("other.toml"), &["check"]);
    assert!(code == Some(0) && stderr.contains(good), "{stderr}");
    let (code, stderr) = with(Some(""), &["check"]);
    assert!(code == Some(2) && stderr.contains("`gateway.toml` has"), "{stderr}");
    for args in [
        &["-c", "other.toml", "session", "create", "--claim", "user=alice"] as &[&str],
        &["session", "-c", "other.toml", "list"],
        &["table", "policy", "-c", "other.toml"],
        &["-c", "other.toml", "explain"],
    ] {
        assert_eq!(with(Some("third.toml"), args).0, Some(0), "{args:?}");
    }
    // A file that would be ignored is refused.
    for args in [&["-c", "other.toml", "demo"] as &[&str], &["completions", "bash", "-c", "other.toml"]] {
        assert_eq!(with(None, args).0, Some(2), "{args:?}");
    }
}

#[test]
fn without_a_configuration_the_demo_is_named() {
    let site = Site::new(CONFIG);
    std::fs::remove_file(site.0.path().join("gateway.toml")).unwrap();
    for args in [&[] as &[&str], &["serve"], &["check"], &["session", "list"]] {
        let ended = site.run(args).with(2);
        for expected in ["`sessiongate demo`", "SESSIONGATE_CONFIG", "`--config FILE`"] {
            assert!(ended.stderr.contains(expected), "{args:?}: {}", ended.stderr);
        }
    }
}

#[test]
fn list_says_how_many_were_read_and_how_many_match() {
    let site = Site::new(CONFIG);
    site.session(&["user=alice"]);
    for (args, expected) in [
        (&[] as &[&str], "1 session in table `sessions`, 1 of them live\n"),
        (&["--claim", "user=bob"], "1 session in table `sessions`, 0 match, 0 of these live\n"),
        (&["--claim", "user=alice"], "1 session in table `sessions`, 1 match, 1 of these live\n"),
        (&["--expired"], "1 session in table `sessions`, 0 match, 0 of these live\n"),
    ] {
        let ended = site.run(&[&["session", "list"], args].concat()).done();
        assert_eq!(ended.stderr, expected, "{args:?}");
    }
}

#[test]
fn claim_that_looks_like_json_and_is_not_is_2_and_makes_no_session() {
    let site = Site::new(CONFIG);
    let ended = site.run(&["session", "create", "--claim", "roles=[admin]"]).with(2);
    assert!(ended.stderr.contains(r#"--claim 'roles=["admin"]'"#) && ended.stdout.is_empty(), "{ended:?}");
    let ended = site.run(&["session", "list", "--claim", "roles=[admin]"]).with(2);
    assert!(ended.stderr.contains(r#"--claim 'roles=["admin"]'"#), "{ended:?}");
}
