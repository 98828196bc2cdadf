//! Access rules, the headers made from claims, and the responses to refused requests.

use serde_json::json;

use crate::support::client::Request;
use crate::support::engine::Engine;
use crate::support::gateway::{Gateway, field};
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

async fn put_session(engine: &Engine, claims: serde_json::Value) -> Session {
    let session = Session::new(claims);
    session.put(engine).await;
    session
}

async fn start_gateway(engine: &Engine, upstream: &Upstream) -> Gateway {
    Gateway::builder()
        .engine(engine)
        .upstream("app", upstream)
        .realm("")
        .route("/", "required", "login = \"/login?next={uri}\"")
        .route("/api", "required", "")
        .route("/admin", "required", "require = { role = [\"admin\", \"staff\"], level = 3 }")
        .route("/login", "public", "")
        .start()
        .await
}

#[tokio::test]
async fn page_request_without_a_session_is_redirected_to_the_login_page_with_its_uri() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = start_gateway(&engine, &upstream).await;
    let page = |target: &str| Request::get(target).header("Accept", "text/html,*/*;q=0.8");
    let response = gateway.send(&page("/a%20b?x=1&y=//evil")).await;
    assert_eq!(response.status, 302);
    assert_eq!(response.header("location"), Some("/login?next=%2Fa%2520b%3Fx%3D1%26y%3D%2F%2Fevil"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert!(response.set_cookies().is_empty());
    let (mode, dest) = (("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document"));
    for metadata in [&[mode, dest][..], &[mode], &[dest]] {
        let navigation = metadata.iter().fold(page("/"), |page, (name, value)| page.header(name, value));
        assert_eq!(gateway.send(&navigation).await.status, 302, "{metadata:?}");
    }
    assert_eq!(gateway.send(&Request::new("HEAD", "/").header("Accept", "text/html")).await.status, 302);
    assert_eq!(upstream.request_count(), 0);
    assert_eq!(gateway.get("/login", "").await.status, 200);
}

#[tokio::test]
async fn other_request_without_a_session_is_401() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = start_gateway(&engine, &upstream).await;
    let page = || Request::get("/").header("Accept", "text/html");
    let requests = [
        Request::get("/"),
        Request::get("/").header("Accept", "application/json, text/html;q=0.1"),
        Request::post("/", "x").header("Accept", "text/html"),
        page().header("X-Requested-With", "XMLHttpRequest"),
        page().header("Sec-Fetch-Mode", "cors").header("Sec-Fetch-Dest", "empty"),
        page().header("Sec-Fetch-Mode", "navigate").header("Sec-Fetch-Dest", "image"),
        page().header("Sec-Fetch-Mode", "cors").header("Sec-Fetch-Dest", "document"),
        page().header("Sec-Fetch-Mode", "cors"),
        page().header("Connection", "Upgrade").header("Upgrade", "websocket"),
        page().header("Content-Type", "application/grpc"),
        Request::get("/api").header("Accept", "text/html"),
    ];
    for request in requests {
        let response = gateway.send(&request).await;
        assert_eq!(response.status, 401, "{request:?}");
        assert_eq!(
            response.header("www-authenticate"),
            Some("Cookie realm=\"main\", cookie-name=\"session_id\"")
        );
        assert!(response.set_cookies().is_empty());
    }
    let problem = gateway.get("/api", "").await;
    assert_eq!(problem.header("content-type"), Some("application/problem+json"));
    assert_eq!((&problem.json()["status"], &problem.json()["type"]), (&json!(401), &json!("about:blank")));
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn session_without_all_required_claims_is_403() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = start_gateway(&engine, &upstream).await;
    for (claims, expected) in [
        (json!({"user": "alice", "role": "admin", "level": 3}), 200),
        (json!({"user": "alice", "role": ["guest", "staff"], "level": 3}), 200),
        (json!({"user": "alice", "role": "admin", "level": "3"}), 403),
        (json!({"user": "alice", "role": "admin"}), 403),
        (json!({"user": "alice", "role": "administrator", "level": 3}), 403),
        (json!({"user": "alice", "role": {"admin": true}, "level": 3}), 403),
        (json!({"user": "alice", "x": 1}), 403),
        (json!({"role": "admin", "level": 3}), 401),
    ] {
        let session = put_session(&engine, claims.clone()).await;
        assert_eq!(gateway.get("/admin", &session.cookie()).await.status, expected, "{claims}");
    }
    assert_eq!(upstream.request_count(), 2);
}

#[tokio::test]
async fn claims_are_sent_as_encoded_headers() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let headers = r#"
[routes.headers]
X-User = "user.name"
X-Roles = { claim = "roles", join = ";" }
X-Greeting = { template = "{user.name} of {tenant} ({{x}})" }
X-Name-Utf8 = { claim = "name", encoding = "utf8" }
X-Name-B64 = { claim = "name", encoding = "base64" }
X-Name = "name"
X-Missing = "missing"
X-Id = "auth.userid"
"#;
    let gateway = Gateway::builder()
        .engine(&engine)
        .server("workers = 1\nmax_header_bytes = \"512B\"")
        .upstream("app", &upstream)
        .realm("")
        .route("/", "required", headers)
        .start()
        .await;
    let claims = json!({
        "user": {"name": "alice\r\nX-Admin: yes"}, "roles": ["a;b", "c", 7, true], "tenant": "acme", "name": "Zoë",
        "auth.userid": 42,
    });
    let session = put_session(&engine, claims).await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    let seen = upstream.only_request();
    for (name, expected) in [
        ("x-user", Some("alice%0D%0AX-Admin: yes")),
        ("x-roles", Some("a%3Bb;c;7;true")),
        ("x-greeting", Some("alice%0D%0AX-Admin: yes of acme ({x})")),
        ("x-name-utf8", Some("Zoë")),
        ("x-name-b64", Some("Wm/Dqw==")),
        ("x-name", Some("Zo%C3%AB")),
        ("x-missing", None),
        ("x-id", Some("42")),
        ("x-admin", None),
    ] {
        assert_eq!(seen.header(name), expected, "{name}");
    }

    let large = put_session(&engine, json!({"user": {"name": "x".repeat(600)}})).await;
    let response = gateway.get("/", &large.cookie()).await;
    assert_eq!((response.status, upstream.request_count()), (500, 1));
    let event = gateway.wait_for_event("the large header", |event| field(event, "header") == "x-user").await;
    assert!(!event.to_string().contains("xxx"), "{event}");
}

#[tokio::test]
async fn forward_cookie_false_removes_only_the_session_cookie() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("forward_cookie = false")
        .toml("[sessions.other]\nformat = \"pyramid\"\ntable = \"sessions\"\ncookie.name = \"other\"")
        .route("/", "optional", "")
        .route("/public", "public", "")
        .toml("[[routes]]\npath = \"/other\"\nsession = \"other\"\naccess = \"optional\"\nupstream = \"app\"")
        .start()
        .await;
    let session = put_session(&engine, json!({"user": "alice"})).await;
    let own = session.cookie();
    for (sent, expected) in [
        (format!("a=1; {own}; b=\"2 ; 3\""), Some("a=1; b=\"2 ; 3\"")),
        (own.clone(), None),
        (format!("{own};  x=y"), Some("x=y")),
        (format!("a=1; session_id=garbage; {own}"), Some("a=1")),
        ("a=1;b=2;;c".to_owned(), Some("a=1;b=2;;c")),
    ] {
        gateway.get("/", &sent).await;
        assert_eq!(upstream.last_request().header("cookie"), expected, "{sent}");
    }
    for path in ["/public", "/other"] {
        gateway.get(path, &format!("a=1; {own}")).await;
        assert_eq!(upstream.last_request().header("cookie"), Some("a=1"), "{path}");
    }
    let two = Request::get("/").cookie(&format!("a=1; {own}")).cookie("b=2");
    gateway.send(&two).await;
    assert_eq!(
        upstream.last_request().all("cookie"),
        ["a=1; b=2"],
        "one Cookie line (RFC 6265, section 5.4)"
    );
}
