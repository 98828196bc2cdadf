//! Runs scripts of `tests/interop` as child processes: apps, servers and clients, which print lines.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tokio::sync::mpsc;

use super::packages::{Runtime, interop_directory};
use super::within;

/// The packages for HTTP/2 and gRPC.
const HTTP2: [&str; 4] = ["grpcio==1.85.1", "h2==4.4.1", "hyperframe==6.1.0", "hpack==4.2.0"];

/// A running script; it is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Script {
    process: Child,
    lines: mpsc::UnboundedReceiver<String>,
    /// The file that its stderr goes to.
    log: PathBuf,
}

impl Script {
    /// Starts `script` with this interpreter and these arguments.
    pub(crate) fn start(mut interpreter: Command, script: &str, arguments: &[&str]) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
        interpreter.arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let (log, file) = new_log(script);
        let mut process = interpreter.stderr(file).spawn().expect("the interpreter is installed");
        let output = BufReader::new(process.stdout.take().expect("is piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Fails if the test has ended.
                let _ = sender.send(line);
            }
        });
        Self { process, lines, log }
    }

    /// Starts a Python script with the packages for HTTP/2 and gRPC. Returns `None` if they cannot be installed.
    pub(crate) fn http2(script: &str, arguments: &[&str]) -> Option<Self> {
        Some(Self::start(Runtime::Python.command("http2", &HTTP2)?, script, arguments))
    }

    /// Starts an HTTP/2 or gRPC client that runs `case` against the server at `address`. Returns `None` if its packages
    /// cannot be installed.
    pub(crate) fn http2_client(
        script: &str,
        case: &str,
        address: SocketAddr,
        arguments: &[Value],
    ) -> Option<Self> {
        let mut all = vec![case.to_owned(), address.port().to_string()];
        all.extend(arguments.iter().map(Value::to_string));
        Self::http2(script, &all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Waits for its next line.
    pub(crate) async fn next_line(&mut self) -> String {
        match within("a line of a script", self.lines.recv()).await {
            Some(line) => line,
            None => panic!("the script ended: {}", fs::read_to_string(&self.log).unwrap_or_default()),
        }
    }

    /// Waits for its next line and parses it as JSON.
    pub(crate) async fn next_json(&mut self) -> Value {
        let line = self.next_line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends it a line.
    pub(crate) fn send_line(&mut self, line: &str) {
        writeln!(self.process.stdin.as_mut().expect("is piped"), "{line}").expect("the script reads");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
        // The log of a failed test is kept.
        if !std::thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Creates a log file for one run of `script`.
fn new_log(script: &str) -> (PathBuf, File) {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let log = interop_directory().join(format!("{script}-{}-{number}.log", std::process::id()));
    let file = File::create(&log).expect("a log file");
    (log, file)
}
