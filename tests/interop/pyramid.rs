//! Pyramid with pyramid-dynamodb-sessions.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::framework::{Aging, Framework, assert_times_changed};
use super::scenario;
use super::site::Site;
use crate::support::packages::Runtime;
use crate::support::table::number;

const PYRAMID: Framework = Framework {
    format: "pyramid",
    runtime: Runtime::Python,
    packages: &["boto3==1.43.106", "pyramid==2.1", "pyramid-dynamodb-sessions==0.1.3", "waitress==3.0.2"],
    script: "pyramid_app.py",
    table: ("sessions", "sid", "B"),
    // `ID/VERSION`
    row_key: |cookie| BASE64_STANDARD.encode(Sha256::digest(cookie.split_once('/').expect("a version").0)),
    cookie: "session_id",
    always_sends_cookie: false,
    cookie_attributes: "HttpOnly; Path=/; SameSite=Strict",
    secret: None,
    cache_ttl: "1m",
    realm: "table = \"sessions\"",
    headers: "",
    routes: r#"
        [[routes]]
        path = "/form"
        session = "main"
        access = "optional"
        upstream = "reader"
        writes = true
        flash = true
        csrf = true
    "#,
    aging: Aging::Attributes(&["iss", "exp"], 300),
    assert_reissued: |aged, row| {
        assert_times_changed(aged, row, &[("iss", 0), ("exp", 1200)]);
        assert_eq!(number(row, "exp") - number(row, "iss"), 1200);
    },
    // The app empties the session and keeps its row.
    assert_logged_out: |row| assert_eq!(row["dat"]["S"], "{}"),
};

scenario::suite!(
    PYRAMID,
    version_header_is_the_row_s_version,
    app_reads_its_flash_message_once_and_keeps_its_csrf_token,
    gateway_reads_a_session_that_the_app_reissued,
    app_changes_a_session_that_the_gateway_created,
    flash_messages_are_exchanged_in_both_directions,
    app_and_gateway_accept_each_other_s_csrf_token,
);

async fn version_header_is_the_row_s_version(site: &Site) {
    let mut browser = site.logged_in().await;
    assert_eq!(site.reader(&mut browser).await["X_SESSION_VERSION"], "1");
    assert_eq!(number(&site.row(&browser).await, "ver"), 1);
}

async fn app_reads_its_flash_message_once_and_keeps_its_csrf_token(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/app/flash?text=hello").await;
    assert_eq!(site.get(&mut browser, "/app/flashed").await.json(), json!(["hello"]));
    assert_eq!(site.get(&mut browser, "/app/flashed").await.json(), json!([]));
    let csrf = site.get(&mut browser, "/app/csrf").await.json();
    assert_eq!(csrf["token"], csrf["kept"]);
}

async fn gateway_reads_a_session_that_the_app_reissued(site: &Site) {
    let mut browser = site.logged_in().await;
    site.reader(&mut browser).await;
    site.age(&mut browser).await;

    let direct = site.get_directly(&mut browser, "/app/show").await;
    assert_eq!(direct.set_cookies().len(), 1);
    let reissued = site.row(&browser).await;

    assert_eq!(site.reader(&mut browser).await["X_USER"], "Alice");
    assert_eq!(site.row(&browser).await, reissued);

    // If both find it due at the same time, the browser gets one cookie.
    site.age(&mut browser).await;
    let both = site.get(&mut browser, "/app/show").await;
    assert_eq!(both.set_cookies().len(), 1, "{:?}", both.set_cookies());
    assert_eq!(both.json()["session"]["user"]["name"], "Alice");
}

async fn app_changes_a_session_that_the_gateway_created(site: &Site) {
    let mut browser = site.browser();
    let patch = json!({ "user": { "name": "Eve" }, "cart": [1, { "a": 0.5 }] });
    assert_eq!(site.command(&mut browser, &[("X-Session-Patch", &patch.to_string())]).await.status, 200);
    assert_eq!(site.shown(&mut browser).await["session"], patch);

    assert_eq!(site.get(&mut browser, "/app/count").await.json()["session"]["count"], 1);
    let rotate = [("X-Session-Action", "rotate")];
    assert_eq!(site.command(&mut browser, &rotate).await.status, 200);
    assert_eq!(site.shown(&mut browser).await["session"]["count"], 1);
}

async fn flash_messages_are_exchanged_in_both_directions(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/form?X-Session-Flash=Hello%252C%20Zo%25C3%25AB").await;
    let popped = site.get_directly(&mut browser, "/app/flashed").await.json();
    assert_eq!(popped, json!(["Hello, Zoë"]));

    site.get_directly(&mut browser, "/app/flash?text=Saved,+100%25").await;
    let seen = site.get(&mut browser, "/form").await.json();
    assert_eq!(seen["X_SESSION_FLASH"], "Saved%2C 100%25");
    assert_eq!(site.get(&mut browser, "/form").await.json()["X_SESSION_FLASH"], Value::Null);
    assert_eq!(site.get_directly(&mut browser, "/app/flashed").await.json(), json!([]));
}

async fn app_and_gateway_accept_each_other_s_csrf_token(site: &Site) {
    let mut first = site.logged_in().await;
    let injected = site.get(&mut first, "/form").await.json()["X_SESSION_CSRF"].take();
    assert_eq!(site.get_directly(&mut first, "/app/token").await.json(), injected);

    let mut browser = site.logged_in().await;
    let old = site.get_directly(&mut browser, "/app/token").await.json();
    assert_eq!(site.get(&mut browser, "/form").await.json()["X_SESSION_CSRF"], old);
    let gateway = site.gateway.address();
    assert_eq!(browser.post(gateway, "/form", &old).await.status, 200);
    let new = site.get_directly(&mut browser, "/app/csrf").await.json()["token"].take();
    assert_eq!(browser.post(gateway, "/form", &old).await.status, 403);
    assert_eq!(browser.post(gateway, "/form", &new).await.status, 200);
}
