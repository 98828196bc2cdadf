//! Apps, which run as child processes, and a browser.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::client::{Request, Response};
use crate::support::packages::Runtime;
use crate::support::program::AWS_ENVIRONMENT;
use crate::support::script::Script;

/// A running app; it is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct App {
    script: Script,
    pub(crate) address: SocketAddr,
}

impl App {
    /// Starts a script of this directory with `packages`, which are installed under `name`. The app listens; one
    /// that reads DynamoDB's address responds only after [`App::point_to`]. Returns `None` if the packages cannot be
    /// installed.
    pub(crate) async fn start(runtime: Runtime, name: &str, packages: &[&str], script: &str) -> Option<Self> {
        let mut interpreter = runtime.command(name, packages)?;
        interpreter.envs(AWS_ENVIRONMENT).env("AWS_DEFAULT_REGION", "eu-central-1");
        let mut script = Script::start(interpreter, script, &[]);
        let port = script.next_line().await.parse().expect("a port");
        Some(Self { script, address: SocketAddr::from(([127, 0, 0, 1], port)) })
    }

    /// Tells the app the address of DynamoDB's API.
    pub(crate) fn point_to(&mut self, dynamodb: SocketAddr) {
        self.script.send_line(&format!("http://{dynamodb}"));
    }
}

/// A browser that stores the cookie of one name.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    name: &'static str,
    /// `NAME=VALUE`
    pub(crate) cookie: Option<String>,
}

impl Browser {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, cookie: None }
    }

    pub(crate) async fn get(&mut self, address: SocketAddr, target: &str) -> Response {
        self.send(address, Request::get(target)).await
    }

    /// Sends a form with this CSRF token.
    pub(crate) async fn post(&mut self, address: SocketAddr, target: &str, token: &Value) -> Response {
        let form = Request::post(target, "x").header("X-CSRF-Token", token.as_str().expect("a token"));
        self.send(address, form).await
    }

    async fn send(&mut self, address: SocketAddr, mut request: Request) -> Response {
        if let Some(cookie) = &self.cookie {
            request = request.cookie(cookie);
        }
        let response = request.send(address).await;
        assert!(response.status < 500, "{}: {}", response.status, response.text());
        for set_cookie in response.set_cookies() {
            let cookie = set_cookie.split(';').next().unwrap_or_default();
            assert!(cookie.starts_with(&format!("{}=", self.name)), "{set_cookie}");
            self.cookie = (!set_cookie.contains("Max-Age=0")).then(|| cookie.to_owned());
        }
        response
    }

    /// Returns the value of the cookie.
    pub(crate) fn value(&self) -> &str {
        let cookie = self.cookie.as_deref().expect("a session");
        cookie.split_once('=').expect("a cookie").1
    }
}
