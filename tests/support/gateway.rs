//! Runs the built gateway as a process. A file configures it, its log shows what it does, and a signal stops it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokio::sync::watch;

use super::certificates::Identity;
use super::client::{Request, Response};
use super::engine::Engine;
use super::program::AWS_ENVIRONMENT;
use super::table::TABLE;
use super::upstream::Upstream;
use super::within;

/// Python program that opens listening sockets, passes them on as sd_listen_fds(3) describes, and executes a command. Its
/// first argument is the list of addresses, the others are the command.
const ACTIVATOR: &str = r#"
import json, os, socket, sys
opened = []
for address in sys.argv[1].split():
    host, port = address.rsplit(":", 1)
    if host == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.abspath(port))
    else:
        listener = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET)
        listener.bind((host.strip("[]"), int(port)))
    listener.listen(64)
    opened.append(listener)
def name(n):
    if isinstance(n, str):
        return "unix:" + n
    return f"[{n[0]}]:{n[1]}" if ":" in n[0] else f"{n[0]}:{n[1]}"
print(json.dumps({"bound": [name(l.getsockname()) for l in opened]}), flush=True)
# First to numbers above the range, so that no socket is overwritten before it is moved.
high = [os.dup2(l.fileno(), 100 + i) for i, l in enumerate(opened)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ["LISTEN_FDS"] = str(len(opened))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"#;

/// Log message of a successful reload.
pub(crate) const RELOADED: &str = "configuration reloaded";
/// Log message of a rejected reload.
pub(crate) const NOT_RELOADED: &str = "configuration not reloaded: the current one remains active";

/// A running gateway, which is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Gateway {
    child: Child,
    /// Process ids after binary upgrades, the newest last.
    successors: Vec<u32>,
    log: Log,
    /// The first HTTP address, once it was looked up.
    address: OnceLock<SocketAddr>,
    directory: PathBuf,
}

/// Builder of a gateway and its configuration file.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Builder {
    server: String,
    listeners: String,
    store: String,
    rest: String,
    environment: HashMap<String, String>,
    files: Vec<(String, String)>,
    /// Arguments of `ulimit`, which limit the open files.
    open_files: Option<String>,
    /// Addresses of the sockets that the gateway inherits.
    inherited: Vec<String>,
}

/// The lines that a gateway writes to stdout and stderr.
#[derive(Clone, Debug)]
struct Log {
    lines: Arc<watch::Sender<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    /// Number of streams that have ended, of two.
    ended: usize,
}

/// Exit status and log of a gateway that did not start.
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Gateway {
    /// Returns a builder with one listener on a free port, the embedded store, one worker, and a log of JSON lines.
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// Returns the address of the first HTTP listener.
    pub(crate) fn address(&self) -> SocketAddr {
        *self.address.get_or_init(|| self.addresses("http")[0])
    }

    /// Returns the addresses of the listeners of this kind: `http`, `https`, `admin` or `dynamodb`.
    pub(crate) fn addresses(&self, kind: &str) -> Vec<SocketAddr> {
        let listening = self.events("listening").into_iter().filter(|event| field(event, "listener") == kind);
        listening
            .map(|event| field(&event, "address").as_str().expect("text").parse().expect("an address"))
            .collect()
    }

    /// Sends a request on a new connection.
    pub(crate) async fn send(&self, request: &Request) -> Response {
        request.send(self.address()).await
    }

    /// Sends a GET with this cookie on a new connection.
    pub(crate) async fn get(&self, target: &str, cookie: &str) -> Response {
        self.send(&Request::get(target).cookie(cookie)).await
    }

    /// Returns the events with this message that were logged so far.
    pub(crate) fn events(&self, message: &str) -> Vec<Value> {
        let lines = self.log.lines.borrow();
        // Parsing every line of a long log would take longer than most tests.
        let lines = lines.lines.iter().filter(|line| line.contains(message));
        let events = lines.filter_map(|line| serde_json::from_str(line).ok());
        events.filter(|event| field(event, "message") == message).collect()
    }

    /// Waits for an event that `wanted` accepts, and returns it. `what` names it if the test fails.
    pub(crate) async fn wait_for_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.log
            .wait_for_event(what, wanted)
            .await
            .unwrap_or_else(|| panic!("no {what} in the log:\n{}", self.log()))
    }

    /// Waits until `count` events with this message were logged, and returns the last of these.
    pub(crate) async fn nth_event(&self, message: &str, count: usize) -> Value {
        let enough = |log: &Lines| {
            let lines = log.lines.iter().filter(|line| line.contains(message));
            let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            events.filter(|event| field(event, "message") == message).count() >= count
        };
        let mut lines = self.log.lines.subscribe();
        let until = lines.wait_for(|log| log.ended == 2 || enough(log));
        // The result holds a read lock on the lines, and `events` takes another: a writer that waits in between is a
        // deadlock.
        drop(tokio::time::timeout(super::DEADLINE, until).await);
        let events = self.events(message);
        assert!(events.len() >= count, "{} of {count} `{message}` in the log:\n{}", events.len(), self.log());
        events[count - 1].clone()
    }

    /// Replaces the configuration file atomically. The gateway does not notice that by itself if `watch` is off.
    pub(crate) fn edit_config(&self, change: impl FnOnce(String) -> String) {
        let (file, next) = (self.directory.join("gateway.toml"), self.directory.join("next.toml"));
        let text = fs::read_to_string(&file).expect("reads the configuration");
        fs::write(&next, change(text)).expect("writes the configuration");
        fs::rename(&next, &file).expect("replaces the configuration");
    }

    /// Sends SIGHUP and waits until the gateway has reloaded. Returns the logged event.
    pub(crate) async fn reload(&self) -> Value {
        let before = self.events(RELOADED).len();
        self.signal("HUP");
        self.nth_event(RELOADED, before + 1).await
    }

    /// Sends SIGHUP and waits until the gateway has rejected its configuration. Returns the logged event.
    pub(crate) async fn rejected_reload(&self) -> Value {
        let before = self.events(NOT_RELOADED).len();
        self.signal("HUP");
        self.nth_event(NOT_RELOADED, before + 1).await
    }

    /// Starts a binary upgrade, waits until the new process has taken over, and returns its id. Signals go to the new process
    /// from now on.
    pub(crate) async fn upgrade_binary(&mut self) -> u32 {
        self.signal("USR2");
        let event = self.nth_event("handed over", self.successors.len() + 1).await;
        let pid = field(&event, "pid").as_u64().and_then(|pid| pid.try_into().ok()).expect("a process");
        self.successors.push(pid);
        pid
    }

    /// Waits for a line that contains `text`, ignoring case, and returns it.
    pub(crate) async fn wait_for_line(&self, text: &str) -> String {
        let text = text.to_lowercase();
        let line = self.log.find(&text, |line| line.to_lowercase().contains(&text).then(|| line.to_owned()));
        line.await.unwrap_or_else(|| panic!("no line with {text} in the log:\n{}", self.log()))
    }

    /// Returns everything that the gateway has written.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Returns the id of the gateway's process: of the newest one after a binary upgrade.
    pub(crate) fn pid(&self) -> u32 {
        self.successors.last().copied().unwrap_or_else(|| self.child.id())
    }

    /// Returns the gateway's working directory, which has its configuration file.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sends a signal, `TERM` or `HUP` for example.
    pub(crate) fn signal(&self, name: &str) {
        let kill =
            Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &self.pid().to_string()]).status();
        assert!(kill.expect("a shell").success(), "cannot signal the gateway; its log:\n{}", self.log());
    }

    /// Sends SIGTERM and waits until the gateway has exited. Returns its status and its log.
    pub(crate) async fn terminate(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        let status = self.wait().await;
        (status, self.log())
    }

    /// Waits until the gateway has exited. Returns its status and its log.
    pub(crate) async fn wait_with_log(mut self) -> (ExitStatus, String) {
        let status = self.wait().await;
        (status, self.log())
    }

    /// Waits until the gateway has exited.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        within("the gateway's exit", self.log.wait_for_end()).await;
        self.child.wait().expect("a child")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Either call fails only if the process has already exited.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
        for pid in &self.successors {
            let _ended = Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(40)..];
            println!("the gateway's log, the last of {} lines:\n{}", lines.len(), shown.join("\n"));
        } else {
            let _left_for_cargo_clean = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Builder {
    /// Adds lines to `[server]`.
    pub(crate) fn server(mut self, lines: &str) -> Self {
        add(&mut self.server, lines);
        self
    }

    /// Adds a listener. The first call replaces the default listener.
    pub(crate) fn listener(mut self, lines: &str) -> Self {
        add(&mut self.listeners, &format!("[[listeners]]\n{lines}"));
        self
    }

    /// Sets this engine as the store, with a short timeout and two attempts, so that tests of outages are fast.
    pub(crate) fn engine(self, engine: &Engine) -> Self {
        self.engine_with(engine, "timeout = \"1s\"\nattempts = 2")
    }

    /// Sets this engine as the store, with these further lines in `[store.dynamodb]`.
    pub(crate) fn engine_with(self, engine: &Engine, lines: &str) -> Self {
        self.store(&format!("[store.dynamodb]\nendpoint = \"http://{}\"\n{lines}", engine.address()))
    }

    /// Sets the whole `[store.*]` section.
    pub(crate) fn store(mut self, section: &str) -> Self {
        section.clone_into(&mut self.store);
        self
    }

    /// Adds `[upstreams.NAME]`.
    pub(crate) fn upstream(self, name: &str, upstream: &Upstream) -> Self {
        self.upstream_at(name, upstream.address(), "")
    }

    /// Adds `[upstreams.NAME]` with these further lines.
    pub(crate) fn upstream_at(self, name: &str, address: SocketAddr, lines: &str) -> Self {
        self.toml(&format!("[upstreams.{name}]\nservers = [\"http://{address}\"]\n{lines}"))
    }

    /// Adds the realm `main`: Pyramid's sessions in [`TABLE`], with these further lines. Its user claim is `user`, unless the
    /// lines begin with another `user`.
    pub(crate) fn realm(self, lines: &str) -> Self {
        let user = if lines.starts_with("user = ") { "" } else { "user = \"user\"\n" };
        self.toml(&format!("[sessions.main]\nformat = \"pyramid\"\ntable = \"{TABLE}\"\n{user}{lines}"))
    }

    /// Adds a route to the upstream `app` with the realm `main`, this access, and these further lines.
    pub(crate) fn route(self, path: &str, access: &str, lines: &str) -> Self {
        let realm = if access == "public" { "" } else { "session = \"main\"\n" };
        self.toml(&format!(
            "[[routes]]\npath = \"{path}\"\nupstream = \"app\"\naccess = \"{access}\"\n{realm}{lines}"
        ))
    }

    /// Adds sections.
    pub(crate) fn toml(mut self, sections: &str) -> Self {
        add(&mut self.rest, sections);
        self
    }

    /// Sets an environment variable of the gateway.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Writes a file beside the configuration file.
    pub(crate) fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.into(), content.into()));
        self
    }

    /// Writes a certificate and its key beside the configuration file, as `NAME.pem` and `NAME.key`.
    pub(crate) fn certificate(self, name: &str, identity: &Identity) -> Self {
        self.file(&format!("{name}.pem"), &identity.certificate).file(&format!("{name}.key"), &identity.key)
    }

    /// Sets the soft and the hard limit of open files (`RLIMIT_NOFILE`).
    pub(crate) fn open_file_limit(self, limit: u32) -> Self {
        Self { open_files: Some(format!("-n {limit}")), ..self }
    }

    /// Sets a soft limit and a hard limit of open files.
    pub(crate) fn open_file_limits(self, soft: u32, hard: u32) -> Self {
        Self { open_files: Some(format!("-n {hard} && ulimit -S -n {soft}")), ..self }
    }

    /// Starts the gateway with open sockets on these addresses, as a service manager does. `unix:NAME` is a file in the
    /// gateway's directory. A log line `{"bound": […]}` has the bound addresses.
    pub(crate) fn inherited_sockets(mut self, addresses: &[&str]) -> Self {
        self.inherited = addresses.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts the gateway and waits until it is ready.
    pub(crate) async fn start(self) -> Gateway {
        let gateway = self.spawn();
        let ready = gateway.log.wait_for_event("`ready`", |event| field(event, "message") == "ready").await;
        assert!(ready.is_some(), "the gateway did not start:\n{}", gateway.log());
        gateway
    }

    /// Starts the gateway and waits until it has exited by itself.
    pub(crate) async fn fail_to_start(self) -> StartFailure {
        let mut gateway = self.spawn();
        let status = gateway.wait().await;
        StartFailure { status, log: gateway.log() }
    }

    fn spawn(self) -> Gateway {
        let directory = directory();
        let file = directory.join("gateway.toml");
        fs::write(&file, self.text()).expect("writes the configuration");
        for (name, content) in &self.files {
            fs::write(directory.join(name), content).expect("writes a file");
        }
        let mut command = self.program();
        command.args(["serve", "--config"]).arg(&file).current_dir(&directory);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());

        for name in
            ["AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "RUST_LOG"]
        {
            command.env_remove(name);
        }
        command.envs(AWS_ENVIRONMENT).envs(&self.environment);
        let mut child = command.spawn().expect("starts the gateway");
        let log = Log { lines: Arc::default() };
        log.follow(child.stderr.take().expect("piped"));
        log.follow(child.stdout.take().expect("piped"));
        Gateway { child, successors: Vec::new(), log, address: OnceLock::new(), directory }
    }

    fn program(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_sessiongate");
        if let Some(limits) = &self.open_files {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("ulimit {limits} && exec \"$0\" \"$@\""), program]);
            return command;
        }
        if self.inherited.is_empty() {
            return Command::new(program);
        }
        let mut command = Command::new("python3");
        command.args(["-c", ACTIVATOR, &self.inherited.join(" "), program]);
        command
    }

    fn text(&self) -> String {
        let or =
            |text: &String, default: &str| if text.is_empty() { default.to_owned() } else { text.clone() };
        let mut file = String::from("[server]\nlog = \"json\"\n");
        let parts = [
            or(&self.server, "workers = 1"),
            or(&self.listeners, "[[listeners]]\naddress = \"127.0.0.1:0\""),
            or(&self.store, "[store.embedded]"),
            self.rest.clone(),
        ];
        for part in parts {
            writeln!(file, "{part}").expect("writing to a string cannot fail");
        }
        file
    }
}

impl Log {
    /// Reads a stream to its end on a separate thread, so that the gateway never blocks on a full pipe.
    fn follow(&self, stream: impl Read + Send + 'static) {
        let log = self.lines.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                log.send_modify(|log| log.lines.push(text));
                line.clear();
            }
            log.send_modify(|log| log.ended += 1);
        });
    }

    fn text(&self) -> String {
        self.lines.borrow().lines.join("\n")
    }

    /// Waits until the process has closed both streams.
    async fn wait_for_end(&self) {
        let mut lines = self.lines.subscribe();
        let _ended = lines.wait_for(|log| log.ended == 2).await.expect("the sender is alive");
    }

    /// Waits for an event that `wanted` accepts. Returns `None` if the log ended without it.
    async fn wait_for_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        self.find(what, |line| serde_json::from_str(line).ok().filter(&wanted)).await
    }

    /// Waits for a line for which `read` returns a value, and returns that. Returns `None` if the log ended without it.
    async fn find<T>(&self, what: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let find = |log: &Lines| log.lines.iter().find_map(|line| read(line));
        let mut lines = self.lines.subscribe();
        let until = lines.wait_for(|log| log.ended == 2 || find(log).is_some());
        let log = match tokio::time::timeout(super::DEADLINE, until).await {
            Ok(log) => log.expect("the sender is alive"),
            Err(_) => panic!("no {what} in time; the log:\n{}", self.text()),
        };
        find(&log)
    }
}

/// Returns a field of an event, whether the log nests the fields or not.
pub(crate) fn field<'a>(event: &'a Value, name: &str) -> &'a Value {
    event.get(name).unwrap_or(&event["fields"][name])
}

fn add(text: &mut String, lines: &str) {
    writeln!(text, "{lines}").expect("writing to a string cannot fail");
}

/// Creates a new directory for one gateway.
fn directory() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("gateway-{}-{number}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    directory
}
