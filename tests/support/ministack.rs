//! ministack, an implementation of DynamoDB's API that shares nothing with the embedded engine.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::python;

const PACKAGE: &str = "ministack==1.5.33";
const POLL: Duration = Duration::from_millis(50);
const POLLS: u32 = 600;

/// A running ministack. It ends with this value, also when a test panics.
#[derive(Debug)]
pub(crate) struct Ministack {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Ministack {
    /// Starts one, and returns when it takes connections. None where it cannot be installed.
    pub(crate) fn start() -> Option<Self> {
        let environment = python::environment("ministack", &[PACKAGE])?;
        // Between finding a free port and the server's binding it, somebody else may be faster.
        for attempt in 0..3 {
            let address = free_address();
            let name = format!("ministack-{}-{}-{attempt}.log", std::process::id(), address.port());
            let path = python::interop_directory().join(name);
            let log = File::create(&path).expect("a log file");
            let process = Command::new(environment.join("bin/ministack"))
                .env("SERVICES", "dynamodb,dynamodbstreams")
                .env("GATEWAY_PORT", address.port().to_string())
                .env("BIND_HOST", address.ip().to_string())
                .stdin(Stdio::null())
                .stdout(log.try_clone().expect("a second handle"))
                .stderr(log)
                .spawn()
                .expect("ministack is installed");
            let mut server = Self { process, address, log: path };
            if server.is_up() {
                return Some(server);
            }
        }
        panic!("ministack does not start: see {}", python::interop_directory().display());
    }

    /// Where it is, as a URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn is_up(&mut self) -> bool {
        for _ in 0..POLLS {
            if self.process.try_wait().expect("our own child").is_some() {
                return false;
            }
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            thread::sleep(POLL);
        }
        false
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

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}
