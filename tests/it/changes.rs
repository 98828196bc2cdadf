//! What upstreams make of sessions by headers alone.
use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::client::{Request, Response};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::server::ReceivedRequest;
use crate::support::table::{self, Session, number};
use crate::support::upstream::Upstream;

/// An upstream that sends the session commands of the request's query: `?X-Session-Patch={…}&…`, percent-encoded.
fn obedient() -> Upstream {
    Upstream::responding(|request| obey(request, ScriptedResponse::ok("ok")))
}

/// Adds the session commands of the request's query to `answer`.
pub(crate) fn obey(request: &ReceivedRequest, answer: ScriptedResponse) -> ScriptedResponse {
    let (_, query) = request.target.split_once('?').unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('=')).fold(answer, |answer, (name, value)| {
        let value = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
        answer.header(name, &value)
    })
}

pub(crate) fn order(headers: &[(&str, &str)]) -> String {
    let encode = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let pairs: Vec<_> = headers.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    format!("/?{}", pairs.join("&"))
}

pub(crate) fn patch(claims: &Value) -> String {
    order(&[("X-Session-Patch", &claims.to_string())])
}

/// A realm of each format whose rows the harness can read, and a route that may change sessions.
fn gateway(engine: &Engine, upstream: &Upstream, realm: &str) -> Builder {
    Gateway::builder()
        .engine_with(engine, "timeout = \"10s\"\nattempts = 2")
        .upstream("app", upstream)
        .realm(realm)
        .route("/", "optional", "writes = true\n[routes.headers]\nX-User = \"user\"\nX-Cart = \"cart\"")
        .route("/read-only", "optional", "[routes.headers]\nX-User = \"user\"")
}

/// The cookie that a response gives: `name=value`.
pub(crate) fn cookie(response: &Response) -> String {
    let cookies = response.set_cookies();
    assert_eq!(cookies.len(), 1, "{response:?}");
    cookies[0].split(';').next().unwrap().to_owned()
}

/// What the session is to the app.
async fn seen(
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
async fn a_patch_makes_a_session_changes_it_and_leaves_nothing_of_itself() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let response = gateway.get(&patch(&json!({"user": "alice", "cart": {"a": 1}})), "").await;
    assert_eq!(response.status, 200);
    assert!(
        response.header("x-session-patch").is_none() && response.header("cache-control") == Some("private")
    );
    let first = cookie(&response);
    assert!(first.ends_with("/1"), "{first}");
    assert_eq!(seen(&gateway, &upstream, &first).await.0.as_deref(), Some("alice"));

    let response = gateway.get(&patch(&json!({"cart": {"b": [2], "a": null}, "user": "bob"})), &first).await;
    let second = cookie(&response);
    assert_eq!(second, first.replace("/1", "/2"));
    let (user, ..) = seen(&gateway, &upstream, &second).await;
    assert_eq!(user.as_deref(), Some("bob"));
    gateway.get("/", &second).await;
    assert_eq!(upstream.last_request().header("x-cart"), Some("{\"b\":[2]}"));

    // What changes nothing writes nothing.
    let response = gateway.get(&patch(&json!({"user": "bob"})), &second).await;
    assert!(response.set_cookies().is_empty());
    // A session without claims is none.
    let response = gateway.get(&patch(&json!({"user": null, "cart": null})), &second).await;
    assert!(response.set_cookies()[0].contains("Max-Age=0"), "{response:?}");
    assert_eq!(seen(&gateway, &upstream, &second).await.2, "anonymous");
    assert_eq!(engine.counts().puts, 1);
}

#[tokio::test]
async fn a_rotation_defeats_fixation() {
    for (realm, grace) in [("", false), ("rotation_grace = \"10s\"", true)] {
        let (engine, upstream) = (table::engine().await, obedient());
        let builder = gateway(&engine, &upstream, "");
        let builder = if grace { native(&engine, &upstream, realm) } else { builder };
        let gateway = builder.start().await;
        let planted = cookie(&gateway.get(&patch(&json!({"cart": 1})), "").await);
        let (.., status) = seen(&gateway, &upstream, &planted).await;
        assert_eq!(status, "guest");
        let login = order(&[("X-Session-Patch", r#"{"user":"alice"}"#), ("X-Session-Action", "rotate")]);
        let logged_in = cookie(&gateway.get(&login, &planted).await);
        assert_ne!(logged_in.split('/').next(), planted.split('/').next());
        let (user, reference, _) = seen(&gateway, &upstream, &logged_in).await;
        assert_eq!(user.as_deref(), Some("alice"));
        gateway.get("/", &logged_in).await;
        assert_eq!(upstream.last_request().header("x-cart"), Some("1"), "the claims come along");
        let (user, old, status) = seen(&gateway, &upstream, &planted).await;
        assert_eq!(user, None, "who knows the old id knows nothing of the log-in");
        assert_eq!(status, if grace { "guest" } else { "anonymous" });
        assert_ne!(old, reference);
        if grace {
            let late = gateway.get(&patch(&json!({"user": "mallory"})), &planted).await;
            assert_eq!((late.status, late.set_cookies().len()), (409, 0), "and changes nothing any more");
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
async fn destroy_deletes_the_row_and_takes_the_cookie() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "[sessions.main.cache]\nttl = \"1m\"").start().await;
    let session = Session::new(json!({"user": "alice"}));
    session.put(&engine).await;
    let (_, _, status) = seen(&gateway, &upstream, &session.cookie()).await;
    assert_eq!(status, "active");
    let response = gateway.get(&order(&[("X-Session-Action", "destroy")]), &session.cookie()).await;
    let expected =
        "session_id=; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; HttpOnly; SameSite=Strict";
    assert_eq!(response.set_cookies(), [expected]);
    assert_eq!(session.row(&engine).await, Value::Null);
    assert_eq!(seen(&gateway, &upstream, &session.cookie()).await.2, "anonymous");
}

#[tokio::test]
async fn if_version_refuses_what_was_made_of_an_older_session() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let session = Session::new(json!({"user": "alice"})).version(7);
    session.put(&engine).await;
    let with =
        |version: &str| order(&[("X-Session-Patch", r#"{"user":"bob"}"#), ("X-Session-If-Version", version)]);
    let refused = gateway.get(&with("6"), &session.cookie()).await;
    assert_eq!((refused.status, refused.set_cookies().len()), (409, 0));
    assert_eq!(refused.json()["title"], "Your session has changed meanwhile");
    assert_eq!(gateway.get(&with("7"), &session.cookie()).await.status, 200);
    assert_eq!(gateway.get(&with("7"), &session.cookie()).await.status, 409);
    assert_eq!(number(&session.row(&engine).await, "ver"), 8);
    assert_eq!(gateway.get(&with("1"), "").await.status, 409, "there is no session to have a version");
}

#[tokio::test]
async fn a_route_without_writes_changes_nothing() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let target = patch(&json!({"user": "mallory"})).replace('/', "/read-only");
    let response = gateway.get(&target, "").await;
    assert_eq!((response.status, response.set_cookies().len()), (200, 0));
    gateway.wait_for_line("sent a session command").await;
    assert_eq!(engine.counts().puts, 0);
}

#[tokio::test]
async fn what_is_no_order_is_the_upstreams_fault() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").start().await;
    for target in [
        order(&[("X-Session-Patch", "[]")]),
        order(&[("X-Session-Patch", "{\"user\":")]),
        order(&[("X-Session-Action", "explode")]),
        order(&[("X-Session-Patch", "{}"), ("X-Session-Patch", "{}")]),
    ] {
        assert_eq!(gateway.get(&target, "").await.status, 502, "{target}");
    }
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn a_store_that_is_away_leaves_no_half_of_a_change() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "[sessions.main.cache]\nttl = \"1m\"").start().await;
    let session = Session::new(json!({"user": "alice"}));
    session.put(&engine).await;
    gateway.get("/", &session.cookie()).await;
    engine.inject(Affected::All, Fault::ServerError);
    for target in [patch(&json!({"user": "bob"})), order(&[("X-Session-Action", "rotate")])] {
        let response = gateway.get(&target, &session.cookie()).await;
        assert_eq!((response.status, response.set_cookies().len()), (503, 0));
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    engine.clear_faults();
    assert_eq!(seen(&gateway, &upstream, &session.cookie()).await.0.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_session_over_400_kb_is_refused_and_the_old_one_stays() {
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
    assert_eq!(seen(&gateway, &upstream, &session.cookie()).await.0.as_deref(), Some("alice"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_concurrent_patches_of_different_claims_all_survive() {
    let (engine, upstream) = (table::engine().await, obedient());
    let builder = || gateway(&engine, &upstream, "").server("workers = 1");
    let gateways = [builder().start().await, builder().start().await];
    let session = Session::new(json!({"user": "alice"}));
    session.put(&engine).await;
    let before = engine.counts().updates;
    let cookie = session.cookie();
    let requests = (0..1000).map(|number| {
        let (gateway, cookie) = (&gateways[number % 2], &cookie);
        async move {
            let target = patch(&json!({ format!("k{number}"): number }));
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
async fn a_change_that_comes_after_the_end_brings_nothing_back() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").start().await;
    let session = Session::new(json!({"user": "alice"}));
    session.put(&engine).await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("UpdateItem"), Fault::HoldRequest(gate.clone()));
    let (target, cookie) = (patch(&json!({"user": "bob"})), session.cookie());
    let (response, ()) = tokio::join!(gateway.get(&target, &cookie), async {
        gate.wait_for_arrival().await;
        session.delete(&engine).await;
        gate.open();
    });
    assert_eq!((response.status, response.set_cookies().len()), (409, 0));
    assert_eq!(session.row(&engine).await, Value::Null);
}

#[tokio::test]
async fn flash_messages_come_once_and_are_pyramids() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").route("/page", "optional", "flash = true").start().await;
    let session = Session::new(json!({"user": "alice", "_f_": ["from Pyramid, 100%"]}));
    session.put(&engine).await;
    let target = order(&[("X-Session-Flash", "Saved%2C all"), ("X-Session-Flash", "Zo%C3%AB")]);
    let cookie1 = cookie(&gateway.get(&target, &session.cookie()).await);
    let row = session.row(&engine).await;
    let claims: Value = serde_json::from_str(row["dat"]["S"].as_str().unwrap()).unwrap();
    assert_eq!(claims["_f_"], json!(["from Pyramid, 100%", "Saved, all", "Zoë"]));

    let pages = join_all((0..5).map(|_| gateway.get("/page", &cookie1))).await;
    assert!(pages.iter().all(|page| page.status == 200));
    let requests = upstream.requests();
    let received: Vec<_> = requests.iter().filter_map(|request| request.header("x-session-flash")).collect();
    assert_eq!(received, ["from Pyramid%2C 100%25,Saved%2C all,Zo%C3%AB"], "exactly one request has them");
    assert!(pages.iter().any(|page| !page.set_cookies().is_empty()));
    let row = session.row(&engine).await;
    assert!(!row["dat"]["S"].as_str().unwrap().contains("_f_"));
}

/// Such as "wrong password" to a visitor, who has no session besides.
#[tokio::test]
async fn message_of_a_session_with_nothing_else_reaches_the_app() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").route("/page", "optional", "flash = true").start().await;
    let visitor = cookie(&gateway.get(&order(&[("X-Session-Flash", "Wrong password")]), "").await);
    let page = gateway.get("/page", &visitor).await;
    assert_eq!(upstream.last_request().header("x-session-flash"), Some("Wrong password"));
    let visitor = cookie(&page);
    gateway.get("/page", &visitor).await;
    assert_eq!(upstream.last_request().header("x-session-flash"), None, "it comes once");
    assert_eq!(gateway.get(&patch(&json!({"user": "alice"})), &visitor).await.status, 200);
    assert_eq!(upstream.last_request().header("x-session-status"), Some("guest"));
}

#[tokio::test]
async fn unsafe_methods_must_come_from_this_site_or_bring_the_token() {
    let (engine, upstream) = (table::engine().await, obedient());
    let gateway = gateway(&engine, &upstream, "").route("/form", "optional", "csrf = true").start().await;
    let session = Session::new(json!({"user": "alice"}));
    session.put(&engine).await;
    let response = gateway.get("/form", &session.cookie()).await;
    let token = upstream.last_request().header("x-session-csrf").unwrap().to_owned();
    assert_eq!(token.len(), 64);
    let cookie = cookie(&response);
    gateway.get("/form", &cookie).await;
    assert_eq!(upstream.last_request().header("x-session-csrf"), Some(token.as_str()), "the token stays");
    let row = session.row(&engine).await;
    assert!(row["dat"]["S"].as_str().unwrap().contains("_csrft_"), "where Pyramid looks for it");

    let post = || Request::post("/form", "x").cookie(&cookie);
    let hits = upstream.request_count();
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
    assert_eq!(upstream.request_count(), hits + 5);
}

#[tokio::test]
async fn sessions_of_every_format_that_can_be_written_are_changed_alike() {
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
        let upstream = obedient();
        let gateway = Gateway::builder()
            .upstream("app", &upstream)
            .toml(&format!("[sessions.main]\nformat = \"{format}\"\ntable = \"sessions\"\n{lines}"))
            .route("/", "optional", "writes = true\n[routes.headers]\nX-User = \"user\"\nX-Cart = \"cart\"")
            .route("/read-only", "optional", "[routes.headers]\nX-User = \"user\"")
            .start()
            .await;
        let first = cookie(&gateway.get(&patch(&json!({"user": "Zoë", "cart": {"a": [1, null]}})), "").await);
        let (user, ..) = seen(&gateway, &upstream, &first).await;
        assert_eq!(user.as_deref(), Some("Zo%C3%AB"), "{format}");
        let version = upstream.last_request().header("x-session-version").unwrap().to_owned();

        let patched = order(&[("X-Session-Patch", r#"{"user":"bob"}"#), ("X-Session-If-Version", &version)]);
        let response = gateway.get(&patched, &first).await;
        assert_eq!(response.status, 200, "{format}: {}", gateway.log());
        let second = cookie(&response);
        assert_eq!(seen(&gateway, &upstream, &second).await.0.as_deref(), Some("bob"), "{format}");
        gateway.get("/", &second).await;
        assert_eq!(upstream.last_request().header("x-cart"), Some("{\"a\":[1,null]}"), "{format}");
        assert_ne!(upstream.last_request().header("x-session-version"), Some(version.as_str()), "{format}");
        assert_eq!(gateway.get(&patched, &second).await.status, 409, "{format}");

        let login = order(&[("X-Session-Patch", r#"{"user":"alice"}"#), ("X-Session-Action", "rotate")]);
        let response = gateway.get(&login, &second).await;
        assert_eq!(response.status, 200, "{format}: {}", gateway.log());
        let third = cookie(&response);
        assert_ne!(third, second, "{format}");
        assert_eq!(seen(&gateway, &upstream, &third).await.0.as_deref(), Some("alice"), "{format}");
        let (user, ..) = seen(&gateway, &upstream, &second).await;
        assert_ne!(user.as_deref(), Some("alice"), "{format}: the old id knows nothing of the log-in");

        let ended = gateway.get(&order(&[("X-Session-Action", "destroy")]), &third).await;
        assert!(ended.set_cookies()[0].contains("Max-Age=0"), "{format}");
        assert_eq!(seen(&gateway, &upstream, &third).await.2, "anonymous", "{format}");
    }
}

#[tokio::test]
async fn guest_of_every_format_is_turned_away_until_a_user_is_logged_in() {
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
        let upstream = obedient();
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

        let guest = cookie(&gateway.get(&patch(&json!({ "cart": [1] })), "").await);
        assert_eq!(statuses(&guest).await, [401, 200, 401], "{format}: a guest: {}", gateway.log());
        assert_eq!(seen(&gateway, &upstream, &guest).await.2, "guest", "{format}");
        let browser = Request::get("/required").header("Accept", "text/html").cookie(&guest);
        let sent_to_log_in = gateway.send(&browser).await;
        assert_eq!((sent_to_log_in.status, sent_to_log_in.header("location")), (302, Some("/login")));
        assert!(sent_to_log_in.set_cookies().is_empty(), "{format}: the guest's session stays");

        let alice = cookie(&gateway.get(&patch(&value("alice")), &guest).await);
        assert_eq!(statuses(&alice).await, [200, 200, 403], "{format}: a user");
        assert_eq!(seen(&gateway, &upstream, &alice).await.2, "active", "{format}");
        let admin = cookie(&gateway.get(&patch(&json!({ "role": ["admin"] })), &alice).await);
        assert_eq!(statuses(&admin).await, [200, 200, 200], "{format}: an admin");

        let nobody = cookie(&gateway.get(&patch(&value("")), &admin).await);
        assert_eq!(statuses(&nobody).await, [401, 200, 200], "{format}: whose user is empty");
    }
}
