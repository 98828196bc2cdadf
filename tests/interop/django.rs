//! A real Django app behind the gateway, and beside it an app without sessions. Django's own code signs the rows, logs in
//! and checks the log-in; the gateway reads and reissues them, and neither may notice that the other is not a copy of
//! itself.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sessiongate::config::{DynamodbConfig, KeysConfig};
use sessiongate::format::django::Django;
use sessiongate::format::{ChangeTimes, Format};
use sessiongate::item::{Key, KeyType};
use sessiongate::secret::Secret;
use sessiongate::store::table::{Read, Written};
use sessiongate::store::{StaticCredentials, Store};
use sessiongate::time::Clock;

use crate::support::app::{App, Rows, call, only_users_reach_the_reader};
use crate::support::client::{Request, Response, sorted};
use crate::support::gateway::{Builder, Gateway};
use crate::support::ministack::Ministack;
use crate::support::within;

/// The app's.
const SECRET_KEY: &str = "interop-secret-key-0123456789abcdefghijklmnopqrstuvwxyz";
const TWO_WEEKS: Duration = Duration::from_hours(14 * 24);

#[tokio::test]
async fn a_django_app_and_a_reader_share_sessions_in_ministack() {
    let Some(ministack) = tokio::task::spawn_blocking(Ministack::start).await.unwrap() else { return };
    let Some((app, reader)) = services().await else { return };
    let endpoint = ministack.endpoint();
    let address = endpoint.strip_prefix("http://").unwrap().parse().unwrap();
    Rows { address, table: "sessions", key: "session_key" }.create().await;
    let gateway = gateway(&app, &reader)
        .store(&format!("[store.dynamodb]\nendpoint = \"{endpoint}\"\ntimeout = \"5s\""))
        .start()
        .await;

    Scenario { gateway, app, reader, table: address }.run().await;
}

#[tokio::test]
async fn a_django_app_and_a_reader_share_sessions_in_the_embedded_engine() {
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
        only_users_reach_the_reader(async |target| browser.get(&self.gateway, target).await, "/app/logout")
            .await;
        self.a_change_is_seen_at_once().await;
        self.the_gateway_reissues_and_django_reads().await;
        self.what_the_app_gave_an_expiry_is_left_to_it().await;
        self.a_change_by_the_gateway_is_one_that_django_reads().await;
        self.a_log_out_ends_it().await;
    }

    async fn log_in_and_read(&self) {
        let mut browser = Browser::default();
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 401);

        browser.get(&self.gateway, "/app/login?name=Zo%C3%AB").await;
        let seen = browser.get(&self.gateway, "/reader").await.json();

        assert_eq!(seen["X_USER"], "Zo%C3%AB");
        assert_eq!(seen["X_ROLES"], "admin,staff");
        assert_eq!(
            seen["X_ID"],
            browser.get(&self.gateway, "/app/show").await.json()["session"]["_auth_user_id"]
        );
        assert_eq!(seen["X_SESSION_STATUS"], "active");
        let saved = self.read(&browser).await.issued;
        assert_eq!(seen["X_SESSION_EXPIRES"], saved.plus(TWO_WEEKS).as_secs().to_string());
        assert_eq!(browser.get(&self.gateway, "/app/show").await.json()["user"], "Zoë");
    }

    async fn a_change_is_seen_at_once(&self) {
        let mut browser = self.logged_in().await;
        for count in ["1", "2", "3"] {
            browser.get(&self.gateway, "/reader").await;
            browser.get(&self.gateway, "/app/count").await;
            assert_eq!(browser.get(&self.gateway, "/reader").await.json()["X_COUNT"], count);
        }
    }

    async fn the_gateway_reissues_and_django_reads(&self) {
        let mut browser = self.logged_in().await;
        browser.get_from(self.app.address, "/app/age?seconds=7200").await;
        let aged = self.row(&browser).await;
        let before = self.read(&browser).await;

        let response = browser.get(&self.gateway, "/reader").await;

        assert_eq!(response.json()["X_USER"], "Alice");
        let sent: Vec<_> = response.set_cookies().into_iter().map(sorted).collect();
        let cookie = browser.cookie();
        assert_eq!(sent, [format!("{cookie}; HttpOnly; Max-Age=1209600; Path=/; SameSite=Lax")]);
        // The write does not hold the answer up.
        within("the reissue", async { while self.row(&browser).await == aged {} }).await;
        let after = self.read(&browser).await;
        assert!(after.issued >= before.issued.plus(Duration::from_secs(7200)), "{after:?}");
        assert_eq!(
            (&after.claims, after.version, after.created),
            (&before.claims, before.version, before.created)
        );
        let packed = |row: &Value| row["data"]["S"].as_str().unwrap().split_once(':').unwrap().0.to_owned();
        assert_eq!(packed(&self.row(&browser).await), packed(&aged));
        let direct = browser.get_from(self.app.address, "/app/show").await.json();
        assert_eq!((&direct["user"], &direct["session"]["name"]), (&json!("Alice"), &json!("Alice")));
        // What the gateway remembers of its own write is what the next one is conditional on, and nothing is due.
        assert!(browser.get(&self.gateway, "/reader").await.set_cookies().is_empty());
    }

    async fn what_the_app_gave_an_expiry_is_left_to_it(&self) {
        let mut browser = self.logged_in().await;
        browser.get(&self.gateway, "/app/expiry?seconds=86400").await;
        browser.get_from(self.app.address, "/app/age?seconds=7200").await;
        let row = self.row(&browser).await;

        let response = browser.get(&self.gateway, "/reader").await;

        assert_eq!(response.status, 200);
        assert!(response.set_cookies().is_empty(), "{:?}", response.set_cookies());
        assert_eq!(self.row(&browser).await, row);

        let mut late = self.logged_in().await;
        late.get(&self.gateway, "/app/expiry?seconds=3600").await;
        late.get_from(self.app.address, "/app/age?seconds=7200").await;
        assert_eq!(late.get(&self.gateway, "/reader").await.status, 401);
    }

    async fn a_change_by_the_gateway_is_one_that_django_reads(&self) {
        let mut browser = self.logged_in().await;
        let table = self.open().await.table("sessions", "session_key", KeyType::String);
        let item = table.get(&browser.key(), Read::Strong).await.unwrap().unwrap();
        let record = format().decode(&item).unwrap();
        for text in ["short", &"long ".repeat(500), "Zoë ☃ 😀 \"\\\n\u{7f}"] {
            let item = table.get(&browser.key(), Read::Strong).await.unwrap().unwrap();
            let current = format().decode(&item).unwrap();
            let mut claims = current.claims.clone();
            claims.insert("text".to_owned(), json!(text));
            claims.insert("float".to_owned(), json!(1e16));
            let now = Clock.now().wall;
            let change = format().change(&current, claims, ChangeTimes { now, expires: now.plus(TWO_WEEKS) });
            let change = change.unwrap();
            assert_eq!(table.update(&browser.key(), &change.update).await.unwrap(), Written::Done);

            let seen = browser.get_from(self.app.address, "/app/show").await.json();
            assert_eq!((&seen["user"], &seen["session"]["text"]), (&json!("Alice"), &json!(text)));
            assert_eq!(seen["session"], Value::Object(change.record.claims.clone()));
            assert_eq!(self.read(&browser).await, change.record);
        }
        // Who has read the row before that does not write over it.
        let now = Clock.now().wall;
        let times = ChangeTimes { now, expires: now.plus(TWO_WEEKS) };
        let stale = format().change(&record, record.claims.clone(), times).unwrap();
        assert!(matches!(
            table.update(&browser.key(), &stale.update).await.unwrap(),
            Written::Refused(Some(_))
        ));
    }

    async fn a_log_out_ends_it(&self) {
        let mut browser = self.logged_in().await;
        let before = browser.clone();
        browser.get(&self.gateway, "/reader").await;

        browser.get(&self.gateway, "/app/logout").await;

        assert_eq!(browser.cookie, None);
        assert_eq!(self.row(&before).await, Value::Null);
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 401);
        assert_eq!(before.clone().get(&self.gateway, "/reader").await.status, 401);
    }

    /// A browser in which Alice has just logged in.
    async fn logged_in(&self) -> Browser {
        let mut browser = Browser::default();
        browser.get(&self.gateway, "/app/login?name=Alice").await;
        browser
    }

    async fn row(&self, browser: &Browser) -> Value {
        let key =
            json!({ "session_key": browser.key().to_attribute().as_str() .map(|key| json!({ "S": key })) });
        let request = json!({ "TableName": "sessions", "Key": key, "ConsistentRead": true });
        call(self.table, "GetItem", request).await["Item"].take()
    }

    /// The row as the gateway reads it.
    async fn read(&self, browser: &Browser) -> sessiongate::format::SessionRecord {
        let table = self.open().await.table("sessions", "session_key", KeyType::String);
        format().decode(&table.get(&browser.key(), Read::Strong).await.unwrap().unwrap()).unwrap()
    }

    async fn open(&self) -> Store {
        let config = DynamodbConfig {
            region: Some("eu-central-1".to_owned()),
            profile: None,
            role_arn: None,
            endpoint: Some(format!("http://{}", self.table)),
            timeout: Duration::from_secs(5),
            attempts: 3,
        };
        let credentials =
            StaticCredentials { access_key_id: "test".to_owned(), secret_access_key: Secret::new(*b"test") };
        Store::connect(&config, Some(credentials)).await.unwrap()
    }
}

fn format() -> Django {
    let keys = KeysConfig { current: Secret::new(SECRET_KEY.as_bytes()), previous: vec![] };
    Django::new("session_key", Some(&keys), TWO_WEEKS, true)
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
        assert!(response.status < 500, "{target}: {}", response.text());
        for set_cookie in response.set_cookies() {
            let cookie = set_cookie.split(';').next().unwrap_or_default();
            assert!(cookie.starts_with("sessionid="), "{set_cookie}");
            self.cookie = (!set_cookie.contains("Max-Age=0")).then(|| cookie.to_owned());
        }
        response
    }

    /// `sessionid=KEY`
    fn cookie(&self) -> &str {
        self.cookie.as_deref().expect("a session")
    }

    fn key(&self) -> Key {
        Key::string(self.cookie().strip_prefix("sessionid=").unwrap())
    }
}

/// The app and the reader; `None` where they cannot be installed.
async fn services() -> Option<(App, App)> {
    let start = || {
        let requirements = include_str!("requirements-django.txt");
        let app = App::python("django", requirements, "django_app.py")?;
        Some((app, App::python("django", requirements, "reader.py")?))
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

fn gateway(app: &App, reader: &App) -> Builder {
    Gateway::builder()
        .server("workers = 2")
        .env("DJANGO_SECRET_KEY", SECRET_KEY)
        .upstream_at("app", app.address, "")
        .upstream_at("reader", reader.address, "")
        // Rows stay cached for the whole test: what is seen at once is not seen because the cache forgot.
        .toml(
            r#"
            [sessions.main]
            format = "django"
            [sessions.main.keys]
            current = { env = "DJANGO_SECRET_KEY" }
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
            X-User = "name"
            X-Id = "_auth_user_id"
            X-Roles = { claim = "roles", join = "," }
            X-Count = "count"
            "#,
        )
}
