//! Django's sessions: operations on the table, expiry, and the headers of sessions that never expire. The real Django is in
//! `tests/interop/django.rs`.

#![cfg(feature = "embedded")]
use std::time::Duration;

use serde_json::{Value, json};
use sessiongate::config::KeysConfig;
use sessiongate::format::django::Django;
use sessiongate::format::{Format, SessionId, SessionRecord};
use sessiongate::item::{Attribute, Item};
use sessiongate::secret::Secret;
use sessiongate::time::Clock;

use crate::support::engine::Engine;
use crate::support::gateway::{Builder, Gateway};
use crate::support::table;
use crate::support::upstream::Upstream;
use crate::support::within;

const SECRET_KEY: &str = "django-insecure-0123456789abcdefghijklmnopqrstuvwxyz";
const ID: &str = "79n475sjncwrl4g8bz2uaae6kudfywxx";
const COOKIE: &str = "sessionid=79n475sjncwrl4g8bz2uaae6kudfywxx";
const DAY: Duration = Duration::from_hours(24);

fn gateway(engine: &Engine, upstream: &Upstream, lines: &str) -> Builder {
    let keys = "[sessions.main.keys]\ncurrent = { env = \"DJANGO_SECRET_KEY\" }";
    let cache = "[sessions.main.cache]\nttl = \"1m\"";
    Gateway::builder()
        .engine(engine)
        .env("DJANGO_SECRET_KEY", SECRET_KEY)
        .toml(&format!("[sessions.main]\nformat = \"django\"\n{lines}\n{keys}\n{cache}"))
        .upstream("app", upstream)
        .route("/", "required", "[routes.headers]\nX-User = \"_auth_user_id\"")
}

/// Starts an engine with a session that was saved this long ago and signed with `secret`.
async fn engine(secret: &str, age: Duration) -> Engine {
    let keys = KeysConfig { current: Secret::new(secret.as_bytes()), previous: vec![] };
    let django = Django::new("session_key", Some(&keys), DAY, true);
    let issued = Clock.now().wall.minus(age);
    let record = SessionRecord {
        claims: [("_auth_user_id".to_owned(), json!("42"))].into_iter().collect(),
        version: 1,
        issued,
        created: Some(issued),
        expires: issued.plus(DAY),
        renewal: sessiongate::format::Renewal::Realm,
        retired: false,
        successor: None,
        predecessor: None,
        stored: Item::new(),
    };
    let item = django.encode(&django.key(&SessionId::new(ID)), &record).unwrap();
    let engine = Engine::start();
    engine.call("CreateTable", table::schema_of("sessions", "session_key", "S")).await;
    let item: serde_json::Map<_, _> = item.iter().map(|(name, value)| (name.clone(), json(value))).collect();
    engine.call("PutItem", json!({ "TableName": "sessions", "Item": item })).await;
    engine
}

fn json(attribute: &Attribute) -> Value {
    match (attribute.as_str(), attribute.as_number()) {
        (Some(text), _) => json!({ "S": text }),
        (None, Some(number)) => json!({ "N": number.as_str() }),
        (None, None) => panic!("{attribute:?}"),
    }
}

#[tokio::test]
async fn consecutive_reissues_of_a_cached_row_succeed() {
    let (engine, upstream) = (engine(SECRET_KEY, 2 * DAY / 24).await, Upstream::start());
    let gateway = gateway(&engine, &upstream, "reissue_time = \"1s\"").start().await;

    // The row is read once and then cached, so the second write is conditional on what the first one wrote.
    within("two reissues", async {
        while engine.counts().updates < 2 {
            assert_eq!(gateway.get("/", COOKIE).await.status, 200);
        }
    })
    .await;

    let counts = engine.counts();
    assert_eq!((counts.reads(), counts.failed_conditions), (1, 0));
}

#[tokio::test]
async fn malformed_session_key_costs_no_read_and_row_with_a_wrong_signature_is_401() {
    let (engine, upstream) =
        (engine("another key, which is not the gateway's", DAY / 24).await, Upstream::start());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let start_up = engine.counts();

    for cookie in ["sessionid=short", "sessionid=79N475SJNCWRL4G8BZ2UAAE6KUDFYWXX", "sessionid=\"\""] {
        assert_eq!(gateway.get("/", cookie).await.status, 401);
    }
    assert_eq!(engine.counts(), start_up);
    assert_eq!(gateway.get("/", COOKIE).await.status, 401);
    assert_eq!(engine.counts().strong_reads, start_up.strong_reads + 1);
    assert_eq!(upstream.request_count(), 0);
    let (_, log) = gateway.terminate().await;
    assert!(!log.contains(ID) && !log.contains(SECRET_KEY), "{log}");
}

#[tokio::test]
async fn old_session_is_401_unless_enforce_age_is_false() {
    let (engine, upstream) = (engine(SECRET_KEY, 30 * DAY).await, Upstream::start());
    let enforcing = gateway(&engine, &upstream, "").start().await;
    assert_eq!(enforcing.get("/", COOKIE).await.status, 401);

    let lax = gateway(&engine, &upstream, "enforce_age = false").start().await;
    let response = lax.get("/", COOKIE).await;

    assert_eq!(response.status, 200);
    assert!(response.set_cookies().is_empty());
    let seen = upstream.only_request();
    assert_eq!((seen.header("x-user"), seen.header("x-session-status")), (Some("42"), Some("active")));
    assert_eq!(seen.header("x-session-expires"), None);
    assert_eq!(engine.counts().updates, 0);
}
