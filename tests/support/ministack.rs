//! Runs ministack, an implementation of DynamoDB's API that shares no code with the embedded engine.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, PipeReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::packages::{self, Runtime};

const PACKAGE: &str = "ministack==1.5.33";
/// Printed when the server listens.
const READY: &str = "Running on http://";
/// Timeout for starting.
const START: Duration = Duration::from_secs(60);

/// A running ministack, which is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Ministack {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Ministack {
    /// Starts ministack and waits until it listens. Returns `None` if it cannot be installed.
    pub(crate) fn start() -> Option<Self> {
        let environment = packages::install(Runtime::Python, "ministack", &[PACKAGE])?;
        let mut output = String::new();
        // Another process may bind the free port before the server does.
        for attempt in 0..3 {
            let address = free_address();
            let name = format!("ministack-{}-{}-{attempt}.log", std::process::id(), address.port());
            let log = packages::interop_directory().join(name);
            let (reader, writer) = io::pipe().expect("a pipe");
            let process = Command::new(environment.join("bin/ministack"))
                .env("SERVICES", "dynamodb,dynamodbstreams")
                .env("GATEWAY_PORT", address.port().to_string())
                .env("BIND_HOST", address.ip().to_string())
                .env("PYTHONUNBUFFERED", "1")
                .stdin(Stdio::null())
                .stdout(writer.try_clone().expect("a second handle"))
                .stderr(writer)
                .spawn()
                .expect("ministack is installed");
            let ready = copy_to_log(reader, File::create(&log).expect("a log file"));
            let server = Self { process, address, log };
            if ready.recv_timeout(START).is_ok() {
                return Some(server);
            }
            output = fs::read_to_string(&server.log).unwrap_or_default();
        }
        panic!("ministack does not start:\n{output}");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its address as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        // Wait, so that no zombie process is left.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The log of a failed test is kept.
        if !thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Copies the server's output to `log` on a separate thread, so that the server never blocks on a full pipe. Returns a
/// channel that receives a message when the server is ready and ends when its output ends.
fn copy_to_log(output: PipeReader, mut log: File) -> Receiver<()> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            log.write_all(&line).expect("the disk has room");
            if String::from_utf8_lossy(&line).contains(READY) {
                // Fails if the receiver has timed out.
                let _ = sender.send(());
            }
            line.clear();
        }
    });
    receiver
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
