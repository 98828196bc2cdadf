//! Rules of this repository that the compiler does not check.

mod imports;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 50);
    found
}

#[test]
fn every_module_has_documentation_and_at_most_600_lines() {
    for (path, text) in sources() {
        let is_tests = path.ends_with("tests.rs");
        assert!(is_tests || text.starts_with("//! "), "{} does not open with `//! `", path.display());
        assert!(text.lines().count() <= 600, "{} is longer than 600 lines", path.display());
        assert!(!path.ends_with("mod.rs"), "{}", path.display());
    }
}

#[test]
fn files_that_architecture_names_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut named = 0;
    for code in text.split('`').skip(1).step_by(2) {
        if ["src/", "tests/", "benches/"].iter().any(|folder| code.starts_with(folder)) {
            assert!(root().join(code).exists(), "ARCHITECTURE.md names `{code}`");
            named += 1;
        }
    }
    assert!(named > 30);
}

#[test]
fn core_does_no_io() {
    let pure = |path: &Path| {
        path.starts_with("src/format")
            || ["src/session/judge.rs", "src/session/cookie.rs"].iter().any(|p| path.ends_with(p))
    };
    let mut checked = 0;
    for (path, text) in sources().iter().filter(|(path, _)| pure(path)) {
        for banned in ["tokio", "hyper", "aws_", "std::fs", "std::net", "crate::store", "crate::proxy"] {
            assert!(!text.contains(banned), "{} contains `{banned}`", path.display());
        }
        checked += 1;
    }
    assert!(checked >= 8);
}

/// A type that other modules can name has a unique name, so that a reader need not look up which type is meant.
#[test]
fn names_of_public_types_are_unique() {
    let mut defined: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in sources() {
        // No other module of `src/` imports the types of `src/fuzzing`.
        if path.starts_with("src/fuzzing") {
            continue;
        }
        for line in text.lines() {
            let Some(rest) = line.trim_start().strip_prefix("pub") else { continue };
            let rest = match rest.strip_prefix('(') {
                Some(scoped) => scoped.split_once(')').map_or("", |(_, rest)| rest),
                None => rest,
            };
            let kinds = [" struct ", " enum ", " trait ", " type "];
            let Some(rest) = kinds.iter().find_map(|kind| rest.strip_prefix(kind)) else { continue };
            let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
            defined.entry(rest[..end].to_owned()).or_default().push(path.clone());
        }
    }
    assert!(defined.len() > 200);
    let twice: Vec<_> = defined.iter().filter(|(_, paths)| paths.len() > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

/// The layers of `src/`, lowest first. A layer imports from those before it only.
const LAYERS: &[&[&str]] = &[
    &[
        "time",
        "secret",
        "item",
        "path",
        "host",
        "claims",
        "fields",
        "header_lines",
        "message",
        "headers",
        "rate",
    ],
    &["tls", "http1", "unix_socket"],
    &["config"],
    &["format"],
    &["telemetry"],
    &["store"],
    &["session"],
    &["route"],
    &["upstream"],
    &["proxy"],
    &["demo", "admin"],
    &["server"],
    &["cli"],
];

#[test]
fn files_import_from_lower_layers_only() {
    let layer = |path: &Path| {
        let name = path.components().nth(1).unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        (LAYERS.iter().position(|layer| layer.contains(&name)), name.to_owned())
    };
    let mut wrong = Vec::new();
    let all = imports::imports(&sources());
    assert!(all.values().map(std::collections::BTreeSet::len).sum::<usize>() > 500);
    for (path, imported) in all {
        let (Some(own), _) = layer(&path) else { continue };
        for other in imported {
            if let (Some(above), _) = layer(&other)
                && above > own
            {
                wrong.push(format!("{} imports from {}", path.display(), other.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_do_not_import_from_one_another_in_a_cycle() {
    let groups = imports::cycles(&imports::imports(&sources()));
    assert!(groups.is_empty(), "{groups:#?}");
}

/// The table of steps in ARCHITECTURE is in the order of `decide` and `execute`.
#[test]
fn architecture_lists_the_steps_in_the_order_of_the_code() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("## A request's path").nth(1).unwrap().split("\n## ").next().unwrap();
    let code = fs::read_to_string(root().join("src/proxy.rs")).unwrap();
    let code = code.split("async fn decide").nth(1).unwrap();
    let steps = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let in_pipeline: Vec<_> =
        steps.filter(|step| !["response::refuse", "into_entry"].contains(step)).collect();
    assert!(in_pipeline.len() > 15, "{in_pipeline:?}");
    let mut last = 0;
    for step in in_pipeline {
        let at =
            code.find(&format!("{step}(")).unwrap_or_else(|| panic!("src/proxy.rs does not call `{step}`"));
        assert!(at > last, "`{step}` has another position in src/proxy.rs than in ARCHITECTURE.md");
        last = at;
    }
}

#[test]
fn configurations_in_the_readme_are_valid() {
    struct ReadmeEnvironment;
    impl sessiongate::config::environment::Environment for ReadmeEnvironment {
        fn cores(&self) -> usize {
            1
        }
        fn now(&self) -> sessiongate::time::Timestamp {
            sessiongate::time::Timestamp::from_secs(1_800_000_000)
        }
        // Only what the README tells a reader to set.
        fn variable(&self, name: &str) -> Option<Vec<u8>> {
            (name == "DJANGO_SECRET_KEY").then(|| b"0123456789abcdef".to_vec())
        }
        fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
            let key = path.ends_with("session.key").then(|| b"0123456789abcdef".to_vec());
            key.ok_or_else(|| std::io::ErrorKind::NotFound.into())
        }
    }
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let blocks: Vec<_> =
        text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [quick_start, embedded, pyramid, django] = blocks.as_slice() else { panic!("{blocks:?}") };
    let dynamodb = quick_start.find("[store.dynamodb]").unwrap();
    let after = dynamodb + quick_start[dynamodb..].find("\n\n").unwrap();
    let with_embedded = format!("{}{embedded}{}", &quick_start[..dynamodb], &quick_start[after..]);
    let rest = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n[upstreams.pyramid]\n\
                servers = [\"http://127.0.0.1:1\"]\n[upstreams.reports]\nservers = [\"http://127.0.0.1:2\"]\n";
    let behind_django = rest.replace("[upstreams.pyramid]", "[upstreams.django]");
    for source in [
        (*quick_start).to_owned(),
        with_embedded,
        format!("{pyramid}\n{rest}"),
        format!("{django}\n{behind_django}"),
    ] {
        let (_, report) = sessiongate::config::parse(&source, Path::new("README.md"), &ReadmeEnvironment);
        assert!(report.is_empty(), "{report}");
    }
}
