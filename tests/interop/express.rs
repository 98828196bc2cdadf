//! A real Express app with express-session and connect-dynamodb behind the gateway, and beside it an app without
//! sessions. Both sides read and write the same rows in ministack.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sessiongate::config::environment::Environment;
use sessiongate::config::parse;
use sessiongate::format::{self, ChangeTimes, Format, WriteCondition};
use sessiongate::item::{Attribute, Item, Number};
use sessiongate::time::Timestamp;

use crate::support::app::{App, Browser, Rows, only_users_reach_the_reader};
use crate::support::gateway::Gateway;
use crate::support::ministack::Ministack;
use crate::support::table::now;

const PACKAGES: &str = include_str!("express-packages.txt");
const REALM: &str = r#"
    [sessions.main]
    format = "express"
    [sessions.main.keys]
    current = { env = "EXPRESS_SECRET" }
    [sessions.main.cookie]
    max_age = "1h"
    [sessions.main.cache]
    ttl = "0s"
"#;
const ROUTES: &str = r#"
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
"#;

#[tokio::test]
async fn an_express_app_and_a_reader_share_sessions() {
    let Some(ministack) = tokio::task::spawn_blocking(Ministack::start).await.unwrap() else { return };
    let endpoint = ministack.endpoint();
    let rows = Rows {
        address: endpoint.strip_prefix("http://").unwrap().parse().unwrap(),
        table: "sessions",
        key: "id",
    };
    rows.create().await;
    let given = endpoint.clone();
    let apps = move || {
        let app = App::node("express", PACKAGES, "express_app.js")?.pointed_to(&given);
        let pyramid = include_str!("requirements.txt");
        Some((app, App::python("pyramid", pyramid, "reader.py")?.pointed_to(&given)))
    };
    let Some((app, reader)) = tokio::task::spawn_blocking(apps).await.unwrap() else { return };
    let gateway = Gateway::builder()
        .upstream_at("app", app.address, "")
        .upstream_at("reader", reader.address, "")
        .store(&format!("[store.dynamodb]\nendpoint = \"{endpoint}\"\ntimeout = \"5s\""))
        .env("EXPRESS_SECRET", "keyboard cat")
        .toml(&format!("{REALM}{ROUTES}"))
        .start()
        .await;
    let scenario = Scenario { gateway, app, rows };

    scenario.log_in_and_read().await;
    let mut browser = Browser::new("connect.sid");
    only_users_reach_the_reader(async |target| browser.get(&scenario.gateway, target).await, "/app/forget")
        .await;
    scenario.the_gateway_reissues_and_the_app_reads().await;
    scenario.a_change_of_ours_is_read_by_the_app().await;
    scenario.a_log_out_ends_it().await;
}

struct Scenario {
    gateway: Gateway,
    app: App,
    rows: Rows,
}

impl Scenario {
    async fn log_in_and_read(&self) {
        let mut browser = Browser::new("connect.sid");
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 401);

        let id = self.log_in(&mut browser).await;
        let seen = browser.get(&self.gateway, "/reader").await.json();

        assert_eq!((&seen["X_USER"], &seen["X_ROLES"]), (&json!("Zo%C3%AB"), &json!("admin,staff")));
        assert_eq!(seen["X_SESSION_STATUS"], "active");
        assert_eq!(browser.get(&self.gateway, "/app/show").await.json()["user"]["name"], "Zoë");
        browser.get(&self.gateway, "/app/rename?name=Bob").await;
        assert_eq!(browser.get(&self.gateway, "/reader").await.json()["X_USER"], "Bob");
        // The cookie that the gateway would make of the id is the one that express-session made.
        let format = express();
        let parsed = format.parse_cookie(browser.value().as_bytes()).unwrap();
        assert_eq!(
            (parsed.id.expose(), format.cookie_value(&parsed.id, 0).as_str()),
            (id.as_bytes(), browser.value())
        );
    }

    async fn the_gateway_reissues_and_the_app_reads(&self) {
        let mut browser = Browser::new("connect.sid");
        let key = format!("sess:{}", self.log_in(&mut browser).await);
        // Last used half an hour ago.
        self.rows.set(&key, "expires", json!({ "N": (now() + 1800).to_string() })).await;
        let aged = self.rows.get(&key).await;

        let response = browser.get(&self.gateway, "/reader").await;

        assert_eq!(response.status, 200);
        let row = self.eventually_changed(&key, &aged).await;
        let expires: f64 = row["expires"]["N"].as_str().unwrap().parse().unwrap();
        // By the session's own `maxAge`, an hour, and not by the realm's timeout, a day.
        assert!((expires - now() as f64 - 3600.0).abs() < 30.0, "{row}");
        assert_eq!((&row["sess"], &row["type"]), (&aged["sess"], &aged["type"]));
        let direct = browser.get_from(self.app.address, "/app/show").await;
        assert_eq!(direct.json()["user"]["name"], "Zoë");
        assert!(direct.set_cookies().is_empty());
    }

    async fn a_change_of_ours_is_read_by_the_app(&self) {
        let mut browser = Browser::new("connect.sid");
        let key = format!("sess:{}", self.log_in(&mut browser).await);
        let format = express();
        let row = self.rows.get(&key).await;
        let record = format.decode(&item(&row)).unwrap();
        let mut claims = record.claims.clone();
        claims.insert("cart".into(), json!({ "items": [1, 2.5, "☃ \"x\"\n"] }));
        claims.insert("user".into(), json!({ "name": "Carol", "id": 42 }));
        let at = Timestamp::from_secs(now());
        let times = ChangeTimes { now: at, expires: at.plus(Duration::from_hours(1)) };
        let change = format.change(&record, claims, times).unwrap();
        let payload = change.update.conditions.iter().any(
            |condition| matches!(condition, WriteCondition::Equals(name, Attribute::String(old)) if name == "sess" && *old == row["sess"]["S"]),
        );
        assert!(payload, "only of what was read: {:?}", change.update.conditions.len());
        for (name, value) in &change.update.set {
            self.rows.set(&key, name, wire(value)).await;
        }

        let shown = browser.get(&self.gateway, "/app/show").await.json();
        assert_eq!(
            (&shown["user"]["name"], &shown["cart"]["items"][2]),
            (&json!("Carol"), &json!("☃ \"x\"\n"))
        );
        assert_eq!(browser.get(&self.gateway, "/reader").await.json()["X_USER"], "Carol");
        // The app takes the session for its own, and goes on with it.
        browser.get(&self.gateway, "/app/rename?name=Dave").await;
        let row = self.rows.get(&key).await;
        let written = format.decode(&item(&row)).unwrap();
        assert_eq!(
            (&written.claims["user"]["name"], &written.claims["cart"]),
            (&json!("Dave"), &shown["cart"])
        );
        let payload: Value = serde_json::from_str(row["sess"]["S"].as_str().unwrap()).unwrap();
        // What express-session makes of an hour when a clock ticks between its two looks at it is a millisecond less.
        let hour = payload["cookie"]["originalMaxAge"].as_u64().unwrap();
        assert!((3_599_000..=3_600_000).contains(&hour), "{hour}");
    }

    async fn a_log_out_ends_it(&self) {
        let mut browser = Browser::new("connect.sid");
        let key = format!("sess:{}", self.log_in(&mut browser).await);
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 200);

        browser.get(&self.gateway, "/app/logout").await;

        assert_eq!(self.rows.get(&key).await, Value::Null);
        assert_eq!(browser.get(&self.gateway, "/reader").await.status, 401);
        assert_eq!(self.rows.get(&key).await, Value::Null, "nothing brings it back");
    }

    /// Logs Zoë in; the session's id.
    async fn log_in(&self, browser: &mut Browser) -> String {
        let response = browser.get(&self.gateway, "/app/login?name=Zo%C3%AB").await;
        response.json()["id"].as_str().expect("an id").to_owned()
    }

    async fn eventually_changed(&self, key: &str, old: &Value) -> Value {
        crate::support::eventually("the reissue", || async { self.rows.get(key).await != *old }).await;
        self.rows.get(key).await
    }
}

/// The format as the gateway has it.
fn express() -> Box<dyn Format> {
    struct Secret;
    impl Environment for Secret {
        fn cores(&self) -> usize {
            1
        }
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(1_800_000_000)
        }
        fn variable(&self, _: &str) -> Option<Vec<u8>> {
            Some(b"keyboard cat".to_vec())
        }
        fn file(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }
    let rest = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n[upstreams.app]\n\
                servers = [\"http://a\"]\n[upstreams.reader]\nservers = [\"http://b\"]\n";
    let (config, report) = parse(&format!("{rest}{REALM}{ROUTES}"), Path::new("gateway.toml"), &Secret);
    format::open(config.unwrap_or_else(|| panic!("{report}")).realms.first().expect("a realm"))
}

/// A row of connect-dynamodb's, which has strings and numbers alone.
fn item(row: &Value) -> Item {
    let attribute = |value: &Value| match (value["S"].as_str(), value["N"].as_str()) {
        (Some(text), _) => Attribute::String(text.to_owned()),
        (None, number) => Attribute::Number(Number::from_text(number.expect("a string or a number"))),
    };
    row.as_object().expect("a row").iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}

fn wire(attribute: &Attribute) -> Value {
    match (attribute.as_str(), attribute.as_number()) {
        (Some(text), _) => json!({ "S": text }),
        (None, number) => json!({ "N": number.expect("a string or a number").as_str() }),
    }
}
