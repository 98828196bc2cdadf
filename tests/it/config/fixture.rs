//! A file without a mistake, and ways to change it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use sessiongate::config::diagnostic::{DiagnosticReport, Severity};
use sessiongate::config::environment::Environment;
use sessiongate::config::{Config, parse};
use sessiongate::time::Timestamp;

use crate::support::certificates::Authority;

/// The least file that says something in every section.
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

/// Variables and files that a test gives.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) variables: BTreeMap<&'static str, &'static str>,
    pub(crate) files: BTreeMap<PathBuf, &'static str>,
}

impl Environment for Given {
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

/// The base with `lines` under `header`, in place of the lines there that set the same keys. With an empty header,
/// `lines` come last.
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

/// Beside the file: certificates with their keys, one of which has expired, and an authority.
impl Environment for Certificates {
    fn cores(&self) -> usize {
        Given::default().cores()
    }

    fn now(&self) -> Timestamp {
        Given::default().now()
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

struct Certificates;

static FILES: LazyLock<BTreeMap<&'static str, String>> = LazyLock::new(|| {
    let authority = Authority::new("ours");
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

/// The configuration of a file that must have no problem.
pub(crate) fn accepted(source: &str) -> Config {
    let (config, report) = read(source);
    assert!(report.is_empty(), "{report}\nin:\n{source}");
    config.expect("a configuration without a problem")
}

/// The messages of the errors of a file.
pub(crate) fn errors(source: &str) -> Vec<String> {
    let (config, report) = read(source);
    assert_eq!(config.is_none(), report.has_errors(), "{report}");
    let errors = report.diagnostics().iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    errors.map(|diagnostic| diagnostic.message.clone()).collect()
}
