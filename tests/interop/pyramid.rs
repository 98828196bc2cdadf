//! A real Pyramid app with pyramid-dynamodb-sessions behind the gateway, and beside it an app without sessions: both
//! sides read and write the same rows, and neither may notice that the other is not a copy of itself.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::app::{App, call, only_users_reach_the_reader};
use crate::support::client::{Request, Response, sorted};
use crate::support::gateway::{Builder, Gateway};
use crate::support::ministack::Ministack;
use crate::support::table;

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
    app: App,
    reader: App,
    /// Where the table is.
    table: SocketAddr,
}

impl Scenario {
    async fn run(mut self) {
        let endpoint = format!("http://{}", self.table);
        self.app.point_to(&endpoint);
        self.reader.point_to(&endpoint);
        self.log_in_and_read().await;
        let mut browser = Browser::default();
        only_users_reach_the_reader(async |target| browser.get(&self.gateway, target).await, "/app/forget")
            .await;
        self.a_change_is_seen_at_once().await;
        self.the_gateway_reissues_and_the_app_reads().await;
        self.the_app_reissues_and_the_gateway_reads().await;
        self.a_log_out_ends_it().await;
        self.the_gateway_patches_and_rotates_and_the_app_reads().await;
        self.flash_messages_go_both_ways().await;
        self.the_csrf_token_is_the_apps().await;
        self.a_change_of_an_older_session_is_refused().await;
        self.the_gateway_ends_it_for_the_app().await;
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
        // The write does not hold the answer up.
        crate::support::eventually("the reissue", || async { self.row(&browser).await != aged }).await;
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

    async fn the_gateway_patches_and_rotates_and_the_app_reads(&self) {
        let mut browser = Browser::default();
        let patch = json!({ "user": { "name": "Eve" }, "cart": [1, { "a": 0.5 }] });
        assert_eq!(browser.order(&self.gateway, &[("X-Session-Patch", &patch.to_string())]).await, 200);
        let seen = browser.get_from(self.app.address, "/app/show").await.json();
        assert_eq!((&seen["user"], &seen["cart"]), (&patch["user"], &patch["cart"]));
        // The app goes on with what the gateway has made, and the gateway with that.
        browser.get(&self.gateway, "/app/count").await;
        let planted = browser.clone();

        let log_in = [("X-Session-Patch", r#"{"user":{"name":"Grace"}}"#), ("X-Session-Action", "rotate")];
        assert_eq!(browser.order(&self.gateway, &log_in).await, 200);

        assert_ne!(browser.key(), planted.key());
        let seen = browser.get_from(self.app.address, "/app/show").await.json();
        assert_eq!((&seen["user"]["name"], &seen["count"]), (&json!("Grace"), &json!(1)));
        assert_eq!(planted.clone().get_from(self.app.address, "/app/show").await.json(), json!({}));
        assert_eq!(planted.clone().get(&self.gateway, "/reader").await.status, 401);
    }

    async fn flash_messages_go_both_ways(&self) {
        let mut browser = self.logged_in().await;
        assert_eq!(browser.order(&self.gateway, &[("X-Session-Flash", "Hello%2C Zo%C3%AB")]).await, 200);
        let popped = browser.get_from(self.app.address, "/app/flashed").await.json();
        assert_eq!(popped, json!(["Hello, Zoë"]));

        browser.get_from(self.app.address, "/app/flash?text=Saved,+100%25").await;
        let seen = browser.get(&self.gateway, "/writer").await.json();
        assert_eq!(seen["X_SESSION_FLASH"], "Saved%2C 100%25");
        assert_eq!(browser.get(&self.gateway, "/writer").await.json()["X_SESSION_FLASH"], Value::Null);
        assert_eq!(browser.get_from(self.app.address, "/app/flashed").await.json(), json!([]));
    }

    async fn the_csrf_token_is_the_apps(&self) {
        // Whoever makes the token, the other one takes it.
        let mut first = self.logged_in().await;
        let injected = first.get(&self.gateway, "/writer").await.json()["X_SESSION_CSRF"].take();
        assert_eq!(first.get_from(self.app.address, "/app/token").await.json(), injected);

        let mut browser = self.logged_in().await;
        let old = browser.get_from(self.app.address, "/app/token").await.json();
        assert_eq!(browser.get(&self.gateway, "/writer").await.json()["X_SESSION_CSRF"], old);
        assert_eq!(browser.post(&self.gateway, &old).await, 200);
        let new = browser.get_from(self.app.address, "/app/csrf").await.json()["token"].take();
        assert_eq!(browser.post(&self.gateway, &old).await, 403);
        assert_eq!(browser.post(&self.gateway, &new).await, 200);
    }

    async fn a_change_of_an_older_session_is_refused(&self) {
        let mut browser = self.logged_in().await;
        let version = browser.get(&self.gateway, "/reader").await.json()["X_SESSION_VERSION"].take();
        let version = version.as_str().unwrap();
        browser.get_from(self.app.address, "/app/rename?name=Carol").await;
        let change = |version| [("X-Session-Patch", r#"{"x":1}"#), ("X-Session-If-Version", version)];

        assert_eq!(browser.order(&self.gateway, &change(version)).await, 409);
        let now = browser.get(&self.gateway, "/reader").await.json()["X_SESSION_VERSION"].take();
        assert_eq!(browser.order(&self.gateway, &change(now.as_str().unwrap())).await, 200);
        let seen = browser.get_from(self.app.address, "/app/show").await.json();
        assert_eq!((&seen["user"]["name"], &seen["x"]), (&json!("Carol"), &json!(1)));
    }

    async fn the_gateway_ends_it_for_the_app(&self) {
        let mut browser = self.logged_in().await;
        let before = browser.clone();

        assert_eq!(browser.order(&self.gateway, &[("X-Session-Action", "destroy")]).await, 200);

        assert_eq!(browser.cookie(), "session_id=");
        assert_eq!(self.row(&before).await, Value::Null);
        assert_eq!(before.clone().get_from(self.app.address, "/app/show").await.json(), json!({}));
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
        self.send(address, Request::get(target)).await
    }

    /// Has the app without sessions order this.
    async fn order(&mut self, gateway: &Gateway, headers: &[(&str, &str)]) -> u16 {
        let encode = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
        let query: Vec<_> = headers.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        self.get(gateway, &format!("/writer?{}", query.join("&"))).await.status
    }

    /// Sends a form with this token.
    async fn post(&mut self, gateway: &Gateway, token: &Value) -> u16 {
        let form = Request::post("/writer", "x").header("X-CSRF-Token", token.as_str().unwrap());
        self.send(gateway.address(), form).await.status
    }

    async fn send(&mut self, address: SocketAddr, mut request: Request) -> Response {
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
async fn services() -> Option<(App, App)> {
    let start = || {
        let requirements = include_str!("requirements.txt");
        let app = App::python("pyramid", requirements, "app.py")?;
        Some((app, App::python("pyramid", requirements, "reader.py")?))
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn gateway(app: &App, reader: &App) -> Builder {
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

            [[routes]]
            path = "/writer"
            session = "main"
            access = "optional"
            upstream = "reader"
            writes = true
            flash = true
            csrf = true
            [routes.headers]
            X-User = "user.name"
            "#,
        )
}
