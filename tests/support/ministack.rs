//! ministack, an implementation of DynamoDB's API that shares nothing with the embedded engine.

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
/// What it says once it listens.
const READY: &str = "Running on http://";
/// How long that may take.
const START: Duration = Duration::from_secs(60);

/// A running ministack. It ends with this value, also when a test panics.
#[derive(Debug)]
pub(crate) struct Ministack {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Ministack {
    /// Starts one, and returns when it says that it listens. None where it cannot be installed.
    pub(crate) fn start() -> Option<Self> {
        let environment = packages::install(Runtime::Python, "ministack", &[PACKAGE])?;
        let mut said = String::new();
        // Between finding a free port and the server's binding it, somebody else may be faster.
        for attempt in 0..3 {
            let address = free_address();
            let name = format!("ministack-{}-{}-{attempt}.log", std::process::id(), address.port());
            let log = packages::interop_directory().join(name);
            let (output, input) = io::pipe().expect("a pipe");
            let process = Command::new(environment.join("bin/ministack"))
                .env("SERVICES", "dynamodb,dynamodbstreams")
                .env("GATEWAY_PORT", address.port().to_string())
                .env("BIND_HOST", address.ip().to_string())
                .env("PYTHONUNBUFFERED", "1")
                .stdin(Stdio::null())
                .stdout(input.try_clone().expect("a second handle"))
                .stderr(input)
                .spawn()
                .expect("ministack is installed");
            let ready = follow(output, File::create(&log).expect("a log file"));
            let server = Self { process, address, log };
            if ready.recv_timeout(START).is_ok() {
                return Some(server);
            }
            said = fs::read_to_string(&server.log).unwrap_or_default();
        }
        panic!("ministack does not start:\n{said}");
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        // By its own process id, and waited for, so that no zombie keeps the port.
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Kept where somebody will want to read it.
        if !thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Writes what it says to `log`, on a thread of its own so that it never waits for a full pipe, and tells when it is
/// ready; whoever waits for that learns from the channel's end that it never will be.
fn follow(output: PipeReader, mut log: File) -> Receiver<()> {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            log.write_all(&line).expect("the disk has room");
            if String::from_utf8_lossy(&line).contains(READY) {
                // Nobody may be waiting any more.
                let _ = tell.send(());
            }
            line.clear();
        }
    });
    told
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
