//! Secrets: their sources, and that no output shows them.

use std::fs;
use std::path::{Path, PathBuf};

use sessiongate::config::diagnostic::{Colour, Severity};
use sessiongate::config::{Config, load, parse};

use super::fixture::{TestEnvironment, read, with};

/// A secret that no output may contain.
const CANARY: &str = "canary-6f1d9b-secret";

/// Returns the configuration and the messages of a file with these lines under `[sessions.main.keys]`.
fn keys(lines: &str) -> (Option<Config>, Vec<String>) {
    let given = TestEnvironment {
        variables: [("KEY", CANARY), ("EMPTY", ""), ("SHORT", "fifteen bytes..")].into(),
        files: [
            (PathBuf::from("etc/key"), "0123456789abcdef\n"),
            (PathBuf::from("etc/windows-key"), "0123456789abcdef\r\n"),
            (PathBuf::from("etc/two-newlines"), "0123456789abcdef\n\n"),
            (PathBuf::from("etc/only-newline"), "\n"),
            (PathBuf::from("/run/key"), "fedcba9876543210"),
        ]
        .into(),
    };
    let source = with("", &format!("[sessions.main.keys]|{lines}"));
    let (config, report) = parse(&source, Path::new("etc/gateway.toml"), &given);
    (config, report.diagnostics().iter().map(|diagnostic| diagnostic.message.clone()).collect())
}

#[test]
fn secret_comes_from_a_variable_or_file() {
    let current = |lines: &str| {
        let (config, messages) = keys(lines);
        assert_eq!(messages, [""; 0], "{lines}");
        config.unwrap().realms.remove(0).keys.unwrap().current
    };
    assert_eq!(current("current = { env = \"KEY\" }").expose(), CANARY.as_bytes());
    assert_eq!(current("current = { file = \"key\" }").expose(), b"0123456789abcdef");
    assert_eq!(current("current = { file = \"windows-key\" }").expose(), b"0123456789abcdef");
    assert_eq!(current("current = { file = \"two-newlines\" }").expose(), b"0123456789abcdef\n");
    assert_eq!(current("current = { file = \"/run/key\" }").expose(), b"fedcba9876543210");

    let (config, _) =
        keys("current = { env = \"KEY\" }|previous = [{ file = \"key\" }, { file = \"/run/key\" }]");
    assert_eq!(config.unwrap().realms[0].keys.as_ref().unwrap().previous.len(), 2);
}

#[test]
fn literal_secret_is_a_warning() {
    let (config, messages) = keys(&format!("current = \"{CANARY}\"|previous = [\"{CANARY}\", \"{CANARY}\"]"));
    let warning = |key| format!("the configuration file contains the secret `sessions.main.keys.{key}`");
    assert_eq!(messages, [warning("current"), warning("previous")]);
    assert_eq!(config.unwrap().realms[0].keys.as_ref().unwrap().current.expose(), CANARY.as_bytes());
}

#[test]
fn invalid_secrets_are_errors() {
    let shape = "must be `{ env = \"NAME\" }` or `{ file = \"path\" }`";
    let cases = [
        ("current = { env = \"NONE\" }", "refers to an environment variable that is not set"),
        ("current = { env = \"EMPTY\" }", "is empty"),
        ("current = { env = \"SHORT\" }", "is shorter than 16 bytes"),
        ("current = { env = \"\" }", "must not be empty"),
        ("current = { env = 1 }", "must be a string, not an integer"),
        ("current = { file = \"only-newline\" }", "is empty"),
        ("current = { file = \"none\" }", "cannot be read from `etc/none`: entity not found"),
        ("current = \"\"", "is empty"),
        ("current = \"too short\"", "is shorter than 16 bytes"),
        ("current = {}", shape),
        ("current = { vault = \"x\" }", shape),
        ("current = { env = \"KEY\", file = \"key\" }", shape),
        ("current = 1234567890123456", &format!("{shape}, not an integer")),
    ];
    for (line, expected) in cases {
        assert_eq!(keys(line).1, [format!("`sessions.main.keys.current` {expected}")], "{line}");
    }
    assert_eq!(keys("").1, ["`sessions.main.keys.current` is missing"]);
    assert_eq!(keys("previous = []").1, ["`sessions.main.keys.current` is missing"]);
    let previous = keys("current = { env = \"KEY\" }|previous = [{ file = \"key\" }, \"short\"]").1;
    assert_eq!(previous, ["`sessions.main.keys.previous` is shorter than 16 bytes"]);
    let pyramid = with("[sessions.main]", "format = \"pyramid\"|keys.current = \"0123456789abcdef\"");
    let (_, report) = read(&pyramid);
    let error =
        report.diagnostics().iter().find(|diagnostic| diagnostic.severity == Severity::Error).unwrap();
    assert_eq!(
        error.message,
        "`sessions.main.keys` has no effect: the realm's pyramid cookies are not signed"
    );
}

#[test]
fn reports_show_no_secret() {
    let long = format!("{CANARY}ü{CANARY}");
    let sources = [
        format!("[sessions.main.keys]\ncurrent = \"{long}\"\n"),
        format!("[sessions.main.keys]\ncurrent = '{long}' # x\nprevious = ['{long}', \"{long}\"]\n"),
        format!("[sessions.main.keys]\ncurrent = \"\"\"\n{long}\n{long}\"\"\"\n"),
        format!("[sessions.main]\nkeys = {{ current = \"{long}\", previos = [\"{long}\"] }}\n"),
        format!("[sessions.main]\nkeys = \"{long}\"\n"),
        format!("[sessions.main]\nkeys = [\"{long}\"]\n"),
        format!("[sessions.main]\nkeys.current = {{ value = \"{long}\" }}\n"),
        format!("[sessions.main]\nkeys.current = [\"{long}\"]\n"),
        format!("[sessions.main.keys]\ncurent = \"{long}\"\n"),
        format!("[sessions.main.key]\ncurrent = \"{long}\"\n"),
        format!("keys = {{ x = \"{long}\" }}\n"),
        format!("[server]\ncurrent = \"{long}\"\n"),
        format!("[admin]\ntokn = \"{long}\"\n"),
        format!("[sessions.main]\nkyes = {{ curent = \"{long}\" }}\n"),
        format!("[[routes]]\nrequest_header = {{ set = {{ Authorization = \"Basic {long}\" }} }}\n"),
        format!("[upstreams.app]\nservers = [\"http://user:{long}@127.0.0.1\"]\n"),
        format!("[store.dynamodb]\nendpoint = \"http://user:{long}@127.0.0.1\"\n"),
        // Not TOML.
        format!("[sessions.main.keys]\ncurrent = \"{long}\n"),
        format!("[sessions.main.keys]\ncurrent = {long}\n"),
        format!("[sessions.main.keys]\ncurrent \"{long}\"\n"),
        format!("[sessions.main.keys\ncurrent = \"{long}\" x\n"),
        format!("[sessions.main]\nkeys = {{ current = \"{long}\n"),
        format!("[sessions.main]\nkeys = {{ previous = [\n  \"{long}\n] }}\n"),
        format!("[sessions.main.keys]\nprevious = [\n  [\"{long}\"] x\n]\n"),
        format!("[upstreams.app]\nservers = [\"http://user:{long}@127.0.0.1]\n"),
        // Not TOML, and a secret in base64 with its padding.
        format!("[sessions.main.keys]\ncurrent: \"{CANARY}==\"\n"),
        format!("[sessions.main.keys]\ncurrent {CANARY}==\n"),
        format!("[sessions.main.keys]\ncurrent \"{CANARY}= =\"\n"),
        format!("[sessions.main.keys]\nprevious = [\n  \"{CANARY}==\"\n  \"{CANARY}==\"\n]\n"),
        format!("[sessions.main.keys]\nprevious = [\n  \"x\"\n  {CANARY}=\n]\n"),
        format!("[routes.request_headers.set]\nAuthorization: \"Basic {CANARY}==\"\n"),
        format!("[upstreams.app]\nservers = [\n  \"x\"\n  \"http://user:{CANARY}=@127.0.0.1\"\n]\n"),
    ];
    for source in sources {
        let (config, report) = read(&source);
        assert!(config.is_none() && !report.is_empty());
        for text in [report.render(Colour::Plain), report.render(Colour::Ansi), format!("{report:?}")] {
            assert!(!text.contains(CANARY), "{text}\nin:\n{source}");
        }
    }
    let (config, _) = keys(&format!("current = \"{CANARY}\"|previous = [\"{CANARY}\"]"));
    assert!(!format!("{config:?}").contains(CANARY));
    // Nor is the secret shown as a list of byte values.
    assert!(!format!("{config:?}").contains(&format!("{:?}", &CANARY.as_bytes()[..4]).replace(']', "")));
}

#[test]
fn secret_file_is_relative_to_the_configuration() {
    let directory =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-secrets", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("key"), "0123456789abcdef\n").unwrap();
    let file = directory.join("gateway.toml");
    // Every process has this variable, and it is long enough.
    fs::write(
        &file,
        with("", "[sessions.main.keys]|current = { file = \"key\" }|previous = [{ env = \"PATH\" }]"),
    )
    .unwrap();
    let (config, warnings) = load(&file).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(warnings.report().is_empty());
    let keys = config.realms[0].keys.as_ref().unwrap();
    assert_eq!(keys.current.expose(), b"0123456789abcdef");
    assert_eq!(keys.previous[0].expose(), std::env::var("PATH").unwrap().as_bytes());
}
