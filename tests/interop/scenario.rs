//! What sessions of every framework must do: the app and the gateway read and write the same rows, and neither may notice
//! that the other is not a copy of itself.

use serde_json::{Value, json};

use super::framework::Framework;
use super::site::Site;
use crate::support::client::sorted_attributes;
use crate::support::eventually;

/// The tests of one framework: the steps of all, and then `$special`, which only it has.
macro_rules! suite {
    ($framework:ident, $($special:path),+ $(,)?) => {
        #[tokio::test]
        async fn shares_sessions_in_ministack() {
            run(crate::site::Dynamodb::Ministack).await;
        }

        #[tokio::test]
        async fn shares_sessions_in_the_embedded_engine() {
            run(crate::site::Dynamodb::Embedded).await;
        }

        async fn run(dynamodb: crate::site::Dynamodb) {
            let Some(site) = crate::site::Site::start(&$framework, dynamodb).await else { return };
            crate::scenario::common(&site).await;
            $($special(&site).await;)+
        }
    };
}
pub(crate) use suite;

/// The steps of all frameworks.
pub(crate) async fn common(site: &Site) {
    a_user_of_the_app_reaches_the_reader(site).await;
    only_users_reach_the_reader(site).await;
    the_apps_changes_are_seen_at_once(site).await;
    the_gateway_reissues_and_the_app_reads(site).await;
    the_apps_log_out_ends_the_session(site).await;
    the_gateway_patches_and_the_app_goes_on(site).await;
    the_gateway_rotates_and_the_old_cookie_is_worthless(site).await;
    a_patch_of_an_older_version_is_409(site).await;
    the_gateway_destroys_and_the_app_sees_no_session(site).await;
}

async fn a_user_of_the_app_reaches_the_reader(site: &Site) {
    let mut browser = site.browser();
    assert_eq!(site.reader_status(&mut browser).await, 401);

    site.get(&mut browser, "/app/login?name=Zo%C3%AB").await;
    let seen = site.reader(&mut browser).await;

    assert_eq!((&seen["X_USER"], &seen["X_ROLES"]), (&json!("Zo%C3%AB"), &json!("admin,staff")));
    assert_eq!(seen["X_SESSION_STATUS"], "active");
    // The app reads its own cookie behind the gateway as it would without it.
    let shown = site.get(&mut browser, "/app/show").await.json();
    assert_eq!((&shown["login"], &shown["session"]["user"]["name"]), (&json!("Zoë"), &json!("Zoë")));
}

async fn only_users_reach_the_reader(site: &Site) {
    let mut browser = site.browser();
    for (target, expected, who) in [
        ("/reader", 401, "a visitor without a session"),
        ("/app/visit", 200, "the app makes a session"),
        ("/reader", 401, "a guest"),
        ("/app/login?name=Alice", 200, "the guest logs in"),
        ("/reader", 200, "a user"),
        ("/app/forget", 200, "the user logs out"),
        ("/reader", 401, "nobody is logged in any more"),
        ("/app/visit", 200, "the app makes another session, or goes on with the same"),
        ("/reader", 401, "a guest again"),
        ("/app/login?name=Alice", 200, "the guest logs in again"),
        ("/reader", 200, "a user again"),
    ] {
        let response = site.get(&mut browser, target).await;
        assert_eq!(response.status, expected, "{target}: {who}: {}", response.text());
    }
}

async fn the_apps_changes_are_seen_at_once(site: &Site) {
    let mut browser = site.logged_in().await;
    for (name, count) in [("Bob", "1"), ("Carol", "2"), ("Dave", "3")] {
        // Caches the row in one of the two workers.
        site.reader(&mut browser).await;
        site.get(&mut browser, &format!("/app/rename?name={name}")).await;
        for _ in 0..4 {
            assert_eq!(site.reader(&mut browser).await["X_USER"], name);
        }
        site.get(&mut browser, "/app/count").await;
        assert_eq!(site.reader(&mut browser).await["X_COUNT"], count);
    }
}

async fn the_gateway_reissues_and_the_app_reads(site: &Site) {
    let mut browser = site.logged_in().await;
    let aged = site.age(&mut browser).await;

    let response = site.get(&mut browser, "/reader").await;

    assert_eq!(response.json()["X_USER"], "Alice");
    let sent: Vec<_> = response.set_cookies().into_iter().map(sorted_attributes).collect();
    let Framework { cookie, cookie_attributes, always_sends_cookie, .. } = site.framework;
    assert_eq!(sent, [format!("{cookie}={}; {cookie_attributes}", browser.value())]);
    // The response does not wait for the write.
    eventually("the reissue", || async { site.row(&browser).await != aged }).await;
    (site.framework.assert_reissued)(&aged, &site.row(&browser).await);
    // The app finds nothing due, and reads what the gateway wrote.
    let direct = site.get_directly(&mut browser, "/app/show").await;
    let shown = direct.json();
    assert_eq!((&shown["login"], &shown["session"]["user"]["name"]), (&json!("Alice"), &json!("Alice")));
    assert_eq!(!direct.set_cookies().is_empty(), *always_sends_cookie, "{:?}", direct.set_cookies());
    // Neither does the gateway.
    assert!(site.get(&mut browser, "/reader").await.set_cookies().is_empty());
}

async fn the_apps_log_out_ends_the_session(site: &Site) {
    let mut browser = site.logged_in().await;
    let mut before = browser.clone();
    assert_eq!(site.reader_status(&mut browser).await, 200);

    site.get(&mut browser, "/app/logout").await;

    (site.framework.assert_logged_out)(&site.row(&before).await);
    assert_eq!(site.reader_status(&mut browser).await, 401);
    // A copy of the old cookie is worthless, too.
    assert_eq!(site.reader_status(&mut before).await, 401);
    (site.framework.assert_logged_out)(&site.row(&before).await);
}

async fn the_gateway_patches_and_the_app_goes_on(site: &Site) {
    let mut browser = site.logged_in().await;
    let mut expected = site.shown(&mut browser).await;
    for text in ["short", &"long ".repeat(500), "Zoë ☃ 😀 \"\\\n\u{7f}"] {
        let patch = json!({
            "user": { "name": "Carol", "id": 42 },
            "cart": [1, { "a": 0.5, "items": [2.5, text] }],
            "text": text,
            "float": 1e16,
        });

        assert_eq!(site.command(&mut browser, &[("X-Session-Patch", &ascii(&patch))]).await.status, 200);

        let mut shown = site.shown(&mut browser).await;
        // JavaScript writes it as an integer.
        assert_eq!(shown["session"]["float"].as_f64(), Some(1e16));
        shown["session"]["float"] = json!(1e16);
        for (name, value) in patch.as_object().expect("an object") {
            expected["session"][name] = value.clone();
        }
        assert_eq!(shown, expected);
        assert_eq!(site.reader(&mut browser).await["X_USER"], "Carol");
    }
    // The app takes the session for its own and changes it, and the gateway reads that.
    site.get(&mut browser, "/app/rename?name=Dave").await;
    let shown = site.shown(&mut browser).await;
    assert_eq!(
        (&shown["session"]["user"]["name"], &shown["session"]["cart"]),
        (&json!("Dave"), &expected["session"]["cart"])
    );
    assert_eq!(site.reader(&mut browser).await["X_USER"], "Dave");
}

async fn the_gateway_rotates_and_the_old_cookie_is_worthless(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/app/count").await;
    let mut planted = browser.clone();
    let log_in = [("X-Session-Patch", r#"{"user":{"name":"Grace"}}"#), ("X-Session-Action", "rotate")];

    assert_eq!(site.command(&mut browser, &log_in).await.status, 200);

    let row_key = site.framework.row_key;
    assert_ne!(row_key(browser.value()), row_key(planted.value()));
    let shown = site.shown(&mut browser).await;
    assert_eq!(shown["login"], "Alice");
    assert_eq!((&shown["session"]["user"]["name"], &shown["session"]["count"]), (&json!("Grace"), &json!(1)));
    assert_eq!(site.reader(&mut browser).await["X_USER"], "Grace");
    assert_eq!(site.shown(&mut planted.clone()).await, json!({ "login": null, "session": {} }));
    assert_eq!(site.reader_status(&mut planted).await, 401);
}

async fn a_patch_of_an_older_version_is_409(site: &Site) {
    let mut browser = site.logged_in().await;
    let version = site.reader(&mut browser).await["X_SESSION_VERSION"].take();
    // The gateway does not see this change, and may have the row from before in its cache.
    site.get_directly(&mut browser, "/app/rename?name=Carol").await;
    let patch = |version| [("X-Session-Patch", r#"{"x":1}"#), ("X-Session-If-Version", version)];

    assert_eq!(site.command(&mut browser, &patch(version.as_str().unwrap())).await.status, 409);
    // Through the gateway, which then reads the row again.
    site.get(&mut browser, "/app/rename?name=Carol").await;
    let version = site.reader(&mut browser).await["X_SESSION_VERSION"].take();
    assert_eq!(site.command(&mut browser, &patch(version.as_str().unwrap())).await.status, 200);
    let shown = site.shown(&mut browser).await;
    assert_eq!((&shown["session"]["user"]["name"], &shown["session"]["x"]), (&json!("Carol"), &json!(1)));
}

async fn the_gateway_destroys_and_the_app_sees_no_session(site: &Site) {
    let mut browser = site.logged_in().await;
    let mut before = browser.clone();

    let response = site.command(&mut browser, &[("X-Session-Action", "destroy")]).await;

    assert_eq!((response.status, browser.cookie), (200, None));
    assert_eq!(site.row(&before).await, Value::Null);
    assert_eq!(site.shown(&mut before).await, json!({ "login": null, "session": {} }));
}

/// For frameworks whose cookie is `ID.SIGNATURE`.
pub(crate) async fn a_forged_signature_is_401(site: &Site) {
    let mut browser = site.logged_in().await;
    let (id, _) = browser.value().split_once('.').expect("a signature");
    browser.cookie = Some(format!("{}={id}.{}", site.framework.cookie, "A".repeat(27)));
    assert_eq!(site.reader_status(&mut browser).await, 401);
}

/// JSON without characters that a header cannot have.
fn ascii(value: &Value) -> String {
    let mut text = String::new();
    for unit in value.to_string().encode_utf16() {
        match u8::try_from(unit) {
            Ok(byte @ b' '..=b'~') => text.push(byte.into()),
            _ => text.push_str(&format!("\\u{unit:04x}")),
        }
    }
    text
}
