//! A real Flask app with Flask-Session behind the gateway, and beside it an app without sessions. Both sides read and
//! write the same rows in ministack.

use serde_json::{Value, json};

use crate::support::app::{App, Browser, Rows, only_users_reach_the_reader};
use crate::support::gateway::Gateway;
use crate::support::ministack::Ministack;
use crate::support::table::now;

const REALM: &str = r#"
    [sessions.main]
    format = "flask-session"
    [sessions.main.keys]
    current = { env = "FLASK_SECRET" }
    [sessions.main.cache]
    ttl = "0s"

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
async fn a_flask_app_and_a_reader_share_sessions() {
    let Some(ministack) = tokio::task::spawn_blocking(Ministack::start).await.unwrap() else { return };
    let endpoint = ministack.endpoint();
    let rows = Rows {
        address: endpoint.strip_prefix("http://").unwrap().parse().unwrap(),
        table: "Sessions",
        key: "id",
    };
    rows.create().await;
    let given = endpoint.clone();
    let apps = move || {
        let requirements = include_str!("flask-requirements.txt");
        let app = App::python("flask", requirements, "flask_app.py")?.pointed_to(&given);
        Some((app, App::python("flask", requirements, "reader.py")?.pointed_to(&given)))
    };
    let Some((app, reader)) = tokio::task::spawn_blocking(apps).await.unwrap() else { return };
    let gateway = Gateway::builder()
        .upstream_at("app", app.address, "")
        .upstream_at("reader", reader.address, "")
        .store(&format!("[store.dynamodb]\nendpoint = \"{endpoint}\"\ntimeout = \"5s\""))
        .env("FLASK_SECRET", "the flask app's secret key")
        .toml(REALM)
        .start()
        .await;

    let mut browser = Browser::new("session");
    only_users_reach_the_reader(async |target| browser.get(&gateway, target).await, "/app/forget").await;

    let mut browser = Browser::new("session");
    assert_eq!(browser.get(&gateway, "/reader").await.status, 401);
    browser.get(&gateway, "/app/login?name=Zo%C3%AB").await;
    let seen = browser.get(&gateway, "/reader").await.json();
    assert_eq!((&seen["X_USER"], &seen["X_ROLES"]), (&json!("Zo%C3%AB"), &json!("admin,staff")));
    browser.get(&gateway, "/app/rename?name=Bob").await;
    assert_eq!(browser.get(&gateway, "/reader").await.json()["X_USER"], "Bob");

    // An hour after its last use, the gateway reissues it, and the app reads on.
    let (id, _mac) = browser.value().split_once('.').expect("a signed cookie");
    let id = id.to_owned();
    let key = format!("session:{id}");
    let row = rows.get(&key).await;
    rows.set(&key, "expiration", json!({ "N": (now() + 31 * 86_400 - 3600).to_string() })).await;
    let before = browser.value().to_owned();
    let response = browser.get(&gateway, "/reader").await;
    assert_eq!((response.status, browser.value()), (200, before.as_str()));
    crate::support::eventually("the reissue", || async {
        let row = rows.get(&key).await;
        let expires: f64 = row["expiration"]["N"].as_str().unwrap().parse().unwrap();
        expires > (now() + 31 * 86_400 - 60) as f64
    })
    .await;
    assert_eq!(rows.get(&key).await["val"], row["val"]);
    let direct = browser.get_from(app.address, "/app/show").await.json();
    assert_eq!(direct["user"]["name"], "Bob");

    // A cookie that is not signed by the app costs the reader nothing and is nobody.
    let mut forged = browser.clone();
    forged.cookie = Some(format!("session={id}.AAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert_eq!(forged.get(&gateway, "/reader").await.status, 401);

    let mut kept = browser.clone();
    browser.get(&gateway, "/app/logout").await;
    assert_eq!(rows.get(&key).await, Value::Null);
    assert_eq!(kept.get(&gateway, "/reader").await.status, 401);
}
