//! Express with express-session and connect-dynamodb.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use sessiongate::config::environment::Environment;
use sessiongate::config::parse;
use sessiongate::format::{self, ChangeTimes, Format, WriteCondition};
use sessiongate::item::Attribute;
use sessiongate::time::Timestamp;

use super::framework::{Aging, Framework, assert_deleted, assert_times_changed};
use super::scenario;
use super::site::{Site, item};
use crate::support::packages::Runtime;
use crate::support::table::now;

const SECRET: &str = "keyboard cat";

const EXPRESS: Framework = Framework {
    format: "express",
    runtime: Runtime::Node,
    packages: &[
        "@aws-sdk/client-dynamodb@3.726.1",
        "connect-dynamodb@3.0.5",
        "express@5.1.0",
        "express-session@1.19.0",
        "passport@0.7.0",
    ],
    script: "express_app.js",
    table: ("sessions", "id", "S"),
    // `s:ID.SIGNATURE`, percent-encoded
    row_key: |cookie| format!("sess:{}", cookie["s%3A".len()..].split_once('.').expect("a signature").0),
    cookie: "connect.sid",
    always_sends_cookie: false,
    cookie_attributes: "HttpOnly; Max-Age=3600; Path=/",
    secret: Some(SECRET),
    // A logout in Express sends no `Set-Cookie`, with which the gateway detects a logout.
    cache_ttl: "0s",
    realm: "[sessions.main.cookie]\nmax_age = \"1h\"",
    headers: "",
    routes: "",
    aging: Aging::Attributes(&["expires"], 1800),
    // The session's `maxAge` of one hour takes precedence over the realm's timeout of one day.
    assert_reissued: |aged, row| assert_times_changed(aged, row, &[("expires", 3600)]),
    assert_logged_out: assert_deleted,
};

scenario::suite!(
    EXPRESS,
    cookie_of_the_gateway_equals_that_of_express,
    change_is_conditional_on_the_payload_that_was_read,
    patch_keeps_the_cookie_settings_of_the_session,
    scenario::forged_signature_is_401,
);

async fn cookie_of_the_gateway_equals_that_of_express(site: &Site) {
    let mut browser = site.logged_in().await;
    let id = site.get(&mut browser, "/app/id").await.json();
    let format = express();
    let parsed = format.parse_cookie(browser.value().as_bytes()).unwrap();
    assert_eq!(parsed.id.expose(), id.as_str().unwrap().as_bytes());
    assert_eq!(format.cookie_value(&parsed.id, 0), browser.value());
}

async fn change_is_conditional_on_the_payload_that_was_read(site: &Site) {
    let browser = site.logged_in().await;
    let row = site.row(&browser).await;
    let format = express();
    let record = format.decode(&item(&row)).unwrap();
    let at = Timestamp::from_secs(now());
    let times = ChangeTimes { now: at, expires: at.plus(Duration::from_hours(1)) };
    let claims = [("cart".to_owned(), json!([]))].into_iter().collect();
    let conditions = format.change(&record, claims, times).unwrap().update.conditions;
    let payload = row["sess"]["S"].as_str().unwrap().to_owned();
    assert!(conditions.contains(&WriteCondition::Equals("sess".to_owned(), Attribute::String(payload))));
}

async fn patch_keeps_the_cookie_settings_of_the_session(site: &Site) {
    let mut browser = site.logged_in().await;
    assert_eq!(site.command(&mut browser, &[("X-Session-Patch", r#"{"cart":[]}"#)]).await.status, 200);
    site.get(&mut browser, "/app/rename?name=Dave").await;
    let row = site.row(&browser).await;
    let payload: Value = serde_json::from_str(row["sess"]["S"].as_str().unwrap()).unwrap();
    // express-session reads the clock twice, so an hour may be a millisecond short.
    let hour = payload["cookie"]["originalMaxAge"].as_u64().unwrap();
    assert!((3_599_000..=3_600_000).contains(&hour), "{hour}");
}

/// Returns the gateway's format of this configuration.
fn express() -> Box<dyn Format> {
    struct Fixture;
    impl Environment for Fixture {
        fn cores(&self) -> usize {
            1
        }
        fn now(&self) -> Timestamp {
            Timestamp::from_secs(1_800_000_000)
        }
        fn variable(&self, _: &str) -> Option<Vec<u8>> {
            Some(SECRET.into())
        }
        fn file(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Err(std::io::ErrorKind::NotFound.into())
        }
    }
    let rest = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n[upstreams.app]\n\
                servers = [\"http://a\"]\n[upstreams.reader]\nservers = [\"http://b\"]\n";
    let text = format!("{rest}{}", EXPRESS.configuration());
    let (config, report) = parse(&text, Path::new("gateway.toml"), &Fixture);
    format::open(config.unwrap_or_else(|| panic!("{report}")).realms.first().expect("a realm"))
}
