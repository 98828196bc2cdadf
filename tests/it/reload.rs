//! A configuration that changes while the gateway runs: what comes into force, what stays, what is said.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::support::client::{Client, Request};
use crate::support::engine::Engine;
use crate::support::gate::Gate;
use crate::support::gateway::{self, Gateway};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// Only signals reload.
const SIGNALS: &str = "workers = 2\nwatch = false";

async fn gateway(upstream: &Upstream, engine: &Engine) -> Gateway {
    Gateway::builder()
        .server(SIGNALS)
        .engine(engine)
        .upstream("app", upstream)
        .realm("cache = { ttl = \"1h\" }")
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await
}

fn text<'e>(event: &'e Value, name: &str) -> &'e str {
    gateway::field(event, name).as_str().unwrap_or("")
}

#[tokio::test]
async fn a_route_comes_another_changes_and_the_log_says_so() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;
    assert_eq!(gateway.get("/open", "").await.status, 401);

    gateway.edit_config(|text| {
        let text = text.replace("access = \"required\"", "access = \"optional\"");
        format!("{text}\n[[routes]]\npath = \"/open\"\nupstream = \"app\"\naccess = \"public\"\n")
    });
    assert_eq!(gateway.get("/open", "").await.status, 401, "nobody has said so yet");
    let event = gateway.reload().await;

    assert_eq!(text(&event, "routes"), "+/open ~/");
    assert_eq!(gateway::field(&event, "generation"), 2);
    for unchanged in ["server", "listeners", "realms", "upstreams", "waiting_for_restart"] {
        assert_eq!(text(&event, unchanged), "");
    }
    assert_eq!(gateway.get("/open", "").await.status, 200);
    assert_eq!(gateway.get("/", "").await.status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_realm_that_stays_remembers_its_sessions_but_not_the_headers_of_other_routes() {
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
    // A route before it takes the place that the headers were remembered in.
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
async fn a_realm_that_changes_starts_anew() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = gateway(&upstream, &engine).await;
    let session = Session::new(json!({ "user": "alice" }));
    session.put(&engine).await;
    gateway.get("/", &session.cookie()).await;
    let reads = engine.counts().eventual_reads;

    gateway.edit_config(|text| text.replace("ttl = \"1h\"", "ttl = \"59m\""));
    let event = gateway.reload().await;
    gateway.get("/", &session.cookie()).await;

    assert_eq!(text(&event, "realms"), "~main");
    assert_eq!(engine.counts().eventual_reads, reads + 1);
}

#[tokio::test]
async fn an_upstream_that_stays_keeps_its_connections() {
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
async fn a_request_is_finished_as_it_began() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("12345").paused_after(2, &held));
    let gateway =
        Gateway::builder().server(SIGNALS).upstream("app", &upstream).route("/", "public", "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    gate.wait_for_arrival().await;

    let nobody = "127.0.0.1:1";
    gateway.edit_config(|text| text.replace(&upstream.address().to_string(), nobody));
    gateway.reload().await;
    gate.open();

    assert_eq!(client.read_response().await.unwrap().text(), "12345");
    // The connection goes on, with the configuration that is in force by now.
    assert_eq!(client.request(&Request::get("/")).await.status, 502);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_each_problem_is_said_with_its_place() {
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
async fn a_realm_whose_table_is_missing_does_not_come_into_force() {
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
async fn what_needs_a_restart_is_named_and_the_rest_is_in_force() {
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

    // As long as it waits it is said.
    let event = gateway.reload().await;
    assert_eq!(text(&event, "waiting_for_restart"), "store, server.workers");
    assert_eq!(text(&event, "routes"), "");
}

#[tokio::test]
async fn listeners_come_and_go() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let gateway = Gateway::builder()
        .server(SIGNALS)
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
    // Who is connected still gets an answer, and it is the last.
    let told =
        async { while idle.request(&Request::get("/")).await.header("connection") != Some("close") {} };
    within("the last answer", told).await;
    assert!(idle.is_closed().await);
    for address in [first, second] {
        eventually("the end of a listener", || async move { TcpStream::connect(address).await.is_err() })
            .await;
    }
}

#[tokio::test]
async fn trust_in_proxies_changes_for_new_connections_and_ends_old_ones() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::builder().server(SIGNALS).upstream("app", &upstream).route("/", "public", "").start().await;
    let request = Request::get("/").header("X-Forwarded-For", "192.0.2.7");
    let mut old = Client::connect(gateway.address()).await;
    old.request(&request).await;
    assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("127.0.0.1"));

    gateway.edit_config(|text| {
        text.replace("[[listeners]]", "[[listeners]]\ntrusted_proxies = [\"127.0.0.1\"]")
    });
    assert_eq!(text(&gateway.reload().await, "listeners"), "~127.0.0.1:0");

    eventually("trust", || async {
        request.send(gateway.address()).await;
        upstream.last_request().header("x-forwarded-for") == Some("192.0.2.7, 127.0.0.1")
    })
    .await;
    let told = async { while old.request(&request).await.header("connection") != Some("close") {} };
    within("the last answer", told).await;
}

#[tokio::test]
async fn a_file_that_changes_is_noticed_and_so_is_one_that_it_names() {
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

/// The demo app shows what the routes say, so a reload may make another one of it; who has asked the first is answered.
#[tokio::test]
async fn a_demo_app_that_is_replaced_finishes_what_it_was_asked() {
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
    // The body is asked for when it is forwarded.
    client.read_until("100 Continue\r\n\r\n").await;
    gateway.edit_config(|text| text.replace("X-One", "X-Two"));
    gateway.reload().await;
    client.send("name=alice").await;
    let answer = client.read_response().await.expect("an answer");
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert_eq!(gateway.get("/whoami", "").await.status, 200, "the next one");
}
