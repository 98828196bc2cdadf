//! Configuration reloads: what takes effect, what is kept, and what is logged.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::client::{Client, Request};
use crate::support::engine::Engine;
use crate::support::eventually;
use crate::support::gate::Gate;
use crate::support::gateway::{self, Gateway};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;

/// The gateway reloads only on SIGHUP.
const ON_SIGNAL: &str = "workers = 2\nwatch = false";

async fn gateway(upstream: &Upstream, engine: &Engine) -> Gateway {
    Gateway::builder()
        .server(ON_SIGNAL)
        .engine(engine)
        .upstream("app", upstream)
        .realm("cache = { ttl = \"1h\" }")
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await
}

/// Returns a text field of an event.
fn text<'e>(event: &'e Value, name: &str) -> &'e str {
    gateway::field(event, name).as_str().unwrap_or_else(|| panic!("no text `{name}`: {event}"))
}

/// Starts a gateway that reloads on a signal only, with one public route.
async fn public_gateway(upstream: &Upstream) -> Gateway {
    Gateway::builder().server(ON_SIGNAL).upstream("app", upstream).route("/", "public", "").start().await
}

#[tokio::test]
async fn reload_adds_and_changes_routes_and_logs_which() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;
    assert_eq!(gateway.get("/open", "").await.status, 401);

    gateway.edit_config(|text| {
        let text = text.replace("access = \"required\"", "access = \"optional\"");
        format!("{text}\n[[routes]]\npath = \"/open\"\nupstream = \"app\"\naccess = \"public\"\n")
    });
    assert_eq!(gateway.get("/open", "").await.status, 401, "before the reload");
    let event = gateway.reload().await;

    assert_eq!(text(&event, "routes"), "+/open ~/");
    assert_eq!(gateway::field(&event, "generation"), 2);
    // Sections without changes are omitted.
    let fields: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["timestamp", "level", "message", "generation", "routes", "target"]);
    assert_eq!(gateway.get("/open", "").await.status, 200);
    assert_eq!(gateway.get("/", "").await.status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn unchanged_realm_keeps_cached_sessions_but_not_the_headers_of_other_routes() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;
    let session = Session::new(json!({ "user": "alice", "role": "admin" }));
    session.put(&engine).await;
    gateway.get("/", &session.cookie()).await;
    let reads = engine.counts();
    assert_eq!(upstream.last_request().all("x-user"), ["alice"]);

    gateway.edit_config(|text| text.replace("X-User = \"user\"", "X-Role = \"role\""));
    gateway.reload().await;
    gateway.get("/", &session.cookie()).await;

    assert_eq!(upstream.last_request().all("x-role"), ["admin"]);
    assert!(upstream.last_request().all("x-user").is_empty());
    // A new route before `/` changes the slot of its cached headers.
    gateway.edit_config(|text| {
        text.replace("[[routes]]", "[[routes]]\npath = \"/first\"\nupstream = \"app\"\naccess = \"required\"\nsession = \"main\"\nheaders = { X-First = \"user\" }\n[[routes]]")
    });
    gateway.reload().await;
    gateway.get("/first", &session.cookie()).await;
    assert_eq!(
        (upstream.last_request().all("x-first"), upstream.last_request().all("x-role")),
        (vec!["alice"], vec![])
    );
    gateway.get("/", &session.cookie()).await;
    assert_eq!(
        (upstream.last_request().all("x-role"), upstream.last_request().all("x-first")),
        (vec!["admin"], vec![])
    );
    assert_eq!(engine.counts(), reads, "the session was read once");
}

#[tokio::test]
async fn changed_realm_has_an_empty_cache() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;
    let session = table::alice_session(&engine).await;
    gateway.get("/", &session.cookie()).await;
    let reads = engine.counts().eventual_reads;

    gateway.edit_config(|text| text.replace("ttl = \"1h\"", "ttl = \"59m\""));
    let event = gateway.reload().await;
    gateway.get("/", &session.cookie()).await;

    assert_eq!(text(&event, "realms"), "~main");
    assert_eq!(engine.counts().eventual_reads, reads + 1);
}

#[tokio::test]
async fn unchanged_upstream_keeps_its_connections() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let other = Upstream::start();
    let gateway = Gateway::builder()
        .server("workers = 1\nwatch = false")
        .engine(&engine)
        .upstream_at("app", upstream.address(), "idle_timeout = \"1h\"")
        .route("/", "public", "")
        .start()
        .await;
    gateway.get("/", "").await;

    gateway.edit_config(|text| text.replace("workers = 1", "workers = 1\naccess_log = false"));
    assert_eq!(text(&gateway.reload().await, "server"), "access_log");
    gateway.get("/", "").await;
    assert_eq!(upstream.connections(), 1);

    let (from, to) = (upstream.address().to_string(), other.address().to_string());
    gateway.edit_config(|text| text.replace(&from, &to));
    assert_eq!(text(&gateway.reload().await, "upstreams"), "~app");
    gateway.get("/", "").await;
    assert_eq!((upstream.request_count(), other.request_count()), (2, 1));
}

#[tokio::test]
async fn request_is_finished_with_the_configuration_it_began_with() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("12345").paused_after(2, &held));
    let gateway = public_gateway(&upstream).await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    gate.wait_for_arrival().await;

    let closed = "127.0.0.1:1";
    gateway.edit_config(|text| text.replace(&upstream.address().to_string(), closed));
    gateway.reload().await;
    gate.open();

    assert_eq!(client.read_response().await.unwrap().text(), "12345");
    // The next request of the connection uses the new configuration.
    assert_eq!(client.request(&Request::get("/")).await.status, 502);
}

#[tokio::test]
async fn invalid_file_changes_nothing_and_each_error_is_logged_with_its_location() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;

    gateway.edit_config(|text| {
        text.replace("watch = false", "watch = false\ndrian = \"1s\"").replace("\"required\"", "\"none\"")
    });
    gateway.rejected_reload().await;

    let errors = gateway.events("configuration error");
    assert_eq!(errors.len(), 2, "{errors:#?}");
    let at = text(&errors[0], "at");
    assert!(at.ends_with("gateway.toml:5:1"), "{at}");
    assert!(text(&errors[0], "problem").contains("drian"), "{errors:#?}");
    assert!(text(&errors[0], "hint").contains("drain"), "{errors:#?}");
    assert_eq!(gateway.get("/", "").await.status, 401);

    gateway.edit_config(|text| text.replace("drian", "drain").replace("\"none\"", "\"optional\""));
    assert_eq!(gateway::field(&gateway.reload().await, "generation"), 2);
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn configuration_with_a_missing_table_is_rejected() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;

    gateway.edit_config(|text| {
        let text = text.replace("access = \"required\"", "access = \"public\"").replace("session = \"main\"\n", "");
        let text = text.replace("[routes.headers]\nX-User = \"user\"", "");
        format!(
            "{text}\n[sessions.other]\nformat = \"native\"\ntable = \"nowhere\"\ncookie = {{ name = \"other\" }}\n[[routes]]\npath = \"/other\"\n\
             upstream = \"app\"\naccess = \"required\"\nsession = \"other\"\n"
        )
    });
    let event = gateway.rejected_reload().await;

    assert!(text(&event, "reason").contains("realm `other`"), "{event}");
    assert_eq!(gateway.get("/", "").await.status, 401);
}

#[tokio::test]
async fn settings_that_need_a_restart_are_logged_and_the_others_take_effect() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;
    let change = |text: String| {
        text.replace("workers = 2", "workers = 3")
            .replace("attempts = 2", "attempts = 3")
            .replace("\"required\"", "\"optional\"")
    };

    gateway.edit_config(change);
    let event = gateway.reload().await;
    assert_eq!(text(&event, "waiting_for_restart"), "store, server.workers");
    assert_eq!(text(&event, "routes"), "~/");
    assert_eq!(gateway.get("/", "").await.status, 200);

    // Each reload logs them again.
    let event = gateway.reload().await;
    assert_eq!(text(&event, "waiting_for_restart"), "store, server.workers");
    assert!(gateway::field(&event, "routes").is_null(), "{event}");
}

#[tokio::test]
async fn listeners_are_added_and_removed() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = Gateway::builder()
        .server(ON_SIGNAL)
        .listener("address = \"127.0.0.1:0\"")
        .engine(&engine)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;
    let first = gateway.address();
    let mut idle = Client::connect(first).await;
    idle.request(&Request::get("/")).await;

    gateway.edit_config(|text| {
        text.replace("[[listeners]]", "[[listeners]]\naddress = \"127.0.0.1:0\"\n[[listeners]]")
    });
    let event = gateway.reload().await;
    assert_eq!(text(&event, "listeners"), "+127.0.0.1:0");
    let second = gateway.addresses("http")[1];
    for address in [first, second] {
        assert_eq!(Request::get("/").send(address).await.status, 200);
    }
    assert_eq!(idle.request(&Request::get("/")).await.header("connection"), None);

    let address = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    gateway.edit_config(|text| {
        text.replace(address, "[[listeners]]\naddress = \"[::1]:0\"\n").replacen(
            "[[listeners]]\naddress = \"[::1]:0\"\n",
            "",
            1,
        )
    });
    let event = gateway.reload().await;
    assert_eq!(text(&event, "listeners"), "+[::1]:0 -127.0.0.1:0 -127.0.0.1:0");
    let third = gateway.addresses("http")[2];
    assert_eq!(Request::get("/").send(third).await.status, 200);
    // A connection of the removed listener gets one more response.
    idle.request_until_close(&Request::get("/")).await;
    assert!(idle.is_closed().await);
    for address in [first, second] {
        eventually("the end of the listener", || async move { TcpStream::connect(address).await.is_err() })
            .await;
    }
}

#[tokio::test]
async fn changed_trusted_proxies_apply_to_new_connections_and_close_old_ones() {
    let upstream = Upstream::start();
    let gateway = public_gateway(&upstream).await;
    let request = Request::get("/").header("X-Forwarded-For", "192.0.2.7");
    let mut old = Client::connect(gateway.address()).await;
    old.request(&request).await;
    assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("127.0.0.1"));

    gateway.edit_config(|text| {
        text.replace("[[listeners]]", "[[listeners]]\ntrusted_proxies = [\"127.0.0.1\"]")
    });
    assert_eq!(text(&gateway.reload().await, "listeners"), "~127.0.0.1:0");

    eventually("the new trusted proxy", || async {
        request.send(gateway.address()).await;
        upstream.last_request().header("x-forwarded-for") == Some("192.0.2.7, 127.0.0.1")
    })
    .await;
    old.request_until_close(&request).await;
}

#[tokio::test]
async fn change_to_the_configuration_or_a_file_it_names_causes_a_reload() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server("workers = 1")
        .upstream("app", &upstream)
        .toml("[sessions.main]\nformat = \"django\"\nkeys = { current = { file = \"key\" } }")
        .route("/", "optional", "")
        .file("key", "a key of at least sixteen bytes")
        .start()
        .await;

    std::fs::write(gateway.directory().join("key"), "another key of many bytes").unwrap();
    assert_eq!(text(&gateway.nth_event(gateway::RELOADED, 1).await, "realms"), "~main");
    gateway.edit_config(|text| text.replace("\"optional\"", "\"required\""));
    assert_eq!(text(&gateway.nth_event(gateway::RELOADED, 2).await, "routes"), "~/");
    assert_eq!(gateway.get("/", "").await.status, 401);
}

/// The demo app shows the routes, so a reload that changes them replaces the app.
#[tokio::test]
async fn replaced_demo_app_finishes_its_requests() {
    let gateway = Gateway::builder()
        .server("workers = 1\nwatch = false")
        .toml("[upstreams.app]\nservers = [\"builtin:demo\"]")
        .route("/", "public", "request_headers = { set = { X-One = \"1\" } }")
        .start()
        .await;
    let mut client = Client::connect(gateway.address()).await;
    client
        .send("POST /log-in HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        .await;
    // 100 (Continue) means that the request has reached the app.
    client.read_until("100 Continue\r\n\r\n").await;
    gateway.edit_config(|text| text.replace("X-One", "X-Two"));
    gateway.reload().await;
    client.send("name=alice").await;
    let response = client.read_response().await.expect("a response");
    assert_eq!(response.status, 303, "{}", response.text());
    assert_eq!(gateway.get("/whoami", "").await.status, 200, "the new app");
}
