//! Scrubbing: no client can send a header that only the gateway may send, in any spelling, on any kind of route.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use crate::support::client::{Client, Request};
use crate::support::gateway::{Builder, Gateway};
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

/// Headers that the gateway injects on some route.
const INJECTED: [&str; 11] = [
    "X-User",
    "X-Roles",
    "Remote-User",
    "X-Session-Status",
    "X-Session-Ref",
    "X-Session-Version",
    "X-Session-Expires",
    "X-Session-Anything",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Env",
];
/// A value that no claim has, so only a client can have sent it.
const FORGED: &str = "forged";

/// Returns a gateway with routes of several kinds, of which one injects all headers.
fn gateway(upstream: &Upstream, engine: &crate::support::engine::Engine, odd: &str) -> Builder {
    Gateway::builder()
        .engine(engine)
        .server(&format!("workers = 1\nodd_headers = \"{odd}\""))
        .upstream("app", upstream)
        .realm("")
        .route(
            "/required",
            "required",
            "[routes.headers]\nX-User = \"user\"\nX-Roles = \"roles\"\nRemote-User = \"nobody\"",
        )
        .route(
            "/optional",
            "optional",
            "[routes.headers]\nX-User = \"user\"\n[routes.request_headers]\nset = { X-Env = \"prod\" }",
        )
        .route("/", "public", "")
}

/// Returns `name` as CGI and WSGI servers see it.
fn folded(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// Generates spellings that fold to `name`: any case, and any token character for each `-`.
fn spelling(name: &'static str) -> impl Strategy<Value = String> {
    let odd = prop::sample::select("-_.!#$%&'*+^`|~".chars().collect::<Vec<_>>());
    prop::collection::vec((odd, any::<bool>()), name.len()).prop_map(move |choices| {
        let spelled = name.chars().zip(choices).map(|(c, (odd, upper))| match c {
            '-' => odd,
            c if upper => c.to_ascii_uppercase(),
            c => c.to_ascii_lowercase(),
        });
        spelled.collect()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn injected_headers_of_clients_are_removed_in_every_spelling() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice", "roles": ["a", "b"] }));
    session.put(&engine).await;
    let gateways = [
        gateway(&upstream, &engine, "drop").start().await,
        gateway(&upstream, &engine, "pass").start().await,
    ];
    let one = prop::sample::select(&INJECTED[..]).prop_flat_map(spelling);
    let many = prop::collection::vec(one, 1..6);
    let requests = (
        many,
        prop::sample::select(vec!["/required", "/optional", "/public", "/"]),
        prop::sample::select(vec!["GET", "OPTIONS", "POST", "HEAD"]),
        prop::sample::select(vec![
            "",
            "X-User",
            "x-user, X-Session-Status, X-Forwarded-For, Host, Via",
            "Remote-User",
        ]),
        0..2usize,
    );
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let runtime = tokio::runtime::Handle::current();
    let check = |(names, path, method, nominated, which): (Vec<String>, &str, &str, &str, usize)| {
        let mut request = Request::new(method, path).cookie(&session.cookie());
        for name in &names {
            request = request.header(name, FORGED);
        }
        if !nominated.is_empty() {
            request = request.header("Connection", "keep-alive").header("Connection", nominated);
        }
        let before = upstream.request_count();
        let response = runtime.block_on(request.send(gateways[which].address()));
        prop_assert_eq!(response.status, 200, "{}", response.text());
        prop_assert_eq!(upstream.request_count(), before + 1);
        let seen = upstream.last_request();
        for (name, value) in &seen.message.headers {
            prop_assert!(!value.contains(FORGED), "{}: {}", name, value);
        }
        for injected in INJECTED {
            let count =
                seen.message.headers.iter().filter(|(name, _)| folded(name) == folded(injected)).count();
            prop_assert!(count <= 1, "{}: {} times", injected, count);
        }
        prop_assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        let expected = match path {
            "/required" => (Some("alice"), Some("a,b"), "active"),
            "/optional" => (Some("alice"), None, "active"),
            _ => (None, None, "anonymous"),
        };
        let actual =
            (seen.header("x-user"), seen.header("x-roles"), seen.header("x-session-status").unwrap());
        prop_assert_eq!(actual, expected);
        prop_assert_eq!(seen.header("remote-user"), None);
        prop_assert_eq!(seen.header("x-env"), (path == "/optional").then_some("prod"));
        Ok(())
    };
    tokio::task::block_in_place(|| runner.run(&requests, check)).unwrap();
}

#[tokio::test]
async fn forwarding_headers_of_an_untrusted_client_are_replaced_or_removed() {
    let upstream = Upstream::start();
    let engine = table::engine().await;
    let gateway = gateway(&upstream, &engine, "pass").start().await;
    let mut request = Request::get("/");
    let names = [
        "Forwarded",
        "X-Forwarded-Host",
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X-Forwarded-Uri",
        "X_Forwarded_For",
        "X-Real-IP",
        "Proxy",
        "Content_Length",
        "Transfer.Encoding",
    ];
    for name in names {
        request = request.header(name, "6.6.6.6");
    }
    assert_eq!(gateway.send(&request).await.status, 200);
    let seen = upstream.only_request();
    for (name, value) in &seen.message.headers {
        assert!(!value.contains("6.6.6.6"), "{name}: {value}");
    }
    assert_eq!(seen.header("forwarded"), Some("for=127.0.0.1;host=\"gateway.test\";proto=http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("gateway.test"));
    assert_eq!(seen.header("via"), Some("1.1 sessiongate"));
}

#[tokio::test]
async fn forwarding_headers_of_a_trusted_proxy_are_used() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(table::DUE);
    session.put(&engine).await;
    let trusting = "address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";
    let gateway = gateway(&upstream, &engine, "drop").listener(trusting).start().await;
    let request = Request::get("/optional")
        .header("X-Forwarded-For", "6.6.6.6, 9.9.9.9")
        .header("X-Forwarded-For", "10.1.2.3")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "public.example")
        .header("X-Forwarded-Prefix", "/app")
        .cookie(&session.cookie());
    let response = gateway.send(&request).await;
    let seen = upstream.only_request();
    assert_eq!(seen.header("x-forwarded-for"), Some("6.6.6.6, 9.9.9.9, 10.1.2.3, 127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert_eq!(seen.header("x-forwarded-host"), Some("public.example"));
    assert_eq!(seen.header("x-forwarded-prefix"), Some("/app"));
    assert!(response.set_cookies()[0].contains("; Secure"), "the client used TLS: {response:?}");
    let line = gateway.wait_for_event("line", |event| event["target"] == "access").await;
    assert_eq!(crate::support::gateway::field(&line, "client"), "9.9.9.9");
}

#[tokio::test]
async fn header_names_with_odd_characters_are_removed_unless_odd_headers_is_pass() {
    let upstream = Upstream::start();
    let engine = table::engine().await;
    for (odd, expected) in [("drop", None), ("pass", Some("1"))] {
        let gateway = gateway(&upstream, &engine, odd).start().await;
        gateway.send(&Request::get("/").header("api_key", "1")).await;
        assert_eq!(upstream.last_request().header("api_key"), expected);
    }
}

/// Headers in which frameworks, servers and rewriting modules find another method, host or path.
const OVERRIDES: [&str; 18] = [
    "Path-Info",
    "Script-Name",
    "X-Envoy-Original-Path",
    "X-Host",
    "X-HTTP-Host-Override",
    "X-HTTP-Method",
    "X-HTTP-Method-Override",
    "X-Method-Override",
    "X-Original-Host",
    "X-Original-Method",
    "X-Original-Path",
    "X-Original-Pathname",
    "X-Original-URI",
    "X-Original-URL",
    "X-Request-URI",
    "X-Rewrite-URL",
    "X-Script-Name",
    "X-WAWS-Unencoded-URL",
];

#[tokio::test]
async fn headers_that_override_method_host_or_path_are_removed() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    // The gateway matches a trusted proxy's request by its path, too, so it removes these headers from it.
    let trusting = "address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]";
    for odd in ["drop", "pass"] {
        let gateway = gateway(&upstream, &engine, odd).listener(trusting).start().await;
        let request = OVERRIDES.iter().fold(Request::post("/public", "abc"), |request, name| {
            let folded = name.replace('-', "_");
            request.header(name, FORGED).header(&folded, FORGED).header(&name.replace('-', "."), FORGED)
        });
        assert_eq!(gateway.send(&request).await.status, 200);
        let seen = upstream.last_request();
        for (name, value) in &seen.message.headers {
            assert!(!value.contains(FORGED), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn override_headers_are_forwarded_on_routes_that_allow_them() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let allowed = "allow_overrides = [\"X-HTTP-Method-Override\", \"X-Script-Name\"]";
    let gateway = gateway(&upstream, &engine, "pass")
        .route("/api", "public", allowed)
        .route("/mounted", "public", "allow_overrides = [\"x-script-name\"]")
        .start()
        .await;
    for (path, expected) in [
        ("/api", &["x-http-method-override", "x-script-name"][..]),
        ("/mounted", &["x-script-name"]),
        ("/public", &[]),
        ("/optional", &[]),
    ] {
        let request = OVERRIDES.iter().fold(Request::post(path, "abc"), |request, name| {
            request.header(name, FORGED).header(&name.replace('-', "_"), FORGED)
        });
        assert_eq!(gateway.send(&request).await.status, 200);
        let seen = upstream.last_request();
        let forwarded = seen.message.headers.iter().filter(|(_, value)| value == FORGED);
        let mut forwarded: Vec<_> = forwarded.map(|(name, _)| name.to_ascii_lowercase()).collect();
        forwarded.sort_unstable();
        assert_eq!(forwarded, expected, "{path}");
    }
}

#[tokio::test]
async fn request_trailers_are_removed() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&upstream, &engine, "drop").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client
        .send(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-User\r\nTE: trailers\r\n\r\n\
             3\r\nabc\r\n0\r\nX-User: forged\r\nX-Session-Status: forged\r\n\r\n",
        )
        .await;
    assert_eq!(client.read_response().await.unwrap().status, 200);
    let seen = upstream.only_request();
    assert_eq!(seen.message.body, b"abc");
    assert!(seen.message.trailers.is_empty());
    assert_eq!((seen.header("trailer"), seen.header("te"), seen.header("x-user")), (None, None, None));
}

/// Otherwise a client could remove headers that the gateway or a proxy in front of it has set.
#[tokio::test]
async fn connection_header_removes_only_hop_by_hop_headers() {
    let engine = table::engine().await;
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .listener("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]")
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await;
    let session = table::alice_session(&engine).await;
    let kept = [
        ("Content-Type", "text/plain"),
        ("Authorization", "Basic YTpi"),
        ("Origin", "http://gateway.test"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Cache-Control", "no-cache"),
        ("X-Forwarded-Port", "8443"),
    ];
    let mut request = Request::post("/", "abc").cookie(&format!("other=1; {}", session.cookie()));
    request = request.header("X-Forwarded-For", "192.0.2.7").header("X-Hop", "1").header("X-Other", "2");
    for (name, value) in kept {
        request = request.header(name, value).header("Connection", name);
    }
    let names = "host, content-length,COOKIE, x-forwarded-for, x-forwarded-proto, forwarded, x-user, \
                x-session-status, x-request-id, traceparent, via, X-Hop";
    assert_eq!(request.header("Connection", names).send(gateway.address()).await.status, 200);
    let seen = upstream.only_request();
    for (name, value) in kept {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    for (name, value) in [
        ("host", "gateway.test"),
        ("content-length", "3"),
        ("x-forwarded-for", "192.0.2.7, 127.0.0.1"),
        ("x-user", "alice"),
        ("x-session-status", "active"),
        ("x-other", "2"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    for name in ["cookie", "forwarded", "x-forwarded-proto", "x-request-id", "traceparent", "via"] {
        assert!(seen.header(name).is_some(), "{name}");
    }
    assert_eq!((seen.header("x-hop"), seen.header("connection")), (None, None));
}
