//! The command line: exit codes, stdout and stderr of the built binary.

mod explain;
mod session;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A gateway whose table is in a file, which all commands of a test use.
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

/// The working directory of the commands, with a `gateway.toml`.
struct Site(TempDir);

/// Exit code and output of a command.
#[derive(Debug)]
struct Output {
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

    fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], stdin: &str) -> Output {
        run(self.0.path(), args, stdin)
    }

    /// Creates a session and returns its cookie, as `name=value`, and its ref.
    fn create_session(&self, claims: &[&str]) -> (String, String) {
        let mut args = vec!["session", "create", "--json"];
        args.extend(claims.iter().flat_map(|claim| ["--claim", claim]));
        let created = self.run(&args).success().json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (
            format!("{}={}", text(&created["cookie"]["name"]), text(&created["cookie"]["value"])),
            text(&created["ref"]),
        )
    }
}

impl Output {
    /// Panics unless the exit code is `code`.
    #[track_caller]
    fn with_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Panics unless the exit code is 0.
    #[track_caller]
    fn success(self) -> Self {
        self.with_code(0)
    }

    /// Parses stdout as JSON.
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }

    /// Parses each line of stdout as JSON.
    fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sessiongate"));
    // The developer's AWS configuration and terminal colours must have no effect.
    command.args(args).current_dir(dir).env_clear();
    command
}

fn run(dir: &Path, args: &[&str], stdin: &str) -> Output {
    let mut child = command(dir, args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Fails if the command exits without reading stdin.
    let _unread = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn help_goes_to_stdout_and_names_every_command() {
    let site = Site::new(CONFIG);
    let help = site.run(&["--help"]).success();
    for command in ["serve", "check", "demo", "table", "session", "explain", "completions", "Exit codes"] {
        assert!(help.stdout.contains(command), "{command} is missing:\n{}", help.stdout);
    }
    assert_eq!(help.stderr, "");
    assert_eq!(
        site.run(&["--version"]).success().stdout,
        concat!("sessiongate ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn invalid_command_line_is_exit_code_2_with_an_error_on_stderr() {
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
        let output = site.run(args).with_code(2);
        assert_eq!(output.stdout, "", "{args:?}");
        assert!(
            output.stderr.starts_with("error: ") || output.stderr.contains("Usage:"),
            "{args:?}: {}",
            output.stderr
        );
    }
}

#[test]
fn completions_of_every_shell_have_the_commands() {
    let site = Site::new(CONFIG);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = site.run(&["completions", shell]).success().stdout;
        assert!(script.contains("sessiongate") && script.contains("revoke"), "{shell}");
    }
}

#[test]
fn broken_stdout_pipe_is_exit_code_0_without_an_error() {
    let site = Site::new(CONFIG);
    for args in [&["completions", "bash"] as &[&str], &["--help"], &["table", "policy"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(site.0.path(), args).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"" as &[u8]), "{args:?}");
    }
}

#[test]
fn check_of_a_valid_file_succeeds() {
    let site = Site::new(CONFIG);
    let output = site.run(&["check"]).success();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "ok: `gateway.toml` has no errors\n"));
}

#[test]
fn invalid_file_is_exit_code_2_with_every_error_and_its_location() {
    let site =
        Site::new(&CONFIG.replace("timeout", "timeuot").replace(r#"upstream = "app""#, r#"upstream = "ap""#));
    for command in ["check", "serve"] {
        let output = site.run(&[command]).with_code(2);
        assert_eq!(output.stdout, "");
        for expected in ["gateway.toml:11:1", "timeuot", "`timeout`", "`app`", "error: `gateway.toml` has "] {
            assert!(output.stderr.contains(expected), "{expected}\n{}", output.stderr);
        }
        assert!(!output.stderr.contains('\u{1b}'), "colours without a terminal");
    }
}

#[test]
fn missing_file_is_exit_code_2() {
    let site = Site::new(CONFIG);
    let output = site.run(&["check", "--config", "other.toml"]).with_code(2);
    assert!(
        output.stderr.contains("other.toml") && output.stderr.contains("cannot read"),
        "{}",
        output.stderr
    );
}

#[test]
fn check_connect_reports_an_upstream_that_refuses_connections() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let site = Site::new(&CONFIG.replace("builtin:demo", &format!("http://{closed}")));
    let output = site.run(&["check", "--connect"]).with_code(1);
    assert!(output.stderr.contains(&format!("cannot connect to {closed}")), "{}", output.stderr);

    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = open.local_addr().unwrap();
    let site = Site::new(&CONFIG.replace("builtin:demo", &format!("http://{address}")));
    site.run(&["table", "create"]).success();
    let output = site.run(&["check", "--connect"]).success();
    assert!(output.stderr.contains(&format!("{address} accepts connections")), "{}", output.stderr);
    assert!(output.stderr.contains("table `sessions` exists"), "{}", output.stderr);
}

#[test]
fn table_create_creates_the_table_that_table_show_shows() {
    let site = Site::new(CONFIG);
    site.run(&["table", "show"]).with_code(1);
    site.run(&["table", "create"]).success();
    assert!(site.run(&["table", "create"]).success().stderr.contains("already exists"));
    let shown = site.run(&["table", "show", "--json"]).success().json();
    assert_eq!(shown["table"], "sessions");
    assert_eq!(shown["key"], json!({ "attribute": "sid", "type": "B", "sort": null }));
    assert_eq!(shown["ttl"]["attribute"], "exp");
    assert!(site.run(&["table", "show"]).success().stdout.contains("status   ACTIVE"));
}

#[test]
fn table_policy_prints_an_iam_policy_for_the_table() {
    let policy = Site::new(CONFIG).run(&["table", "policy"]).success().json();
    assert_eq!(policy["Version"], "2012-10-17");
    assert!(policy["Statement"][0]["Resource"].as_str().unwrap().ends_with(":table/sessions"));
}

#[test]
fn table_commands_without_a_realm_fail() {
    let site = Site::new(
        "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n\
         [[routes]]\npath = \"/\"\naccess = \"public\"\nrespond = {}\n",
    );
    for command in ["policy", "create", "show"] {
        let output = site.run(&["table", command]).with_code(2);
        assert!(output.stderr.contains("the configuration has no [sessions.NAME]"), "{}", output.stderr);
    }
}

#[test]
fn table_create_with_a_store_in_memory_succeeds() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for store in [String::new(), format!("listen = \"{closed}\"")] {
        let site = Site::new(&CONFIG.replace(r#"path = "sessions.db""#, &store));
        let output = site.run(&["table", "create"]).success();
        assert!(output.stderr.contains("table `sessions` is in the gateway's memory"), "{}", output.stderr);
    }
}

#[test]
fn config_file_is_given_before_or_after_the_command_or_by_the_environment() {
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
    // A command that needs no file rejects one.
    for args in [&["-c", "other.toml", "demo"] as &[&str], &["completions", "bash", "-c", "other.toml"]] {
        assert_eq!(with(None, args).0, Some(2), "{args:?}");
    }
}

#[test]
fn error_about_a_missing_default_file_names_the_demo_and_the_options() {
    let site = Site::new(CONFIG);
    std::fs::remove_file(site.0.path().join("gateway.toml")).unwrap();
    for args in [&[] as &[&str], &["serve"], &["check"], &["session", "list"]] {
        let output = site.run(args).with_code(2);
        for expected in ["`sessiongate demo`", "SESSIONGATE_CONFIG", "`--config FILE`"] {
            assert!(output.stderr.contains(expected), "{args:?}: {}", output.stderr);
        }
    }
}
