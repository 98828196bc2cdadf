//! A real Pyramid app with pyramid-dynamodb-sessions behind the gateway, and beside it an app without sessions: both
//! sides read and write the same rows, and neither may notice that the other is not a copy of itself.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "test code: a panic is how a test fails"
)]

mod support;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use support::client::{Request, Response, sorted};
use support::gateway::{Builder, Gateway};
use support::ministack::Ministack;
use support::service::{Service, call};
use support::{python, table};

#[tokio::test]
async fn a_pyramid_app_and_a_reader_share_sessions_in_ministack() {
    let Some(ministack) = tokio::task::spawn_blocking(Ministack::start).await.unwrap() else { return };
    let Some((app, reader)) = services().await else { return };
    let endpoint = ministack.endpoint();
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    call(address, "CreateTable", table::schema()).await;
    let gateway = gateway(&app, &reader)
        .store(&format!("[store.dynamodb]\nendpoint = \"{endpoint}\"\ntimeout = \"5s\""))
        .start()
        .await;

    Scenario { gateway, app, reader, table: address }.run().await;
}

#[tokio::test]
async fn a_pyramid_app_and_a_reader_share_sessions_in_the_embedded_engine() {
    let Some((app, reader)) = services().await else { return };
    let gateway = gateway(&app, &reader).store("[store.embedded]\nlisten = \"127.0.0.1:0\"").start().await;
    let address = gateway.addresses("dynamodb")[0];

    Scenario { gateway, app, reader, table: address }.run().await;
}

struct Scenario {
    gateway: Gateway,
    app: Service,
    reader: Service,
    /// Where the table is.
    table: SocketAddr,
}

impl Scenario {
    async fn run(mut self) {
        let endpoint = format!("http://{}", self.table);
        self.app.point_to(&endpoint);
        self.reader.point_to(&endpoint);
        self.log_in_and_read().await;
        self.a_change_is_seen_at_once().await;
        self.the_gateway_reissues_and_the_app_reads().await;
        self.the_app_reissues_and_the_gateway_reads().await;
        self.a_log_out_ends_it().await;
    }

    async fn log_in_and_read(&self) {
        let mut browser = Browser::default();
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 401);

        browser.get(&self.gateway, "/app/login?name=Zo%C3%AB").await;
        let seen = browser.get(&self.gateway, "/reader").await.json();

        assert_eq!(seen["X_USER"], "Zo%C3%AB");
        assert_eq!(seen["X_ROLES"], "admin,staff");
        assert_eq!(seen["X_SESSION_STATUS"], "active");
        assert_eq!(seen["X_SESSION_VERSION"], "1");
        // The app, which owns its sessions, reads its own cookie behind the gateway as it would without it.
        assert_eq!(browser.get(&self.gateway, "/app/show").await.json()["user"]["name"], "Zoë");
    }

    async fn a_change_is_seen_at_once(&self) {
        let mut browser = self.logged_in().await;
        for name in ["Bob", "Carol", "Dave"] {
            // The read before warms the cache of this worker or that one; the cookie says that it is out of date.
            browser.get(&self.gateway, "/reader").await;
            browser.get(&self.gateway, &format!("/app/rename?name={name}")).await;
            for _ in 0..4 {
                assert_eq!(browser.get(&self.gateway, "/reader").await.json()["X_USER"], name);
            }
        }
        browser.get(&self.gateway, "/app/count").await;
        assert_eq!(browser.get(&self.gateway, "/app/count").await.json()["count"], 2);
        assert_eq!(browser.get(&self.gateway, "/reader").await.json()["X_COUNT"], "2");
        browser.get(&self.gateway, "/app/flash?text=hello").await;
        assert_eq!(browser.get(&self.gateway, "/app/flashed").await.json(), json!(["hello"]));
        assert_eq!(browser.get(&self.gateway, "/app/flashed").await.json(), json!([]));
        let csrf = browser.get(&self.gateway, "/app/csrf").await.json();
        assert_eq!(csrf["token"], csrf["kept"]);
    }

    async fn the_gateway_reissues_and_the_app_reads(&self) {
        let mut browser = self.logged_in().await;
        let aged = self.age(&browser).await;

        let response = browser.get(&self.gateway, "/reader").await;

        let sent: Vec<_> = response.set_cookies().into_iter().map(sorted).collect();
        assert_eq!(sent, [format!("{}; HttpOnly; Path=/; SameSite=Strict", browser.cookie())]);
        let row = self.row(&browser).await;
        assert!(table::number(&row, "iss") > table::number(&aged, "iss") + 200, "{row}");
        assert_eq!(table::number(&row, "exp") - table::number(&row, "iss"), 1200);
        assert_eq!((&row["ver"], &row["dat"]), (&aged["ver"], &aged["dat"]));
        // The app finds nothing due, and reads what it wrote.
        let direct = browser.get_from(self.app.address, "/app/show").await;
        assert_eq!(direct.json()["user"]["name"], "Alice");
        assert!(direct.set_cookies().is_empty());
    }

    async fn the_app_reissues_and_the_gateway_reads(&self) {
        let mut browser = self.logged_in().await;
        browser.get(&self.gateway, "/reader").await;
        self.age(&browser).await;

        let direct = browser.get_from(self.app.address, "/app/show").await;
        assert_eq!(direct.set_cookies().len(), 1);
        let reissued = self.row(&browser).await;
        let response = browser.get(&self.gateway, "/reader").await;

        assert_eq!(response.json()["X_USER"], "Alice");
        assert_eq!(self.row(&browser).await, reissued);

        // Where both find it due at once, the browser gets one cookie.
        self.age(&browser).await;
        let both = browser.get(&self.gateway, "/app/show").await;
        assert_eq!(both.set_cookies().len(), 1, "{:?}", both.set_cookies());
        assert_eq!(both.json()["user"]["name"], "Alice");
    }

    async fn a_log_out_ends_it(&self) {
        let mut browser = self.logged_in().await;
        let before = browser.clone();
        browser.get(&self.gateway, "/reader").await;

        browser.get(&self.gateway, "/app/logout").await;

        assert_eq!(self.row(&browser).await["dat"]["S"], "{}");
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 401);
        // The app answers through the gateway, so the gateway has seen the session change: nobody can go on with the
        // cookie from before either.
        assert_eq!(before.clone().get(&self.gateway, "/reader").await.status, 401);
    }

    /// A browser in which Alice has just logged in.
    async fn logged_in(&self) -> Browser {
        let mut browser = Browser::default();
        browser.get(&self.gateway, "/app/login?name=Alice").await;
        browser
    }

    /// Makes it five minutes ago that the session was last active.
    async fn age(&self, browser: &Browser) -> Value {
        let request = json!({
            "TableName": table::TABLE,
            "Key": browser.key(),
            "UpdateExpression": "SET iss = iss - :age, #exp = #exp - :age",
            "ExpressionAttributeNames": { "#exp": "exp" },
            "ExpressionAttributeValues": { ":age": { "N": "300" } },
            "ReturnValues": "ALL_NEW",
        });
        call(self.table, "UpdateItem", request).await["Attributes"].take()
    }

    async fn row(&self, browser: &Browser) -> Value {
        let request = json!({ "TableName": table::TABLE, "Key": browser.key(), "ConsistentRead": true });
        call(self.table, "GetItem", request).await["Item"].take()
    }
}

/// A browser that keeps the session cookie.
#[derive(Clone, Default)]
struct Browser {
    cookie: Option<String>,
}

impl Browser {
    async fn get(&mut self, gateway: &Gateway, target: &str) -> Response {
        self.get_from(gateway.address(), target).await
    }

    async fn get_from(&mut self, address: SocketAddr, target: &str) -> Response {
        let mut request = Request::get(target);
        if let Some(cookie) = &self.cookie {
            request = request.cookie(cookie);
        }
        let response = request.send(address).await;
        for set_cookie in response.set_cookies() {
            let cookie = set_cookie.split(';').next().unwrap_or_default();
            assert!(cookie.starts_with("session_id="), "{set_cookie}");
            self.cookie = Some(cookie.to_owned());
        }
        response
    }

    /// `session_id=ID/VERSION`
    fn cookie(&self) -> &str {
        self.cookie.as_deref().expect("a session")
    }

    fn key(&self) -> Value {
        let value = self.cookie().strip_prefix("session_id=").unwrap();
        let (id, _version) = value.split_once('/').unwrap();
        json!({ "sid": { "B": BASE64_STANDARD.encode(Sha256::digest(id)) } })
    }
}

/// The app and the reader; `None` where they cannot be installed.
async fn services() -> Option<(Service, Service)> {
    let start = || {
        let requirements: Vec<_> = include_str!("interop/requirements.txt").lines().collect();
        let environment = python::environment("pyramid", &requirements)?;
        Some((Service::start(&environment, "app.py"), Service::start(&environment, "reader.py")))
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn gateway(app: &Service, reader: &Service) -> Builder {
    Gateway::builder()
        .server("workers = 2")
        .upstream_at("app", app.address, "")
        .upstream_at("reader", reader.address, "")
        // Rows stay cached for the whole test: what is seen at once is not seen because the cache forgot.
        .toml(
            r#"
            [sessions.main]
            format = "pyramid"
            table = "sessions"
            [sessions.main.cache]
            ttl = "1m"

            [[routes]]
            path = "/app"
            session = "main"
            access = "optional"
            upstream = "app"

            [[routes]]
            path = "/reader"
            session = "main"
            access = "required"
            upstream = "reader"
            [routes.headers]
            X-User = "user.name"
            X-Roles = { claim = "roles", join = "," }
            X-Count = "count"
            "#,
        )
}
