//! The quick start of the README: saves its files and runs its commands as they are written, except for the ports.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::ministack::Ministack;
use crate::support::{eventually, program};

const README: &str = include_str!("../../README.md");

/// A directory in which the commands of the README run.
struct Workspace {
    directory: TempDir,
    environment: Vec<(&'static str, String)>,
    /// Ports of the README, and those used instead.
    ports: [(&'static str, String); 3],
    /// Running servers, which are killed when this value is dropped.
    running: Vec<Child>,
}

impl Workspace {
    /// Returns `None` if a program that the commands run is not installed.
    fn new() -> Option<Self> {
        for name in ["python3", "curl", "openssl"] {
            program::command(name)?;
        }
        // All are bound until the last is chosen, so that they differ.
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

    /// Returns a text of the README with other ports.
    fn with_ports(&self, text: &str) -> String {
        let ports = self.ports.iter();
        ports.fold(text.to_owned(), |text, (port, actual)| {
            text.replace(&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{actual}"))
                .replace(&format!("(\"127.0.0.1\", {port})"), &format!("(\"127.0.0.1\", {actual})"))
        })
    }

    fn save(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), self.with_ports(text)).unwrap();
    }

    fn shell(&self, line: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_sessiongate")).parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path: Vec<PathBuf> = std::iter::once(program).chain(std::env::split_paths(&path)).collect();
        let mut command = Command::new("sh");
        command.arg("-c").arg(self.with_ports(line)).current_dir(self.directory.path()).kill_on_drop(true);
        // The developer's own configuration must have no effect.
        for variable in ["SESSIONGATE_CONFIG", "AWS_PROFILE", "AWS_ENDPOINT_URL", "RUST_LOG"] {
            command.env_remove(variable);
        }
        command.env("PATH", std::env::join_paths(path).unwrap()).env("no_proxy", "127.0.0.1");
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command that must succeed, and returns its stdout.
    async fn run(&self, line: &str) -> String {
        let (succeeded, stdout, stderr) = program::run(&mut self.shell(line), "").await;
        assert!(succeeded, "{line}\n{stdout}\n{stderr}");
        stdout
    }

    /// Starts a server and waits until it accepts connections.
    async fn start(&mut self, line: &str, port: &str) {
        let mut child = self.shell(&format!("exec {line}")).stdout(Stdio::null()).spawn().unwrap();
        let address = self.with_ports(&format!("127.0.0.1:{port}"));
        eventually("connections", || {
            assert_eq!(child.try_wait().unwrap(), None, "{line} has exited");
            let address = address.clone();
            async move { tokio::net::TcpStream::connect(&address).await.is_ok() }
        })
        .await;
        self.running.push(child);
    }
}

/// Returns the code blocks of a section of the README, with their languages.
fn blocks(title: &str) -> Vec<(&'static str, &'static str)> {
    let section = README.split("\n## ").find(|section| section.starts_with(title)).unwrap();
    let mut blocks = Vec::new();
    for block in section.split("\n```").skip(1).step_by(2) {
        blocks.push(block.split_once('\n').unwrap());
    }
    blocks
}

/// Does the whole quick start. `store` replaces `[store.dynamodb]`; if it is empty, the README's `[store.embedded]` does.
async fn run_quick_start(mut workspace: Workspace, store: Option<&str>) {
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
    workspace.save("app.py", app);
    workspace.save("gateway.toml", &config);
    workspace.start(start, "3000").await;

    let mut set_up: Vec<_> = set_up.lines().collect();
    let serve = set_up.pop().unwrap();
    assert!(set_up.len() > 4 && serve.starts_with("sessiongate "), "{serve}");
    for line in set_up {
        workspace.run(line).await;
    }
    workspace.start(serve, "8080").await;

    let mut outputs = Vec::new();
    for line in visit.lines() {
        outputs.push((line, workspace.run(line).await));
    }
    let [anonymous, login, alice, listed, logout, _, bob] = outputs.as_slice() else { panic!("{outputs:?}") };
    for ((line, output), expected) in [
        (anonymous, "HTTP/1.1 401 "),
        (login, "HTTP/1.1 303 "),
        (alice, "Hello, alice!\n"),
        (logout, "HTTP/1.1 303 "),
        (bob, "Hello, bob!\n"),
    ] {
        assert!(output.starts_with(expected), "{line}\n{output}");
        // The comment in the README says the same.
        let comment = line.rsplit_once("# ").unwrap().1;
        assert!(comment.starts_with(expected.trim_start_matches("HTTP/1.1 ").trim()), "{line}");
    }
    assert_eq!(listed.1.lines().count(), 1, "{}", listed.1);
    assert!(workspace.run("curl -i -b jar http://127.0.0.1:8080/").await.starts_with("HTTP/1.1 401 "));

    // A browser is redirected to the login page, and after the login to the page that it requested.
    let browser = "curl -sL -b browser -c browser -H 'Accept: text/html'";
    let page = workspace.run(&format!("{browser} http://127.0.0.1:8080/")).await;
    assert!(page.contains("<form method=post action=/login>"), "{page}");
    let page = workspace
        .run(&format!("{browser} --data-urlencode \"user=Zoë O'Hara\" http://127.0.0.1:8080/login"))
        .await;
    assert_eq!(page, "Hello, Zoë O&#x27;Hara!\n");
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn quick_start_works_with_the_embedded_store() {
    let Some(workspace) = Workspace::new() else { return };
    run_quick_start(workspace, Some("")).await;
}

#[cfg(feature = "embedded")]
#[tokio::test]
async fn quick_start_works_with_a_store_in_memory_and_its_api() {
    let Some(workspace) = Workspace::new() else { return };
    let listen = "listen = \"127.0.0.1:8000\"";
    assert!(README.contains(listen));
    run_quick_start(workspace, Some(&format!("[store.embedded]\n{listen}\n"))).await;
}

#[tokio::test]
async fn quick_start_works_with_dynamodb() {
    let Some(workspace) = Workspace::new() else { return };
    let Some(ministack) = Ministack::start() else { return };
    let workspace = workspace.with_environment(vec![
        ("AWS_ENDPOINT_URL", ministack.endpoint()),
        ("AWS_ACCESS_KEY_ID", "test".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
    ]);
    run_quick_start(workspace, None).await;
}

#[tokio::test]
async fn writes_on_a_public_route_is_an_error_with_a_hint() {
    let Some(workspace) = Workspace::new() else { return };
    let blocks = blocks("In front of your app in five minutes");
    let config = blocks.iter().find(|(language, _)| *language == "toml").unwrap().1;
    workspace.save("gateway.toml", &config.replace("access = \"optional\"", "access = \"public\""));
    workspace.run("openssl rand -hex 32 > session.key").await;
    let (succeeded, _, stderr) = program::run(&mut workspace.shell("sessiongate check"), "").await;
    assert!(!succeeded && stderr.contains("`routes.writes` needs a session"), "{stderr}");
    assert!(
        stderr.contains("hint: use `access = \"optional\"`, which also lets everyone through"),
        "{stderr}"
    );
}
