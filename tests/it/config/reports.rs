//! Rendering of problems: all of them in the order of the file, each with its line, a caret and a hint.

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;
use sessiongate::config::diagnostic::Colour;
use sessiongate::config::load;

use super::fixture::{BASE, read};

#[test]
fn all_errors_are_reported_in_one_run() {
    let source = r#"
[server]
worker = 4
log = "jsno"
drain = 30

[[listeners]]
address = ":8080"
trusted_proxies = ["10.1.2.3/8"]

[store.embeded]

[sessions.main]
format = "native"
timeout = "1m"

[sessions.main.cookie]
name = "__Host-id"

[upstreams.app]
servers = ["https://127.0.0.1:8443"]

[[routes]]
path = "/app//x"
session = "mian"
upstream = "app"
[routes.headers]
Host = "user"
X-Roles = { claim = "roles", joined = ";" }

[[routes]]
path = "/"
upstream = "app"

[[routes]]
path = "/"
access = "public"
upstream = "app"
"#;
    assert_snapshot!(read(source).1);
}

#[test]
fn syntax_errors_are_reported() {
    let source = r#"
[server]
log = "text
access_log = yes
workers = = 2
drain "30s"

[[listeners]]
address = 'a'
address = 'b'
trusted_proxies = ["a" "b"]

[routes
path = "/"
"#;
    assert_snapshot!(read(source).1);
}

#[test]
fn empty_file_lacks_required_sections() {
    assert_snapshot!(read("").1);
}

#[test]
fn missing_file_is_an_error() {
    assert_snapshot!(load("no/such/gateway.toml".as_ref()).unwrap_err());
}

#[test]
fn file_that_is_not_utf8_is_an_error() {
    let path = scratch("not-text.toml");
    fs::write(&path, b"[server]\nlog = \"t\xffext\"\n").unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert_snapshot!(message.replace(&path.display().to_string(), "not-text.toml"));
}

#[test]
fn endless_file_is_an_error() {
    let message = load("/dev/zero".as_ref()).unwrap_err().to_string();
    assert!(message.contains("larger than 1 MiB"), "{message}");
}

#[test]
fn file_with_warnings_is_accepted() {
    let unused = "[upstreams.spare]|servers = [\"http://spare\"]|[sessions.spare]|format = \"native\"|table = \"spare\"|\
                  cookie.name = \"spare\"|keys.current = \"0123456789abcdef\"";
    let page = "[[routes]]|host = \"example.com\"|path = \"/app\"|session = \"main\"|upstream = \"app\"|login = \"/login\"";
    let source =
        BASE.split("[[routes]]").next().unwrap().to_owned() + &format!("{page}|{unused}").replace('|', "\n");
    let (config, report) = read(&source);
    assert!(config.is_some(), "{report}");
    assert_snapshot!(report);
}

#[test]
fn only_ansi_rendering_has_colours() {
    let (_, report) = read("x = 1");
    assert!(!report.to_string().contains('\u{1b}'));
    assert!(!report.render(Colour::Plain).contains('\u{1b}'));
    assert!(report.render(Colour::Ansi).contains('\u{1b}'));
}

#[test]
fn control_characters_of_the_file_are_not_rendered() {
    let source = r#"
"\u001b[31mx" = 1
[sessions."\u001b]0;y"]
[server]
log = "\u001b"
[upstreams."\u001b[31my"]
[[routes]]
path = "/\u001b"
upstream = "another-name-than-that"
"#;
    let (_, report) = read(source);
    assert!(report.to_string().contains("known names: "), "{report}");
    assert!(!report.to_string().contains('\u{1b}'), "{report}");
}

#[test]
fn rendering_is_truncated_after_many_problems() {
    let source: String = (0..1000).map(|n| format!("key{n} = 1\n")).collect();
    let text = read(&source).1.to_string();
    assert!(text.ends_with("more problems are not shown"), "{text}");
    assert!(text.lines().count() < 1000);
}

/// Returns the path of a temporary file.
fn scratch(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()))
}
