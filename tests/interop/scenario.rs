//! The steps of every framework: the app and the gateway read and write the same rows, each as if the other were a copy of
//! itself.

use serde_json::{Value, json};

use super::framework::Framework;
use super::site::Site;
use crate::support::client::sorted_attributes;
use crate::support::eventually;

/// Defines the tests of one framework: the steps of all frameworks, and then its own.
macro_rules! suite {
    ($framework:ident, $($step:path),+ $(,)?) => {
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
            $($step(&site).await;)+
        }
    };
}
pub(crate) use suite;

/// The steps of all frameworks.
pub(crate) async fn common(site: &Site) {
    user_of_the_app_reaches_the_reader(site).await;
    visitors_and_guests_get_401_of_the_reader(site).await;
    changes_of_the_app_are_seen_at_once(site).await;
    app_reads_a_session_that_the_gateway_reissued(site).await;
    logout_of_the_app_ends_the_session(site).await;
    app_reads_and_changes_a_session_that_the_gateway_patched(site).await;
    old_cookie_is_invalid_after_a_rotation(site).await;
    patch_of_an_older_version_is_409(site).await;
    app_sees_no_session_after_a_destroy(site).await;
}

async fn user_of_the_app_reaches_the_reader(site: &Site) {
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

async fn visitors_and_guests_get_401_of_the_reader(site: &Site) {
    let mut browser = site.browser();
    for (target, expected, state) in [
        ("/reader", 401, "a visitor without a session"),
        ("/app/visit", 200, "the app creates a session"),
        ("/reader", 401, "a guest"),
        ("/app/login?name=Alice", 200, "the guest logs in"),
        ("/reader", 200, "a user"),
        ("/app/forget", 200, "the user logs out"),
        ("/reader", 401, "after the logout"),
        ("/app/visit", 200, "the app creates another session or keeps this one"),
        ("/reader", 401, "a guest again"),
        ("/app/login?name=Alice", 200, "the guest logs in again"),
        ("/reader", 200, "a user again"),
    ] {
        let response = site.get(&mut browser, target).await;
        assert_eq!(response.status, expected, "{target}: {state}: {}", response.text());
    }
}

async fn changes_of_the_app_are_seen_at_once(site: &Site) {
    let mut browser = site.logged_in().await;
    for (name, count) in [("Bob", "1"), ("Carol", "2"), ("Dave", "3")] {
        // Caches the row.
        site.reader(&mut browser).await;
        site.get(&mut browser, &format!("/app/rename?name={name}")).await;
        for _ in 0..4 {
            assert_eq!(site.reader(&mut browser).await["X_USER"], name);
        }
        site.get(&mut browser, "/app/count").await;
        assert_eq!(site.reader(&mut browser).await["X_COUNT"], count);
    }
}

async fn app_reads_a_session_that_the_gateway_reissued(site: &Site) {
    let mut browser = site.logged_in().await;
    let aged = site.age(&mut browser).await;

    let response = site.get(&mut browser, "/reader").await;

    assert_eq!(response.json()["X_USER"], "Alice");
    let sent: Vec<_> = response.set_cookies().into_iter().map(sorted_attributes).collect();
    let Framework { cookie, cookie_attributes, always_sends_cookie, .. } = site.framework;
    assert_eq!(sent, [format!("{cookie}={}; {cookie_attributes}", browser.value())]);
    // The reissue may be written after the response.
    eventually("the reissue", || async { site.row(&browser).await != aged }).await;
    (site.framework.assert_reissued)(&aged, &site.row(&browser).await);
    // To the app, the session is not due.
    let direct = site.get_directly(&mut browser, "/app/show").await;
    let shown = direct.json();
    assert_eq!((&shown["login"], &shown["session"]["user"]["name"]), (&json!("Alice"), &json!("Alice")));
    assert_eq!(!direct.set_cookies().is_empty(), *always_sends_cookie, "{:?}", direct.set_cookies());
    // Nor to the gateway.
    assert!(site.get(&mut browser, "/reader").await.set_cookies().is_empty());
}

async fn logout_of_the_app_ends_the_session(site: &Site) {
    let mut browser = site.logged_in().await;
    let mut before = browser.clone();
    assert_eq!(site.reader_status(&mut browser).await, 200);

    site.get(&mut browser, "/app/logout").await;

    (site.framework.assert_logged_out)(&site.row(&before).await);
    assert_eq!(site.reader_status(&mut browser).await, 401);
    // A copy of the old cookie is invalid, too.
    assert_eq!(site.reader_status(&mut before).await, 401);
    (site.framework.assert_logged_out)(&site.row(&before).await);
}

async fn app_reads_and_changes_a_session_that_the_gateway_patched(site: &Site) {
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
    // The app changes the session, and the gateway reads the change.
    site.get(&mut browser, "/app/rename?name=Dave").await;
    let shown = site.shown(&mut browser).await;
    assert_eq!(
        (&shown["session"]["user"]["name"], &shown["session"]["cart"]),
        (&json!("Dave"), &expected["session"]["cart"])
    );
    assert_eq!(site.reader(&mut browser).await["X_USER"], "Dave");
}

async fn old_cookie_is_invalid_after_a_rotation(site: &Site) {
    let mut browser = site.logged_in().await;
    site.get(&mut browser, "/app/count").await;
    let mut old = browser.clone();
    let log_in = [("X-Session-Patch", r#"{"user":{"name":"Grace"}}"#), ("X-Session-Action", "rotate")];

    assert_eq!(site.command(&mut browser, &log_in).await.status, 200);

    let row_key = site.framework.row_key;
    assert_ne!(row_key(browser.value()), row_key(old.value()));
    let shown = site.shown(&mut browser).await;
    assert_eq!(shown["login"], "Alice");
    assert_eq!((&shown["session"]["user"]["name"], &shown["session"]["count"]), (&json!("Grace"), &json!(1)));
    assert_eq!(site.reader(&mut browser).await["X_USER"], "Grace");
    assert_eq!(site.shown(&mut old.clone()).await, json!({ "login": null, "session": {} }));
    assert_eq!(site.reader_status(&mut old).await, 401);
}

async fn patch_of_an_older_version_is_409(site: &Site) {
    let mut browser = site.logged_in().await;
    let version = site.reader(&mut browser).await["X_SESSION_VERSION"].take();
    // The gateway does not see this change, and may have the previous row in its cache.
    site.get_directly(&mut browser, "/app/rename?name=Carol").await;
    let patch = |version| [("X-Session-Patch", r#"{"x":1}"#), ("X-Session-If-Version", version)];

    assert_eq!(site.command(&mut browser, &patch(version.as_str().unwrap())).await.status, 409);
    // After this change through the gateway, it reads the row again.
    site.get(&mut browser, "/app/rename?name=Carol").await;
    let version = site.reader(&mut browser).await["X_SESSION_VERSION"].take();
    assert_eq!(site.command(&mut browser, &patch(version.as_str().unwrap())).await.status, 200);
    let shown = site.shown(&mut browser).await;
    assert_eq!((&shown["session"]["user"]["name"], &shown["session"]["x"]), (&json!("Carol"), &json!(1)));
}

async fn app_sees_no_session_after_a_destroy(site: &Site) {
    let mut browser = site.logged_in().await;
    let mut before = browser.clone();

    let response = site.command(&mut browser, &[("X-Session-Action", "destroy")]).await;

    assert_eq!((response.status, browser.cookie), (200, None));
    assert_eq!(site.row(&before).await, Value::Null);
    assert_eq!(site.shown(&mut before).await, json!({ "login": null, "session": {} }));
}

/// For frameworks whose cookie is `ID.SIGNATURE`.
pub(crate) async fn forged_signature_is_401(site: &Site) {
    let mut browser = site.logged_in().await;
    let (id, _) = browser.value().split_once('.').expect("a signature");
    browser.cookie = Some(format!("{}={id}.{}", site.framework.cookie, "A".repeat(27)));
    assert_eq!(site.reader_status(&mut browser).await, 401);
}

/// Returns JSON in ASCII, as a header requires.
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
