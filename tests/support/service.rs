//! The real apps: Python processes behind the gateway, and the DynamoDB API that they and the gateway share.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::client::Request;
use super::python;

/// One of the Python apps; it ends with this value.
#[derive(Debug)]
pub(crate) struct Service {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Runs a script of `tests/interop`, and returns when it has told its port.
    pub(crate) fn start(environment: &Path, script: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
        let log = python::interop_directory().join(format!("{script}-{}.log", std::process::id()));
        let mut process = Command::new(environment.join("bin/python"))
            .arg(path)
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .envs([("AWS_DEFAULT_REGION", "eu-central-1"), ("AWS_CONFIG_FILE", "/dev/null")])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("python is installed");
        let mut port = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut port).expect("a line");
        let port =
            port.trim().parse().unwrap_or_else(|_| panic!("{script} does not start: see {}", log.display()));
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Tells it where DynamoDB is, which it has been waiting for.
    pub(crate) fn point_to(&mut self, endpoint: &str) {
        writeln!(self.process.stdin.as_mut().expect("piped"), "{endpoint}").expect("it reads");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// Asks DynamoDB's API directly. None of the engines here checks the signature, but it has to be there.
pub(crate) async fn call(address: SocketAddr, operation: &str, body: Value) -> Value {
    let request = Request::post("/", body.to_string())
        .header("Content-Type", "application/x-amz-json-1.0")
        .header("X-Amz-Target", &format!("DynamoDB_20120810.{operation}"))
        .header(
            "Authorization",
            concat!(
                "AWS4-HMAC-SHA256 Credential=test/20200101/eu-central-1/dynamodb/aws4_request, ",
                "SignedHeaders=host, Signature=test"
            ),
        );
    let response = request.send(address).await;
    assert_eq!(response.status, 200, "{operation}: {}", response.text());
    response.json()
}
