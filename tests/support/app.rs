//! Real apps as children of the test: each tells its port on a line of its own, and then waits to be told where
//! DynamoDB is.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::client::{Request, Response};
use super::gateway::Gateway;
use super::{node, python};

/// An app; it ends with this value.
#[derive(Debug)]
pub(crate) struct App {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl App {
    /// A script of `tests/interop` in the virtual environment `name` of the packages in `requirements`. It has told its
    /// port, and waits to be told where DynamoDB is.
    pub(crate) fn python(name: &str, requirements: &str, script: &str) -> Option<Self> {
        let requirements: Vec<_> = requirements.lines().collect();
        let environment = python::environment(name, &requirements)?;
        let mut command = Command::new(environment.join("bin/python"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Some(Self::start(command, script))
    }

    /// A script of `tests/interop` with the packages in `requirements`.
    pub(crate) fn node(name: &str, requirements: &str, script: &str) -> Option<Self> {
        let requirements: Vec<_> = requirements.lines().collect();
        let modules = node::modules(name, &requirements)?;
        let mut command = Command::new("node");
        command.env("NODE_PATH", modules);
        Some(Self::start(command, script))
    }

    fn start(mut command: Command, script: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
        let log = python::interop_directory().join(format!("{script}-{}.log", std::process::id()));
        let mut process = command
            .arg(path)
            .envs([("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")])
            .envs([("AWS_DEFAULT_REGION", "eu-central-1"), ("AWS_REGION", "eu-central-1")])
            .env("AWS_CONFIG_FILE", "/dev/null")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("a log file"))
            .spawn()
            .expect("it is installed");
        let mut port = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut port).expect("a line");
        let port = port.trim().parse();
        let port = port.unwrap_or_else(|_| panic!("{script} does not start: see {}", log.display()));
        Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Tells it where DynamoDB is.
    pub(crate) fn point_to(&mut self, endpoint: &str) {
        writeln!(self.process.stdin.as_mut().expect("piped"), "{endpoint}").expect("it reads");
    }

    /// The same, in one go.
    pub(crate) fn pointed_to(mut self, endpoint: &str) -> Self {
        self.point_to(endpoint);
        self
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A browser that keeps the cookie of one name.
#[derive(Clone)]
pub(crate) struct Browser {
    name: &'static str,
    pub(crate) cookie: Option<String>,
}

impl Browser {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, cookie: None }
    }

    pub(crate) async fn get(&mut self, gateway: &Gateway, target: &str) -> Response {
        self.get_from(gateway.address(), target).await
    }

    pub(crate) async fn get_from(&mut self, address: SocketAddr, target: &str) -> Response {
        let mut request = Request::get(target);
        if let Some(cookie) = &self.cookie {
            request = request.cookie(cookie);
        }
        let response = request.send(address).await;
        for set_cookie in response.set_cookies() {
            let cookie = set_cookie.split(';').next().unwrap_or_default();
            assert!(cookie.starts_with(&format!("{}=", self.name)), "{set_cookie}");
            self.cookie = Some(cookie.to_owned());
        }
        response
    }

    /// The cookie's value.
    pub(crate) fn value(&self) -> &str {
        let cookie = self.cookie.as_deref().expect("a session");
        cookie.split_once('=').expect("a cookie").1
    }
}

/// A table, over DynamoDB's API.
pub(crate) struct Rows {
    pub(crate) address: SocketAddr,
    pub(crate) table: &'static str,
    pub(crate) key: &'static str,
}

impl Rows {
    pub(crate) async fn create(&self) {
        let schema = json!({
            "TableName": self.table,
            "AttributeDefinitions": [{ "AttributeName": self.key, "AttributeType": "S" }],
            "KeySchema": [{ "AttributeName": self.key, "KeyType": "HASH" }],
            "BillingMode": "PAY_PER_REQUEST",
        });
        self.call("CreateTable", schema).await;
    }

    pub(crate) async fn get(&self, key: &str) -> Value {
        let request = json!({ "TableName": self.table, "Key": self.named(key), "ConsistentRead": true });
        self.call("GetItem", request).await["Item"].take()
    }

    /// Sets one attribute.
    pub(crate) async fn set(&self, key: &str, attribute: &str, value: Value) {
        let request = json!({
            "TableName": self.table,
            "Key": self.named(key),
            "UpdateExpression": "SET #a = :a",
            "ExpressionAttributeNames": { "#a": attribute },
            "ExpressionAttributeValues": { ":a": value },
        });
        self.call("UpdateItem", request).await;
    }

    fn named(&self, key: &str) -> Value {
        json!({ self.key: { "S": key } })
    }

    pub(crate) async fn call(&self, operation: &str, body: Value) -> Value {
        call(self.address, operation, body).await
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

/// Walks a visitor through an app that gives sessions to guests, too: only a user who is logged in reaches the reader.
/// `get` keeps the cookie, and `log_out` is the app's path that logs out.
pub(crate) async fn only_users_reach_the_reader(mut get: impl AsyncFnMut(&str) -> Response, log_out: &str) {
    let steps = [
        ("/reader", 401, "a visitor without a session"),
        ("/app/visit", 200, "the app makes a session"),
        ("/reader", 401, "a guest"),
        ("/app/login?name=Alice", 200, "the guest logs in"),
        ("/reader", 200, "a user"),
        (log_out, 200, "the user logs out"),
        ("/reader", 401, "nobody is logged in any more"),
        ("/app/visit", 200, "the app makes another session, or goes on with the same"),
        ("/reader", 401, "a guest again"),
        ("/app/login?name=Alice", 200, "the guest logs in again"),
        ("/reader", 200, "a user again"),
    ];
    for (target, expected, who) in steps {
        let response = get(target).await;
        assert_eq!(response.status, expected, "{target}: {who}: {}", response.text());
    }
}
