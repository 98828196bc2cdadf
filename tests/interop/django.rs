//! Django with the rows of django-dynamodb-sessions. Django's own code signs the rows and does the login.

use std::time::Duration;

use serde_json::Value;
use sessiongate::config::KeysConfig;
use sessiongate::format::django::Django;
use sessiongate::format::{Format, SessionRecord};
use sessiongate::secret::Secret;

use super::framework::{Aging, Framework, assert_deleted};
use super::scenario;
use super::site::{Site, item};
use crate::support::packages::Runtime;

const SECRET_KEY: &str = "interop-secret-key-0123456789abcdefghijklmnopqrstuvwxyz";
const TWO_WEEKS: Duration = Duration::from_hours(14 * 24);

const DJANGO: Framework = Framework {
    format: "django",
    runtime: Runtime::Python,
    packages: &["boto3==1.43.106", "django==5.2.19", "waitress==3.0.2"],
    script: "django_app.py",
    table: ("sessions", "session_key", "S"),
    row_key: str::to_owned,
    cookie: "sessionid",
    always_sends_cookie: false,
    cookie_attributes: "HttpOnly; Max-Age=1209600; Path=/; SameSite=Lax",
    secret: Some(SECRET_KEY),
    cache_ttl: "1m",
    realm: "",
    headers: "X-Id = \"_auth_user_id\"",
    routes: "",
    aging: Aging::Page("/app/age?seconds=7200"),
    assert_reissued: |aged, row| {
        let (before, after) = (decode(aged), decode(row));
        assert!(after.issued >= before.issued.plus(Duration::from_secs(7200)), "{after:?}");
        let kept = |record: SessionRecord| (record.claims, record.version, record.created);
        assert_eq!(kept(after), kept(before));
        let payload = |row: &Value| row["data"]["S"].as_str().unwrap().split_once(':').unwrap().0.to_owned();
        assert_eq!(payload(row), payload(aged));
    },
    assert_logged_out: assert_deleted,
};

scenario::suite!(
    DJANGO,
    reader_gets_the_user_id_and_the_deadline,
    session_with_its_own_expiry_is_not_reissued,
    session_ends_at_the_expiry_that_the_app_has_set,
    logout_of_the_app_expires_the_cookie,
);

async fn reader_gets_the_user_id_and_the_deadline(site: &Site) {
    let mut browser = site.logged_in().await;
    let seen = site.reader(&mut browser).await;
    assert_eq!(seen["X_ID"], site.shown(&mut browser).await["session"]["_auth_user_id"]);
    let saved = decode(&site.row(&browser).await).issued;
    assert_eq!(seen["X_SESSION_EXPIRES"], saved.plus(TWO_WEEKS).as_secs().to_string());
}

async fn session_with_its_own_expiry_is_not_reissued(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/app/expiry?seconds=86400").await;
    let row = site.age(&mut browser).await;

    let response = site.get(&mut browser, "/reader").await;

    assert_eq!(response.status, 200);
    assert!(response.set_cookies().is_empty(), "{:?}", response.set_cookies());
    assert_eq!(site.row(&browser).await, row);
}

async fn session_ends_at_the_expiry_that_the_app_has_set(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/app/expiry?seconds=3600").await;
    site.age(&mut browser).await;
    assert_eq!(site.reader_status(&mut browser).await, 401);
}

async fn logout_of_the_app_expires_the_cookie(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/app/logout").await;
    assert_eq!(browser.cookie, None);
}

/// Returns the session in a row, as the gateway decodes it.
fn decode(row: &Value) -> SessionRecord {
    let keys = KeysConfig { current: Secret::new(SECRET_KEY.as_bytes()), previous: vec![] };
    Django::new("session_key", Some(&keys), TWO_WEEKS, true).decode(&item(row)).unwrap()
}
