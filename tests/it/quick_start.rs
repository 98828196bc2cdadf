//! README's quick start, carried out as it is written: its files are saved and its commands pasted, each block of
//! commands into a terminal of its own. Only the ports are others.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::ministack::Ministack;
use crate::support::{eventually, program};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const README: &str = include_str!("../../README.md");

/// A reader with a directory and some terminals.
struct Reader {
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
    /// What the ports of README are here.
    ports: [(&'static str, String); 3],
    /// The programs that run in terminals of their own. They end with this value.
    running: Vec<Child>,
}

impl Reader {
    /// None where a program is missing that README's commands name.
    fn new() -> Option<Self> {
        for name in ["python3", "curl", "openssl"] {
            program::command(name)?;
        }
        // Held until all of them are chosen, so that they differ.
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [gateway, app, store] =
            listeners.map(|listener| listener.local_addr().unwrap().port().to_string());
        Some(Self {
            directory: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
            ports: [("8080", gateway), ("3000", app), ("8000", store)],
            running: Vec::new(),
        })
    }

    fn with_environment(mut self, environment: Vec<(&'static str, String)>) -> Self {
        self.environment = environment;
        self
    }

    /// README's text with the ports of this reader.
    fn adapted(&self, text: &str) -> String {
        let ports = self.ports.iter();
        ports.fold(text.to_owned(), |text, (theirs, ours)| {
            text.replace(&format!("127.0.0.1:{theirs}"), &format!("127.0.0.1:{ours}"))
                .replace(&format!("(\"127.0.0.1\", {theirs})"), &format!("(\"127.0.0.1\", {ours})"))
        })
    }

    fn save(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), self.adapted(text)).unwrap();
    }

    fn shell(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_sessiongate")).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = std::iter::once(program).chain(std::env::split_paths(&path)).collect();
        let mut command = Command::new("sh");
        command.arg("-c").arg(self.adapted(line)).current_dir(self.directory.path()).kill_on_drop(true);
        // Nothing of the developer's own set-up has a part in this.
        for variable in ["SESSIONGATE_CONFIG", "AWS_PROFILE", "AWS_ENDPOINT_URL", "RUST_LOG"] {
            command.env_remove(variable);
        }
        command.env("PATH", std::env::join_paths(path).unwrap()).env("no_proxy", "127.0.0.1");
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Carries out a command that must succeed; what it prints.
    async fn run(&self, line: &str) -> String {
        let (succeeded, stdout, stderr) = program::run(&mut self.shell(line), "").await;
        assert!(succeeded, "{line}\n{stdout}\n{stderr}");
        stdout
    }

    /// Starts a program that goes on, in a terminal of its own, and waits until it takes connections.
    async fn start(&mut self, line: &str, port: &str) {
        let mut child = self.shell(&format!("exec {line}")).stdout(Stdio::null()).spawn().unwrap();
        let address = self.adapted(&format!("127.0.0.1:{port}"));
        eventually("the program listens", || {
            assert_eq!(child.try_wait().unwrap(), None, "{line} has ended");
            let address = address.clone();
            async move { tokio::net::TcpStream::connect(&address).await.is_ok() }
        })
        .await;
        self.running.push(child);
    }
}

/// The blocks of code of a section of README, with their languages.
fn blocks(title: &str) -> Vec<(&'static str, &'static str)> {
    let section = README.split("\n## ").find(|section| section.starts_with(title)).unwrap();
    let mut blocks = Vec::new();
    for block in section.split("\n```").skip(1).step_by(2) {
        blocks.push(block.split_once('\n').unwrap());
    }
    blocks
}

/// The whole quick start, with `store` in place of `[store.dynamodb]`.
async fn logs_in(mut reader: Reader, store: Option<&str>) {
    let blocks = blocks("In front of your app in five minutes");
    let [("python", app), ("sh", start), ("toml", config), ("toml", embedded), ("sh", set_up), ("sh", visit)] =
        blocks.as_slice()
    else {
        panic!("the quick start has other blocks: {blocks:?}");
    };
    let (before, after) = config.split_once("[store.dynamodb]").unwrap();
    let dynamodb = after.split("\n[").next().unwrap();
    let config = match store {
        None => (*config).to_owned(),
        Some(store) => {
            let store = if store.is_empty() { embedded } else { store };
            format!("{before}{store}{}", after.strip_prefix(dynamodb).unwrap())
        }
    };
    reader.save("app.py", app);
    reader.save("gateway.toml", &config);
    reader.start(start, "3000").await;

    let mut set_up: Vec<_> = set_up.lines().collect();
    let serve = set_up.pop().unwrap();
    assert!(set_up.len() > 4 && serve.starts_with("sessiongate "), "{serve}");
    for line in set_up {
        reader.run(line).await;
    }
    reader.start(serve, "8080").await;

    let mut shown = Vec::new();
    for line in visit.lines() {
        shown.push((line, reader.run(line).await));
    }
    let [stranger, log_in, alice, listed, log_out, _, bob] = shown.as_slice() else { panic!("{shown:?}") };
    for ((line, said), expected) in [
        (stranger, "HTTP/1.1 401 "),
        (log_in, "HTTP/1.1 303 "),
        (alice, "Hello, alice!\n"),
        (log_out, "HTTP/1.1 303 "),
        (bob, "Hello, bob!\n"),
    ] {
        assert!(said.starts_with(expected), "{line}\n{said}");
        // And this is what README says of it.
        let promised = line.rsplit_once("# ").unwrap().1;
        assert!(promised.starts_with(expected.trim_start_matches("HTTP/1.1 ").trim()), "{line}");
    }
    assert_eq!(listed.1.lines().count(), 1, "{}", listed.1);
    assert!(reader.run("curl -i -b jar http://127.0.0.1:8080/").await.starts_with("HTTP/1.1 401 "));

    // A browser is led to the log-in page and, once its form is sent, to its own page.
    let browser = "curl -sL -b browser -c browser -H 'Accept: text/html'";
    let page = reader.run(&format!("{browser} http://127.0.0.1:8080/")).await;
    assert!(page.contains("<form method=post action=/login>"), "{page}");
    let page = reader
        .run(&format!("{browser} --data-urlencode \"user=Zoë O'Hara\" http://127.0.0.1:8080/login"))
        .await;
    assert_eq!(page, "Hello, Zoë O&#x27;Hara!\n");
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn quick_start_logs_in_with_the_embedded_store() {
    let Some(reader) = Reader::new() else { return };
    logs_in(reader, Some("")).await;
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn quick_start_logs_in_with_a_store_in_memory_that_is_served() {
    let Some(reader) = Reader::new() else { return };
    let listen = "listen = \"127.0.0.1:8000\"";
    assert!(README.contains(listen));
    logs_in(reader, Some(&format!("[store.embedded]\n{listen}\n"))).await;
}

#[tokio::test]
async fn quick_start_logs_in_with_dynamodb() {
    let Some(reader) = Reader::new() else { return };
    let Some(ministack) = Ministack::start() else { return };
    let reader = reader.with_environment(vec![
        ("AWS_ENDPOINT_URL", ministack.endpoint()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ]);
    logs_in(reader, None).await;
}

#[tokio::test]
async fn writes_on_a_public_route_is_refused_with_a_way_out() {
    let Some(reader) = Reader::new() else { return };
    let blocks = blocks("In front of your app in five minutes");
    let config = blocks.iter().find(|(language, _)| *language == "toml").unwrap().1;
    reader.save("gateway.toml", &config.replace("access = \"optional\"", "access = \"public\""));
    reader.run("openssl rand -hex 32 > session.key").await;
    let (succeeded, _, stderr) = program::run(&mut reader.shell("sessiongate check"), "").await;
    assert!(!succeeded && stderr.contains("`routes.writes` needs a session"), "{stderr}");
    assert!(stderr.contains("hint: `access = \"optional\"` also lets everyone through"), "{stderr}");
}
