//! Session commands: headers of a response by which an upstream changes a session.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::Request;
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::session_commands::{self, command_target, patch_target, set_cookie};
use crate::support::table::{self, Session, number};
use crate::support::upstream::Upstream;

/// Returns a gateway with a route that may write to Pyramid sessions.
fn gateway(engine: &Engine, upstream: &Upstream, realm: &str) -> Builder {
    Gateway::builder()
        .engine_with(engine, "timeout = \"10s\"\nattempts = 2")
        .upstream("app", upstream)
        .realm(realm)
        .route("/", "optional", "writes = true\n[routes.headers]\nX-User = \"user\"\nX-Cart = \"cart\"")
        .route("/read-only", "optional", "[routes.headers]\nX-User = \"user\"")
}

/// Returns the user, the ref and the status that the app receives for a session.
async fn session_at_app(
    gateway: &Gateway,
    upstream: &Upstream,
    cookie: &str,
) -> (Option<String>, Option<String>, String) {
    assert_eq!(gateway.get("/read-only", cookie).await.status, 200);
    let last = upstream.last_request();
    let text = |name| last.header(name).map(str::to_owned);
    (text("x-user"), text("x-session-ref"), text("x-session-status").unwrap())
}

#[tokio::test]
async fn patch_creates_changes_and_empties_a_session() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let response = gateway.get(&patch_target(&json!({"user": "alice", "cart": {"a": 1}})), "").await;
    assert_eq!(response.status, 200);
    assert!(
        response.header("x-session-patch").is_none() && response.header("cache-control") == Some("private")
    );
    let first = set_cookie(&response);
    assert!(first.ends_with("/1"), "{first}");
    assert_eq!(session_at_app(&gateway, &upstream, &first).await.0.as_deref(), Some("alice"));

    let response =
        gateway.get(&patch_target(&json!({"cart": {"b": [2], "a": null}, "user": "bob"})), &first).await;
    let second = set_cookie(&response);
    assert_eq!(second, first.replace("/1", "/2"));
    let (user, ..) = session_at_app(&gateway, &upstream, &second).await;
    assert_eq!(user.as_deref(), Some("bob"));
    gateway.get("/", &second).await;
    assert_eq!(upstream.last_request().header("x-cart"), Some("{\"b\":[2]}"));

    // A patch without effect is not written.
    let response = gateway.get(&patch_target(&json!({"user": "bob"})), &second).await;
    assert!(response.set_cookies().is_empty());
    // A session without claims is deleted.
    let response = gateway.get(&patch_target(&json!({"user": null, "cart": null})), &second).await;
    assert!(response.set_cookies()[0].contains("Max-Age=0"), "{response:?}");
    assert_eq!(session_at_app(&gateway, &upstream, &second).await.2, "anonymous");
    assert_eq!(engine.counts().puts, 1);
}

#[tokio::test]
async fn cookie_of_a_reissued_session_is_sent_although_the_upstream_changes_nothing() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for (age, cookies) in [(Duration::ZERO, 0), (table::DUE, 1)] {
        let session = Session::new(json!({ "user": "alice" })).aged(age);
        session.put(&engine).await;
        let response = gateway.get(&patch_target(&json!({ "user": "alice" })), &session.cookie()).await;
        assert_eq!(response.set_cookies().len(), cookies, "{response:?}");
    }
}

/// The app has given the session a timeout of its own, and the row an attribute of its own.
#[tokio::test]
async fn rotation_keeps_what_the_app_wrote_besides_the_claims() {
    const ID: &str = "o4ZxEae4MvpPsj6S4j-TbBaQn_lh-85n";
    const COOKIE: &str =
        "connect.sid=s%3Ao4ZxEae4MvpPsj6S4j-TbBaQn_lh-85n.cNIxKgm8m2Ppwuzp4XtFlzs3%2FvihS0SKRPMIT1QUR9k";
    const PAYLOAD: &str =
        r#"{"cookie":{"originalMaxAge":3600000,"httpOnly":true,"path":"/"},"passport":{"user":"42"}}"#;
    let (engine, upstream) = (Engine::start(), session_commands::upstream());
    engine.call("CreateTable", table::schema_of(table::TABLE, "id", "S")).await;
    let row = json!({
        "id": { "S": format!("sess:{ID}") },
        "type": { "S": "connect-session" },
        "expires": { "N": (table::now() + 3000).to_string() },
        "sess": { "S": PAYLOAD },
        "owner": { "S": "42" },
    });
    engine.call("PutItem", json!({ "TableName": table::TABLE, "Item": row })).await;
    let realm = format!("[sessions.main]\nformat = \"express\"\ntable = \"{}\"", table::TABLE);
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .toml(&format!("{realm}\nkeys.current = {{ env = \"KEY\" }}"))
        .env("KEY", "keyboard cat")
        .route("/", "optional", "writes = true")
        .start()
        .await;
    let rotated = gateway.get(&command_target("/", &[("X-Session-Action", "rotate")]), COOKIE).await;
    assert!(!set_cookie(&rotated).contains(ID), "{rotated:?}");
    let rows = engine.call("Scan", json!({ "TableName": table::TABLE })).await;
    let [new] = rows["Items"].as_array().unwrap().as_slice() else { panic!("{rows}") };
    for name in ["type", "sess", "owner"] {
        assert_eq!(new[name], row[name], "{new}");
    }
    // Whole seconds, as everywhere.
    let left = number(new, "expires") - table::now();
    assert!((3590..=3600).contains(&left), "the session's own timeout, not the realm's: {left} s");
}

#[tokio::test]
async fn session_id_from_before_a_rotation_does_not_get_the_login() {
    for (realm, grace) in [("", false), ("rotation_grace = \"10s\"", true)] {
        let (engine, upstream) = (table::engine().await, session_commands::upstream());
        let builder = gateway(&engine, &upstream, "");
        let builder = if grace { native(&engine, &upstream, realm) } else { builder };
        let gateway = builder.start().await;
        let fixed = set_cookie(&gateway.get(&patch_target(&json!({"cart": 1})), "").await);
        let (.., status) = session_at_app(&gateway, &upstream, &fixed).await;
        assert_eq!(status, "guest");
        let login = command_target(
            "/",
            &[("X-Session-Patch", r#"{"user":"alice"}"#), ("X-Session-Action", "rotate")],
        );
        let logged_in = set_cookie(&gateway.get(&login, &fixed).await);
        assert_ne!(logged_in.split('/').next(), fixed.split('/').next());
        let (user, reference, _) = session_at_app(&gateway, &upstream, &logged_in).await;
        assert_eq!(user.as_deref(), Some("alice"));
        gateway.get("/", &logged_in).await;
        assert_eq!(upstream.last_request().header("x-cart"), Some("1"), "the claims are kept");
        let (user, old, status) = session_at_app(&gateway, &upstream, &fixed).await;
        assert_eq!(user, None, "the old id must not get the login");
        assert_eq!(status, if grace { "guest" } else { "anonymous" });
        assert_ne!(old, reference);
        if grace {
            let late = gateway.get(&patch_target(&json!({"user": "mallory"})), &fixed).await;
            assert_eq!((late.status, late.set_cookies().len()), (409, 0), "the old id must not write");
        }
    }
}

fn native(engine: &Engine, upstream: &Upstream, lines: &str) -> Builder {
    Gateway::builder()
        .engine(engine)
        .upstream("app", upstream)
        .toml(&format!(
            "[sessions.main]\nformat = \"native\"\ntable = \"{}\"\nreissue_time = \"0s\"\n{lines}",
            table::TABLE
        ))
        .route("/", "optional", "writes = true\n[routes.headers]\nX-User = \"user\"\nX-Cart = \"cart\"")
        .route("/read-only", "optional", "[routes.headers]\nX-User = \"user\"")
}

#[tokio::test]
async fn destroy_deletes_the_row_and_expires_the_cookie() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "[sessions.main.cache]\nttl = \"1m\"").start().await;
    let session = table::alice_session(&engine).await;
    let (_, _, status) = session_at_app(&gateway, &upstream, &session.cookie()).await;
    assert_eq!(status, "active");
    let response =
        gateway.get(&command_target("/", &[("X-Session-Action", "destroy")]), &session.cookie()).await;
    let expected =
        "session_id=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Strict";
    assert_eq!(response.set_cookies(), [expected]);
    assert_eq!(session.row(&engine).await, Value::Null);
    assert_eq!(session_at_app(&gateway, &upstream, &session.cookie()).await.2, "anonymous");
}

#[tokio::test]
async fn change_with_another_if_version_is_409() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let session = Session::new(json!({"user": "alice"})).version(7);
    session.put(&engine).await;
    let with = |version: &str| {
        command_target("/", &[("X-Session-Patch", r#"{"user":"bob"}"#), ("X-Session-If-Version", version)])
    };
    let refused = gateway.get(&with("6"), &session.cookie()).await;
    assert_eq!((refused.status, refused.set_cookies().len()), (409, 0));
    assert_eq!(refused.json()["title"], "Your session was changed by another request");
    assert_eq!(gateway.get(&with("7"), &session.cookie()).await.status, 200);
    assert_eq!(gateway.get(&with("7"), &session.cookie()).await.status, 409);
    assert_eq!(number(&session.row(&engine).await, "ver"), 8);
    assert_eq!(gateway.get(&with("1"), "").await.status, 409, "no session");
}

#[tokio::test]
async fn session_command_on_a_route_without_writes_is_ignored_and_logged() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let target = patch_target(&json!({"user": "mallory"})).replace('/', "/read-only");
    let response = gateway.get(&target, "").await;
    assert_eq!((response.status, response.set_cookies().len()), (200, 0));
    gateway.wait_for_line("sent a session command").await;
    assert_eq!(engine.counts().puts, 0);
}

#[tokio::test]
async fn invalid_session_command_is_502() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for target in [
        command_target("/", &[("X-Session-Patch", "[]")]),
        command_target("/", &[("X-Session-Patch", "{\"user\":")]),
        command_target("/", &[("X-Session-Action", "explode")]),
        command_target("/", &[("X-Session-Patch", "{}"), ("X-Session-Patch", "{}")]),
    ] {
        assert_eq!(gateway.get(&target, "").await.status, 502, "{target}");
    }
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn change_during_an_outage_is_503_and_has_no_effect() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "[sessions.main.cache]\nttl = \"1m\"").start().await;
    let session = table::alice_session(&engine).await;
    gateway.get("/", &session.cookie()).await;
    engine.inject(Affected::All, Fault::ServerError);
    for target in
        [patch_target(&json!({"user": "bob"})), command_target("/", &[("X-Session-Action", "rotate")])]
    {
        let response = gateway.get(&target, &session.cookie()).await;
        assert_eq!((response.status, response.set_cookies().len()), (503, 0));
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    engine.clear_faults();
    assert_eq!(session_at_app(&gateway, &upstream, &session.cookie()).await.0.as_deref(), Some("alice"));
}

#[tokio::test]
async fn change_to_more_than_400_kb_is_500_and_has_no_effect() {
    let (engine, upstream) = (
        table::engine().await,
        Upstream::responding(|request| {
            let size: usize = request.target[1..].parse().unwrap_or(0);
            let header = json!({ "more": "x".repeat(size) }).to_string();
            if size == 0 {
                ScriptedResponse::ok("ok")
            } else {
                ScriptedResponse::ok("ok").header("X-Session-Patch", &header)
            }
        }),
    );
    let gateway = gateway(&engine, &upstream, "").start().await;
    let session = Session::new(json!({"user": "alice", "filler": "x".repeat(390 * 1024)}));
    session.put(&engine).await;
    let response = gateway.get("/20000", &session.cookie()).await;
    assert_eq!((response.status, response.set_cookies().len()), (500, 0));
    assert_eq!(number(&session.row(&engine).await, "ver"), 1);
    assert_eq!(session_at_app(&gateway, &upstream, &session.cookie()).await.0.as_deref(), Some("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_concurrent_patches_of_different_claims_are_all_written() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let builder = || gateway(&engine, &upstream, "").server("workers = 1");
    let gateways = [builder().start().await, builder().start().await];
    let session = table::alice_session(&engine).await;
    let before = engine.counts().updates;
    let cookie = session.cookie();
    let requests = (0..1000).map(|number| {
        let (gateway, cookie) = (&gateways[number % 2], &cookie);
        async move {
            let target = patch_target(&json!({ format!("k{number}"): number }));
            gateway.get(&target, cookie).await.status
        }
    });
    let statuses: HashSet<_> = join_all(requests).await.into_iter().collect();
    let mut details: Vec<_> = gateways
        .iter()
        .flat_map(|g| g.events("request"))
        .filter(|e| e["status"] != 200)
        .map(|e| format!("{} {} {}", e["verdict"], e["detail"], e["ms"]))
        .collect();
    details.sort();
    details.dedup();
    assert_eq!(statuses, HashSet::from([200]), "{details:?}");
    let row = session.row(&engine).await;
    let claims: Value = serde_json::from_str(row["dat"]["S"].as_str().unwrap()).unwrap();
    let missing: Vec<_> = (0..1000).filter(|number| claims[format!("k{number}")] != json!(number)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let written = i64::try_from(engine.counts().updates - before).unwrap();
    assert_eq!(number(&row, "ver"), 1 + written);
}

#[tokio::test]
async fn change_of_a_session_deleted_meanwhile_is_409_and_does_not_recreate_it() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let session = table::alice_session(&engine).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("UpdateItem"), Fault::HoldRequest(gate.clone()));
    let (target, cookie) = (patch_target(&json!({"user": "bob"})), session.cookie());
    let (response, ()) = tokio::join!(gateway.get(&target, &cookie), async {
        gate.wait_for_arrival().await;
        session.delete(&engine).await;
        gate.open();
    });
    assert_eq!((response.status, response.set_cookies().len()), (409, 0));
    assert_eq!(session.row(&engine).await, Value::Null);
}

#[tokio::test]
async fn flash_messages_are_stored_in_pyramids_claim_and_delivered_once() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").route("/page", "optional", "flash = true").start().await;
    let session = Session::new(json!({"user": "alice", "_f_": ["from Pyramid, 100%"]}));
    session.put(&engine).await;
    let target = command_target("/", &[("X-Session-Flash", "Saved%2C all"), ("X-Session-Flash", "Zo%C3%AB")]);
    let cookie = set_cookie(&gateway.get(&target, &session.cookie()).await);
    let row = session.row(&engine).await;
    let claims: Value = serde_json::from_str(row["dat"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(claims["_f_"], json!(["from Pyramid, 100%", "Saved, all", "Zoë"]));

    let pages = join_all((0..5).map(|_| gateway.get("/page", &cookie))).await;
    assert!(pages.iter().all(|page| page.status == 200));
    let requests = upstream.requests();
    let received: Vec<_> = requests.iter().filter_map(|request| request.header("x-session-flash")).collect();
    assert_eq!(received, ["from Pyramid%2C 100%25,Saved%2C all,Zo%C3%AB"], "exactly one request has them");
    assert!(pages.iter().any(|page| !page.set_cookies().is_empty()));
    let row = session.row(&engine).await;
    assert!(!row["dat"]["S"].as_str().unwrap().contains("_f_"));
}

#[tokio::test]
async fn flash_messages_stay_in_the_session_on_a_route_without_flash() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").route("/form", "optional", "csrf = true").start().await;
    let session = Session::new(json!({"user": "alice", "_f_": ["later"]}));
    session.put(&engine).await;
    gateway.get("/form", &session.cookie()).await;
    let request = upstream.last_request();
    assert!(request.header("x-session-csrf").is_some() && request.header("x-session-flash").is_none());
    let row = session.row(&engine).await;
    assert!(row["dat"]["S"].as_str().unwrap().contains("later"), "{row:?}");
}

/// For example, "wrong password" for a visitor who has no other session data.
#[tokio::test]
async fn flash_message_of_a_visitor_without_claims_is_delivered() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").route("/page", "optional", "flash = true").start().await;
    let visitor =
        set_cookie(&gateway.get(&command_target("/", &[("X-Session-Flash", "Wrong password")]), "").await);
    let page = gateway.get("/page", &visitor).await;
    assert_eq!(upstream.last_request().header("x-session-flash"), Some("Wrong password"));
    let visitor = set_cookie(&page);
    gateway.get("/page", &visitor).await;
    assert_eq!(upstream.last_request().header("x-session-flash"), None, "delivered once");
    assert_eq!(gateway.get(&patch_target(&json!({"user": "alice"})), &visitor).await.status, 200);
    assert_eq!(upstream.last_request().header("x-session-status"), Some("guest"));
}

#[tokio::test]
async fn unsafe_request_from_another_site_without_the_csrf_token_is_403() {
    let (engine, upstream) = (table::engine().await, session_commands::upstream());
    let gateway = gateway(&engine, &upstream, "").route("/form", "optional", "csrf = true").start().await;
    let session = table::alice_session(&engine).await;
    let response = gateway.get("/form", &session.cookie()).await;
    let token = upstream.last_request().header("x-session-csrf").unwrap().to_owned();
    assert_eq!(token.len(), 64);
    let cookie = set_cookie(&response);
    gateway.get("/form", &cookie).await;
    assert_eq!(upstream.last_request().header("x-session-csrf"), Some(token.as_str()), "the token is kept");
    let row = session.row(&engine).await;
    assert!(row["dat"]["S"].as_str().unwrap().contains("_csrft_"), "Pyramid's claim");

    let post = || Request::post("/form", "x").cookie(&cookie);
    let before = upstream.request_count();
    for (request, expected) in [
        (post(), 403),
        (post().header("Sec-Fetch-Site", "cross-site"), 403),
        (post().header("Sec-Fetch-Site", "same-site"), 403),
        (post().header("Origin", "http://evil.example"), 403),
        (post().header("X-CSRF-Token", &token.replace(&token[..1], "x")), 403),
        (post().header("X-CSRF-Token", ""), 403),
        (Request::post("/form", "x").header("X-CSRF-Token", &token), 403),
        (post().header("Sec-Fetch-Site", "same-origin"), 200),
        (post().header("Origin", "http://gateway.test"), 200),
        (post().header("X-CSRF-Token", &token), 200),
        (post().header("Sec-Fetch-Site", "cross-site").header("X-CSRF-Token", &token), 200),
        (Request::post("/", "x").cookie(&cookie), 200),
    ] {
        assert_eq!(gateway.send(&request).await.status, expected, "{request:?}");
    }
    assert_eq!(upstream.request_count(), before + 5);
}

#[tokio::test]
async fn commands_work_on_every_writable_format() {
    let signed = "keys.current = \"0123456789abcdef0123456789abcdef\"";
    for (format, lines) in [
        ("native", ""),
        ("native", signed),
        ("pyramid", ""),
        ("django", signed),
        ("express", signed),
        ("dynamodb-store", signed),
        ("connect-dynamodb-session", signed),
        ("flask-session", ""),
        ("flask-session", signed),
        ("dynamodb-session-web", ""),
        ("rack", signed),
        ("adonis", signed),
    ] {
        let upstream = session_commands::upstream();
        let gateway = Gateway::builder()
            .upstream("app", &upstream)
            .toml(&format!("[sessions.main]\nformat = \"{format}\"\ntable = \"sessions\"\n{lines}"))
            .route("/", "optional", "writes = true\n[routes.headers]\nX-User = \"user\"\nX-Cart = \"cart\"")
            .route("/read-only", "optional", "[routes.headers]\nX-User = \"user\"")
            .start()
            .await;
        let first = set_cookie(
            &gateway.get(&patch_target(&json!({"user": "Zoë", "cart": {"a": [1, null]}})), "").await,
        );
        let (user, ..) = session_at_app(&gateway, &upstream, &first).await;
        assert_eq!(user.as_deref(), Some("Zo%C3%AB"), "{format}");
        let version = upstream.last_request().header("x-session-version").unwrap().to_owned();

        let patched = command_target(
            "/",
            &[("X-Session-Patch", r#"{"user":"bob"}"#), ("X-Session-If-Version", &version)],
        );
        let response = gateway.get(&patched, &first).await;
        assert_eq!(response.status, 200, "{format}: {}", gateway.log());
        let second = set_cookie(&response);
        assert_eq!(session_at_app(&gateway, &upstream, &second).await.0.as_deref(), Some("bob"), "{format}");
        gateway.get("/", &second).await;
        assert_eq!(upstream.last_request().header("x-cart"), Some("{\"a\":[1,null]}"), "{format}");
        assert_ne!(upstream.last_request().header("x-session-version"), Some(version.as_str()), "{format}");
        assert_eq!(gateway.get(&patched, &second).await.status, 409, "{format}");

        let login = command_target(
            "/",
            &[("X-Session-Patch", r#"{"user":"alice"}"#), ("X-Session-Action", "rotate")],
        );
        let response = gateway.get(&login, &second).await;
        assert_eq!(response.status, 200, "{format}: {}", gateway.log());
        let third = set_cookie(&response);
        assert_ne!(third, second, "{format}");
        assert_eq!(session_at_app(&gateway, &upstream, &third).await.0.as_deref(), Some("alice"), "{format}");
        let (user, ..) = session_at_app(&gateway, &upstream, &second).await;
        assert_ne!(user.as_deref(), Some("alice"), "{format}: the old id must not get the login");

        let destroyed = gateway.get(&command_target("/", &[("X-Session-Action", "destroy")]), &third).await;
        assert!(destroyed.set_cookies()[0].contains("Max-Age=0"), "{format}");
        assert_eq!(session_at_app(&gateway, &upstream, &third).await.2, "anonymous", "{format}");
    }
}

#[tokio::test]
async fn required_route_rejects_guests_of_every_format() {
    let signed = "keys.current = \"0123456789abcdef0123456789abcdef\"";
    for (format, lines, user) in [
        ("native", "", "user"),
        ("pyramid", "", "auth.userid"),
        ("django", signed, "_auth_user_id"),
        ("express", signed, "passport"),
        ("dynamodb-store", signed, "passport"),
        ("connect-dynamodb-session", signed, "passport"),
        ("flask-session", "", "_user_id"),
        ("dynamodb-session-web", "", "_user_id"),
        ("rack", signed, "warden.user.user.key"),
        ("adonis", signed, "auth_web"),
        (
            "layout",
            "layout = { payload = \"data\", expires = \"expires\" }\nuser = [\"missing\", \"account\"]",
            "account",
        ),
        (
            "layout",
            "layout = { payload = \"data\", expires = \"expires\", ids = { length = 7, alphabet = \"a-z.:\" } }\n\
             user = \"account\"",
            "account",
        ),
    ] {
        let upstream = session_commands::upstream();
        let gateway = Gateway::builder()
            .upstream("app", &upstream)
            .toml(&format!("[sessions.main]\nformat = \"{format}\"\ntable = \"sessions\"\n{lines}"))
            .route("/", "optional", "writes = true")
            .route("/read-only", "optional", "")
            .route("/session", "session", "")
            .route("/required", "required", "login = \"/login\"")
            .route("/admin", "session", "require = { role = \"admin\" }\nlogin = \"/login\"")
            .start()
            .await;
        let statuses = async |cookie: &str| {
            let mut statuses = Vec::new();
            for path in ["/required", "/session", "/admin"] {
                statuses.push(gateway.get(path, cookie).await.status);
            }
            statuses
        };
        let value = |name: &str| match user {
            "passport" => json!({ "passport": { "user": name } }),
            user => json!({ user: name }),
        };
        assert_eq!(statuses("").await, [401, 401, 401], "{format}: a visitor without a session");

        let guest = set_cookie(&gateway.get(&patch_target(&json!({ "cart": [1] })), "").await);
        assert_eq!(statuses(&guest).await, [401, 200, 401], "{format}: a guest: {}", gateway.log());
        assert_eq!(session_at_app(&gateway, &upstream, &guest).await.2, "guest", "{format}");
        let browser = Request::get("/required").header("Accept", "text/html").cookie(&guest);
        let redirect = gateway.send(&browser).await;
        assert_eq!((redirect.status, redirect.header("location")), (302, Some("/login")));
        assert!(redirect.set_cookies().is_empty(), "{format}: the guest keeps the session");

        let alice = set_cookie(&gateway.get(&patch_target(&value("alice")), &guest).await);
        assert_eq!(statuses(&alice).await, [200, 200, 403], "{format}: a user");
        assert_eq!(session_at_app(&gateway, &upstream, &alice).await.2, "active", "{format}");
        let admin = set_cookie(&gateway.get(&patch_target(&json!({ "role": ["admin"] })), &alice).await);
        assert_eq!(statuses(&admin).await, [200, 200, 200], "{format}: an admin");

        let empty = set_cookie(&gateway.get(&patch_target(&value("")), &admin).await);
        assert_eq!(statuses(&empty).await, [401, 200, 200], "{format}: an empty user");
    }
}

#[tokio::test]
async fn any_session_is_admitted_if_the_realm_does_not_say_which_claim_is_the_user() {
    let upstream = session_commands::upstream();
    let layout =
        "layout = { payload = \"data\", expires = \"expires\", ids = { length = 7, alphabet = \"a-z\" } }";
    let gateway = Gateway::builder()
        .upstream("app", &upstream)
        .toml(&format!("[sessions.main]\nformat = \"layout\"\ntable = \"sessions\"\n{layout}"))
        .route("/", "optional", "writes = true")
        .route("/session", "session", "")
        .start()
        .await;
    let cookie = set_cookie(&gateway.get(&patch_target(&json!({ "cart": [1] })), "").await);
    assert_eq!(gateway.get("/session", &cookie).await.status, 200);
    assert_eq!(gateway.get("/session", "").await.status, 401);
}
