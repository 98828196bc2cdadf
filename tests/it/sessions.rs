//! Session lookups: what browsers and upstreams receive, and the operations on the table.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sessiongate::config::KeysConfig;
use sessiongate::format::native::Native;
use sessiongate::format::{Format, SessionId};
use sessiongate::secret::Secret;

use crate::support::client::{Client, Request, sorted_attributes};
use crate::support::engine::{Affected, Counts, Engine, Fault, Outcome};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway};
use crate::support::table::{self, DUE, Session, TIMEOUT, number};
use crate::support::upstream::Upstream;

const HEADERS: &str = "[routes.headers]\nX-User = \"user\"";
/// Rows stay cached for the whole test.
const LONG_CACHE: &str = "[sessions.main.cache]\nttl = \"1m\"";

/// Returns a gateway with a required and an optional route.
fn gateway(engine: &Engine, upstream: &Upstream) -> Builder {
    Gateway::builder().engine(engine).upstream("app", upstream).route("/", "required", HEADERS).route(
        "/optional",
        "optional",
        HEADERS,
    )
}

#[tokio::test]
async fn upstream_gets_the_session_headers_and_the_log_has_no_secrets() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;

    let response = gateway.get("/page", &session.cookie()).await;

    assert_eq!(response.status, 200);
    assert!(response.set_cookies().is_empty());
    let seen = upstream.only_request();
    assert_eq!(seen.header("x-user"), Some("alice"));
    assert_eq!(seen.header("x-session-status"), Some("active"));
    assert_eq!(seen.header("x-session-version"), Some("1"));
    assert_eq!(seen.header("x-session-expires"), Some(session.expires.to_string().as_str()));
    assert_eq!(seen.header("x-session-ref").map(str::len), Some(16));
    assert_eq!(seen.header("cookie"), Some(session.cookie().as_str()));
    let (status, log) = gateway.terminate().await;
    assert!(status.success(), "{status}");
    assert!(!log.contains(&session.id) && !log.contains("alice"), "{log}");
}

#[tokio::test]
async fn concurrent_requests_for_a_due_session_cost_one_read_per_gateway_and_one_write() {
    const REQUESTS: usize = 1000;
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(&engine).await;
    let store = "timeout = \"20s\"\nattempts = 1";
    let builder =
        || gateway(&engine, &upstream).realm(LONG_CACHE).server("workers = 2").engine_with(&engine, store);
    let gateways = [builder().start().await, builder().start().await];
    let start_up = engine.counts();
    // The write is held, so that every request finds the session due.
    let gate = Gate::closed();
    engine.inject(Affected::Only("UpdateItem"), Fault::HoldRequest(gate.clone()));

    let cookie = session.cookie();
    let requests = (0..REQUESTS).map(|number| gateways[number % 2].get("/", &cookie));
    let responses = join_all(requests).await;

    for response in &responses {
        assert_eq!((response.status, response.set_cookies().len()), (200, 1));
        assert_eq!(
            sorted_attributes(response.set_cookies()[0]),
            format!("{cookie}; HttpOnly; Path=/; SameSite=Strict")
        );
    }
    assert_eq!(upstream.request_count(), REQUESTS);
    gate.open();
    let both = |all: &Vec<_>| all.iter().filter(|op| is_update(op) && op.outcome.is_some()).count() == 2;
    engine.wait_until("both gateways' writes", both).await;
    let counts = engine.counts();
    assert_eq!((counts.updates, counts.failed_conditions), (1, 1));
    let reads = counts.eventual_reads + counts.strong_reads;
    assert_eq!(reads - start_up.eventual_reads - start_up.strong_reads, 2, "one read by each gateway");
    let row = session.row(&engine).await;
    assert!(number(&row, "iss") > session.issued + 200);
    assert_eq!(number(&row, "exp") - number(&row, "iss"), number(&session.item(), "exp") - session.issued);
    assert_eq!((&row["ver"], &row["dat"]), (&session.item()["ver"], &session.item()["dat"]));
}

#[tokio::test]
async fn reissue_does_not_recreate_a_deleted_session() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(&engine).await;
    let gateway = gateway(&engine, &upstream).realm(LONG_CACHE).start().await;
    let gate = Gate::closed();
    engine.inject(Affected::Only("UpdateItem"), Fault::HoldRequest(gate.clone()));

    let response = gateway.get("/", &session.cookie()).await;
    gate.wait_for_arrival().await;
    session.delete(&engine).await;
    gate.open();

    assert_eq!(response.status, 200);
    let has_failed =
        |all: &Vec<_>| all.iter().any(|op| is_update(op) && op.outcome == Some(Outcome::ConditionFailed));
    engine.wait_until("a failed condition", has_failed).await;
    assert_eq!(session.row(&engine).await, Value::Null);
    // The failed condition invalidates the cached row.
    crate::support::eventually("the end of the session", || async {
        gateway.get("/", &session.cookie()).await.status == 401
    })
    .await;
    assert_eq!(session.row(&engine).await, Value::Null);
}

#[tokio::test]
async fn failed_reissue_does_not_fail_the_request() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(&engine).await;
    let gateway = gateway(&engine, &upstream).realm(LONG_CACHE).start().await;
    engine.inject(Affected::Only("UpdateItem"), Fault::Throttle);

    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    let failed = |all: &Vec<_>| all.iter().any(|op| is_update(op) && op.outcome == Some(Outcome::Failed));
    engine.wait_until("the failure", failed).await;
    assert_eq!(session.row(&engine).await, session.item());

    // When writes succeed again, one of the next requests reissues the session.
    engine.clear_faults();
    crate::support::eventually("the reissue", || async {
        gateway.get("/", &session.cookie()).await;
        engine.counts().updates == 1
    })
    .await;
}

#[tokio::test]
async fn expired_session_is_401_and_its_row_is_unchanged() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice" })).aged(TIMEOUT + Duration::from_secs(1));
    session.put(&engine).await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;

    let refused = gateway.get("/", &session.cookie()).await;
    let anonymous = gateway.get("/optional", &session.cookie()).await;

    assert_eq!((refused.status, refused.set_cookies().len()), (401, 0));
    assert!(refused.header("www-authenticate").is_some());
    assert_eq!(anonymous.status, 200);
    let seen = upstream.only_request();
    assert_eq!((seen.header("x-session-status"), seen.header("x-user")), (Some("anonymous"), None));
    assert_eq!(engine.counts().updates + engine.counts().failed_conditions, 0);
    assert_eq!(session.row(&engine).await, session.item());
}

#[tokio::test]
async fn invalid_row_is_401_and_other_sessions_are_served() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    // All lookups are from one address.
    let gateway =
        gateway(&engine, &upstream).server("[server.limits]\nmisses = \"unlimited\"").realm("").start().await;
    let rows = [
        json!({ "dat": null }),
        json!({ "ver": null }),
        json!({ "iss": null }),
        json!({ "exp": null }),
        json!({ "dat": null, "ver": null }),
        json!({ "dat": { "S": "{}" } }),
        json!({ "dat": { "S": "" } }),
        json!({ "dat": { "S": "{\"user\": \"alice\"" } }),
        json!({ "dat": { "S": "[1]" } }),
        json!({ "dat": { "S": "null" } }),
        json!({ "dat": { "S": "[".repeat(100_000) } }),
        json!({ "dat": { "S": format!("{{\"user\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000)) } }),
        json!({ "dat": { "M": { "user": { "S": "alice" } } } }),
        json!({ "dat": { "B": BASE64_STANDARD.encode("{}") } }),
        json!({ "ver": { "S": "Infinity" } }),
        json!({ "ver": { "N": "-1" } }),
        json!({ "ver": { "N": "1.5" } }),
        json!({ "ver": { "N": "1e120" } }),
        json!({ "iss": { "S": "now" } }),
        json!({ "exp": { "N": "-1" } }),
        json!({ "exp": { "BOOL": true } }),
        json!({ "exp": { "L": [] } }),
    ];
    for row in rows {
        let session = Session::new(json!({ "user": "alice" }));
        session.put_with(&engine, row.clone()).await;
        let response = gateway.get("/", &session.cookie()).await;
        assert_eq!(response.status, 401, "{row}");
    }
    assert_eq!(upstream.request_count(), 0);
    let session = table::alice_session(&engine).await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
}

#[tokio::test]
async fn session_of_nearly_400_kb_is_served() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = Session::new(json!({ "user": "alice", "filler": "x".repeat(400 * 1024 - 200) }));
    session.put(&engine).await;
    let large = "[routes.headers]\nX-Filler = \"filler\"";
    let gateway = gateway(&engine, &upstream).route("/large", "required", large).realm("").start().await;

    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
    assert_eq!(upstream.only_request().header("x-user"), Some("alice"));
    // A header that is too large is not truncated: the request fails, and the log names the header.
    assert_eq!(gateway.get("/large", &session.cookie()).await.status, 500);
    assert_eq!(upstream.request_count(), 1);
    gateway.wait_for_line("x-filler").await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
}

#[tokio::test]
async fn cookie_with_a_newer_version_than_the_row_causes_a_strong_read() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let old = Session::new(json!({ "user": "old" }));
    let new = Session { claims: json!({ "user": "new" }), ..old.clone().version(2) };
    new.put(&engine).await;

    engine.inject(Affected::All, Fault::Stale(old.item()));
    assert_eq!(gateway.get("/", &new.cookie()).await.status, 200);
    let seen = upstream.last_request();
    assert_eq!((seen.header("x-user"), seen.header("x-session-version")), (Some("new"), Some("2")));
    assert_eq!(engine.counts(), Counts { eventual_reads: 1, strong_reads: 1, ..Counts::default() });

    // A session that was just created is not on the replica yet.
    engine.clear_faults();
    engine.inject(Affected::All, Fault::Stale(Value::Null));
    let created = table::alice_session(&engine).await;
    assert_eq!(gateway.get("/", &created.cookie()).await.status, 200);
    assert_eq!(engine.counts(), Counts { eventual_reads: 2, strong_reads: 2, ..Counts::default() });
}

#[tokio::test]
async fn lookups_of_an_unknown_id_cost_two_reads_altogether() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm(LONG_CACHE).start().await;
    let request = Request::get("/").cookie(&Session::new(json!({})).cookie());
    let address = gateway.address();

    let clients = (0..10).map(|_| async {
        let mut client = Client::connect(address).await;
        for _ in 0..100 {
            assert_eq!(client.request(&request).await.status, 401);
        }
    });
    join_all(clients).await;

    assert_eq!(engine.counts(), Counts { eventual_reads: 1, strong_reads: 1, ..Counts::default() });
    assert_eq!(upstream.request_count(), 0);
}

/// Java's `HttpCookie` and Python 2's `cookielib` write cookies like this (RFC 2109), and frameworks take the quotes off.
#[tokio::test]
async fn quoted_cookie_names_the_session_and_is_forwarded_without_quotes() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let session = table::alice_session(&engine).await;
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let value = format!("{}/{}", session.id, session.version);
    for (cookie, expected) in [
        (
            format!("$Version=\"1\"; session_id=\"{value}\";$Path=\"/\"; other=\"a b\""),
            format!("$Version=\"1\"; session_id={value};$Path=\"/\"; other=\"a b\""),
        ),
        (format!("session_id=\"{value}\""), format!("session_id={value}")),
        (format!("session_id=\"{value}\"; session_id={value}; a=1"), format!("session_id={value}; a=1")),
    ] {
        assert_eq!(gateway.get("/", &cookie).await.status, 200, "{cookie}");
        let seen = upstream.last_request();
        assert_eq!((seen.header("x-user"), seen.header("cookie")), (Some("alice"), Some(expected.as_str())));
    }
    let before = upstream.request_count();
    for broken in
        [format!("\"{value}"), format!("{value}\""), format!("\"\"{value}\"\""), format!("'{value}'")]
    {
        assert_eq!(gateway.get("/", &format!("session_id={broken}")).await.status, 401, "{broken}");
    }
    assert_eq!(upstream.request_count(), before);
}

#[tokio::test]
async fn malformed_cookie_costs_no_read() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let id = Session::new(json!({})).id;
    let values = [
        String::new(),
        "/".into(),
        id.clone(),
        format!("{id}/"),
        format!("{id}/Infinity"),
        format!("{id}/NaN"),
        format!("{id}/-1"),
        format!("{id}/1e3"),
        format!("{id}/99999999999999999999999999"),
        "x".repeat(4000),
    ];
    for value in values {
        let response = gateway.get("/", &format!("session_id={value}")).await;
        assert_eq!(response.status, 401, "{value}");
    }
    assert_eq!(engine.counts(), Counts::default());
}

#[tokio::test]
async fn cookie_with_a_wrong_signature_costs_no_read() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .route("/", "required", "")
        .env("CURRENT_KEY", "the current key of sixteen bytes or more")
        .toml(
            "[sessions.main]\nformat = \"native\"\ntable = \"sessions\"\ncookie.name = \"sid\"\n\
             keys.current = { env = \"CURRENT_KEY\" }",
        )
        .start()
        .await;
    let signed_with = |key: &str, id: &str| {
        let keys = KeysConfig { current: Secret::new(key.as_bytes()), previous: vec![] };
        format!("sid={}", Native::new("sid", "sid", Some(keys)).cookie_value(&SessionId::new(id), 1))
    };
    let mut client = Client::connect(gateway.address()).await;
    for number in 0..1000 {
        let id = Session::new(json!({})).id;
        let cookie = match number % 2 {
            0 => signed_with("another key of sixteen bytes or more", &id),
            _ => format!("sid={id}/1"),
        };
        assert_eq!(client.request(&Request::get("/").cookie(&cookie)).await.status, 401);
    }
    assert_eq!(engine.counts(), Counts::default());

    // A cookie with a valid signature is looked up.
    let id = Session::new(json!({})).id;
    let cookie = signed_with("the current key of sixteen bytes or more", &id);
    assert_eq!(client.request(&Request::get("/").cookie(&cookie)).await.status, 401);
    assert_eq!(engine.counts(), Counts { eventual_reads: 1, strong_reads: 1, ..Counts::default() });
}

#[tokio::test]
async fn request_with_two_sessions_is_anonymous() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let (alice, bob) = (table::alice_session(&engine).await, Session::new(json!({ "user": "bob" })));
    bob.put(&engine).await;
    let both = format!("{}; a=b; {}", alice.cookie(), bob.cookie());

    assert_eq!(gateway.get("/", &both).await.status, 401);
    assert_eq!(upstream.request_count(), 0);
    assert_eq!(gateway.get("/optional", &both).await.status, 200);
    let seen = upstream.only_request();
    assert_eq!((seen.header("x-session-status"), seen.header("x-user")), (Some("anonymous"), None));
    let forwarded = seen.header("cookie").unwrap_or_default();
    assert!(!forwarded.contains(&alice.id) && !forwarded.contains(&bob.id), "{forwarded}");
}

#[tokio::test]
async fn active_session_among_invalid_cookies_is_used_and_only_its_cookie_is_forwarded() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let live = table::alice_session(&engine).await;
    let expired = Session::new(json!({ "user": "mallory" })).aged(TIMEOUT + DUE);
    expired.put(&engine).await;
    let absent = Session::new(json!({}));

    for invalid in [expired.cookie(), absent.cookie(), "session_id=garbage".into(), "session_id=".into()] {
        for cookies in [
            format!("a=b; {invalid}; {}; c=\"d\"", live.cookie()),
            format!("a=b; {}; {invalid}; c=\"d\"", live.cookie()),
        ] {
            assert_eq!(gateway.get("/", &cookies).await.status, 200, "{cookies}");
            let seen = upstream.last_request();
            assert_eq!(seen.header("x-user"), Some("alice"));
            assert_eq!(seen.header("cookie"), Some(format!("a=b; {}; c=\"d\"", live.cookie()).as_str()));
        }
    }
    // Two cookies of one session.
    let twice = format!("{}; {}", live.cookie(), live.cookie());
    assert_eq!(gateway.get("/", &twice).await.status, 200);
}

fn is_update(operation: &crate::support::engine::Operation) -> bool {
    operation.name == "UpdateItem"
}

#[tokio::test]
async fn more_session_cookies_than_are_looked_up_is_401_unless_they_are_malformed() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let (alice, mallory) = (table::alice_session(&engine).await, Session::new(json!({ "user": "mallory" })));
    mallory.put(&engine).await;
    let absent: Vec<_> = (0..3).map(|_| Session::new(json!({})).cookie()).collect();

    // Mallory, on a sibling host, has set so many cookies that the user's own is not looked up (cookie tossing).
    let tossed = format!("{}; {}; {}", mallory.cookie(), absent.join("; "), alice.cookie());
    assert_eq!(gateway.get("/", &tossed).await.status, 401);
    assert_eq!(upstream.request_count(), 0);

    // Malformed cookies do not count.
    let garbage = "session_id=x; ".repeat(50);
    assert_eq!(gateway.get("/", &format!("{garbage}{}", alice.cookie())).await.status, 200);
    assert_eq!(upstream.only_request().header("x-user"), Some("alice"));
}

/// The app may accept a cookie for which the gateway has no session, but it must not choose among several.
#[tokio::test]
async fn cookie_without_a_session_is_forwarded_if_it_is_the_only_well_formed_one() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("").start().await;
    let [one, other] = [(); 2].map(|()| Session::new(json!({})).cookie());
    for (sent, expected) in [
        (one.clone(), Some(one.as_str())),
        (format!("session_id=x; {one}; session_id=y"), Some(&one)),
        (format!("{one}; {one}"), Some(&one)),
        (format!("{one}; {other}"), None),
        ("session_id=x".to_owned(), None),
    ] {
        assert_eq!(gateway.get("/optional", &sent).await.status, 200);
        assert_eq!(upstream.last_request().header("cookie"), expected, "{sent}");
    }
}

/// After a change of `cookie.path`, the browser sends a cookie that is no longer updated before the current one.
#[tokio::test]
async fn newest_of_two_cookies_of_one_session_is_used_and_forwarded() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = gateway(&engine, &upstream).realm("cache.ttl = \"1m\"").start().await;
    let old = table::alice_session(&engine).await;
    assert_eq!(gateway.get("/", &old.cookie()).await.status, 200);
    // Changed through another gateway.
    let new = Session { claims: json!({ "user": "bob" }), ..old.clone() }.version(2);
    new.put(&engine).await;
    for cookies in [[old.cookie(), new.cookie()], [new.cookie(), old.cookie()]] {
        assert_eq!(gateway.get("/", &cookies.join("; ")).await.status, 200);
        let seen = upstream.last_request();
        assert_eq!(seen.header("x-user"), Some("bob"));
        assert_eq!(seen.header("cookie"), Some(new.cookie().as_str()));
    }
}
