//! A valid configuration file, and ways to change it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sessiongate::config::diagnostic::{DiagnosticReport, Severity};
use sessiongate::config::environment::Environment;
use sessiongate::config::{Config, parse};
use sessiongate::time::Timestamp;

use crate::support::certificates::Authority;

/// A minimal file, with the sections to which `with` adds lines.
pub(crate) const BASE: &str = r#"
[server]
[[listeners]]
address = "127.0.0.1:0"
[store.dynamodb]
[sessions.main]
format = "native"
table = "sessions"
[sessions.main.cookie]
[sessions.main.cache]
[upstreams.app]
servers = ["http://127.0.0.1:8000"]
[[routes]]
path = "/"
session = "main"
upstream = "app"
[routes.require]
[routes.headers]
"#;

/// An environment with the variables and files of a test.
#[derive(Debug, Default)]
pub(crate) struct TestEnvironment {
    pub(crate) variables: BTreeMap<&'static str, &'static str>,
    pub(crate) files: BTreeMap<PathBuf, &'static str>,
}

impl Environment for TestEnvironment {
    fn cores(&self) -> usize {
        3
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_secs(1_800_000_000)
    }

    fn variable(&self, name: &str) -> Option<Vec<u8>> {
        self.variables.get(name).map(|value| value.as_bytes().to_vec())
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let content = self.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.as_bytes().to_vec())
    }
}

/// Returns the base file with `lines` under `header`, replacing lines there that set the same keys. With an empty header,
/// appends `lines`. A `|` stands for a new line.
pub(crate) fn with(header: &str, lines: &str) -> String {
    let lines = lines.replace('|', "\n");
    if header.is_empty() {
        return format!("{BASE}{lines}\n");
    }
    let set: Vec<_> = lines.lines().filter_map(|line| line.split_once(" = ")).map(|(key, _)| key).collect();
    let mut source = String::new();
    let mut inside = false;
    for line in BASE.lines() {
        if line.starts_with('[') {
            inside = line == header;
        }
        if !inside || !set.iter().any(|key| line.starts_with(&format!("{key} = "))) {
            source.push_str(line);
            source.push('\n');
        }
        if line == header {
            source.push_str(&lines);
            source.push('\n');
        }
    }
    assert!(BASE.contains(header), "no such header: {header}");
    source
}

impl Environment for Certificates {
    fn cores(&self) -> usize {
        TestEnvironment::default().cores()
    }

    fn now(&self) -> Timestamp {
        TestEnvironment::default().now()
    }

    fn variable(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let name = path.strip_prefix("etc").map_err(io::Error::other)?;
        let content = FILES.get(name.to_str().ok_or(io::ErrorKind::NotFound)?);
        Ok(content.ok_or(io::ErrorKind::NotFound)?.clone().into_bytes())
    }
}

/// An environment with certificate files: valid ones, an expired one, and their authority.
struct Certificates;

static FILES: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
    let authority = Authority::new("Test CA");
    let [app, other] = [&["app.example.com"], &["other.example.com"]].map(|names| authority.server(names));
    let old = authority.expired_server(&["old.example.com"]);
    let client = authority.client("gateway", &[]);
    BTreeMap::from([
        ("clients.pem", authority.pem().to_owned()),
        ("app.pem", app.certificate),
        ("app.key", app.key),
        ("other.pem", other.certificate),
        ("other.key", other.key),
        ("old.pem", old.certificate),
        ("old.key", old.key),
        ("ca.pem", authority.pem().to_owned()),
        ("client.pem", client.certificate),
        ("client.key", client.key),
        ("text.pem", "no certificate".to_owned()),
    ])
});

pub(crate) fn read(source: &str) -> (Option<Config>, DiagnosticReport) {
    parse(source, Path::new("etc/gateway.toml"), &Certificates)
}

/// Returns the configuration of a file that must be valid, without warnings.
pub(crate) fn accepted(source: &str) -> Config {
    let (config, report) = read(source);
    assert!(report.is_empty(), "{report}\nin:\n{source}");
    config.expect("a configuration without a problem")
}

/// Returns the error messages of a file.
pub(crate) fn errors(source: &str) -> Vec<String> {
    let (config, report) = read(source);
    assert_eq!(config.is_none(), report.has_errors(), "{report}");
    let errors = report.diagnostics().iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors.map(|diagnostic| diagnostic.message.clone()).collect()
}
