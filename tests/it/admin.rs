//! The admin listener: who may see what, and what is said while things are well, and while they are not.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::client::{Client, Request, Response};
use crate::support::engine::{Affected, Engine, Fault};
use crate::support::gate::Gate;
use crate::support::gateway::{Builder, Gateway};
use crate::support::metrics::Metrics;
use crate::support::table::{self, DUE, Session};
use crate::support::upstream::Upstream;

const TOKEN: &str = "a-token-of-enough-length";

fn builder(engine: &Engine, upstream: &Upstream, admin: &str) -> Builder {
    Gateway::builder()
        .engine(engine)
        .upstream("app", upstream)
        .realm("")
        .route("/", "required", "")
        .env("ADMIN_TOKEN", TOKEN)
        .toml(&format!("[admin]\naddress = \"127.0.0.1:0\"\n{admin}"))
}

async fn ask(gateway: &Gateway, target: &str) -> Response {
    let address = gateway.addresses("admin")[0];
    Request::get(target).header("Host", &address.to_string()).send(address).await
}

#[tokio::test]
async fn a_gateway_that_is_well_says_so() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;

    let health = ask(&gateway, "/healthz").await;
    assert_eq!(
        (health.status, health.json()),
        (200, json!({ "status": "alive", "checks": { "workers": "alive" } }))
    );
    let ready = ask(&gateway, "/readyz").await;
    let checks = json!({ "serving": "ok", "stores": { "main": "ok" }, "upstreams": { "app": "ok" } });
    assert_eq!((ready.status, ready.json()), (200, json!({ "status": "ready", "checks": checks })));
    assert_eq!(ready.header("content-type"), Some("application/json"));
    assert_eq!(ready.header("cache-control"), Some("no-store"));

    let page = ask(&gateway, "/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for link in ["/healthz", "/readyz", "/metrics", "/config"] {
        assert!(page.text().contains(&format!("href={link}")), "{}", page.text());
        assert_eq!(ask(&gateway, link).await.status, 200);
    }
    assert_eq!(ask(&gateway, "/other").await.status, 404);
    assert_eq!(Request::post("/metrics", "x").send(gateway.addresses("admin")[0]).await.status, 405);
    let head = Request::new("HEAD", "/metrics").header("Host", "localhost");
    let head = head.send(gateway.addresses("admin")[0]).await;
    assert_eq!((head.status, head.text().len()), (200, 0));
}

/// Nothing of it is on the public listener, and nothing public on it.
#[tokio::test]
async fn it_is_a_listener_of_its_own() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/config"] {
        assert_eq!(gateway.send(&Request::get(path)).await.status, 401, "{path} is the route's");
    }
    assert_eq!(upstream.request_count(), 0);
    let without = Gateway::builder().engine(&engine).upstream("app", &upstream).route("/", "public", "");
    assert!(without.start().await.addresses("admin").is_empty());
}

#[tokio::test]
async fn with_a_token_only_who_brings_it_sees_more_than_health() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "token = { env = \"ADMIN_TOKEN\" }").start().await;
    let address = gateway.addresses("admin")[0];
    for open in ["/healthz", "/readyz"] {
        assert_eq!(ask(&gateway, open).await.status, 200, "{open}");
    }
    for path in ["/", "/metrics", "/config", "/other"] {
        let refused = ask(&gateway, path).await;
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic x",
            &format!("Bearer {TOKEN}x"),
            &format!("Bearer {}", &TOKEN[1..]),
            TOKEN,
        ] {
            let request = Request::get(path).header("Authorization", wrong);
            assert_eq!(request.send(address).await.status, 401, "{path} {wrong}");
        }
        let right = Request::get(path).header("Authorization", &format!("bearer {TOKEN}"));
        assert_eq!(right.send(address).await.status, if path == "/other" { 404 } else { 200 });
        let both = right.header("Authorization", "Bearer other");
        assert_eq!(both.send(address).await.status, 401, "two are one too many");
    }
    let open = Gateway::builder().engine(&engine).upstream("app", &upstream).route("/", "public", "");
    let open = open.toml("[admin]\naddress = \"0.0.0.0:0\"").fail_to_start().await;
    assert!(open.log.contains("is reachable from other machines"), "{}", open.log);
}

/// A page whose name has come to mean this machine asks in that name.
#[tokio::test]
async fn without_a_token_only_who_asks_this_machine_sees_more_than_health() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    let address = gateway.addresses("admin")[0];
    let port = address.port();
    for path in ["/", "/metrics", "/config"] {
        for own in [&format!("127.0.0.1:{port}"), &format!("localhost:{port}"), "[::1]"] {
            let request = Request::get(path).header("Host", own);
            assert_eq!(request.send(address).await.status, 200, "{path} {own}");
        }
        for other in ["attacker.test", &format!("attacker.test:{port}"), "127.0.0.1.attacker.test"] {
            let refused = Request::get(path).header("Host", other).send(address).await;
            assert_eq!(refused.status, 421, "{path} {other}");
            assert!(refused.text().starts_with("without a token"), "{}", refused.text());
        }
        let mut client = Client::connect(address).await;
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        let said = String::from_utf8(client.read_to_end().await).unwrap();
        assert!(said.starts_with("HTTP/1.0 421"), "{said}");
    }
    let health = Request::get("/healthz").header("Host", "attacker.test").send(address).await;
    assert_eq!(health.status, 200, "as with a token");
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "")
        .toml(
            "# a secret in a comment: planted-1\n[sessions.other]\nformat = \"native\"\ntable = \"sessions\"\n\
             cookie.name = \"other\"\nkeys = { current = { env = \"ADMIN_TOKEN\" }, previous = [\"planted-2-0123456789\"] }\n\
             [[routes]]\npath = \"/other\"\nsession = \"other\"\nupstream = \"app\"\n\
             request_headers = { set = { Authorization = \"Bearer planted-3\" }, remove = [\"X-Debug\"] }",
        )
        .start()
        .await;
    let config = ask(&gateway, "/config").await;
    assert!(!config.text().contains("planted") && !config.text().contains(TOKEN), "{}", config.text());
    let shown = config.json();
    assert_eq!(shown["sessions"]["other"]["keys"]["previous"], json!(["***"]));
    assert_eq!(shown["sessions"]["other"]["keys"]["current"], json!({ "env": "ADMIN_TOKEN" }));
    assert_eq!(shown["routes"][0]["path"], "/");
    let edits = json!({ "set": { "Authorization": "***" }, "remove": ["X-Debug"] });
    assert_eq!(shown["routes"][1]["request_headers"], edits);
}

#[tokio::test]
async fn a_table_that_does_not_answer_makes_it_unready_and_not_dead() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    for (fault, word) in
        [(Fault::Throttle, "throttled"), (Fault::AccessDenied, "denied"), (Fault::NoResponse, "unavailable")]
    {
        engine.inject(Affected::All, fault);
        crate::support::eventually("it is not ready", || async {
            let ready = ask(&gateway, "/readyz").await;
            ready.status == 503 && ready.json()["checks"]["stores"]["main"] == word
        })
        .await;
        assert_eq!(ask(&gateway, "/healthz").await.status, 200);
        engine.clear_faults();
        crate::support::eventually("it is ready", || async { ask(&gateway, "/readyz").await.status == 200 })
            .await;
    }
}

/// Roles that may read and not write, and throttled writes.
#[tokio::test]
async fn a_table_that_refuses_writes_makes_it_unready_and_reads_go_on() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    for (fault, word) in [(Fault::AccessDenied, "denied"), (Fault::Throttle, "throttled")] {
        engine.inject(Affected::Only("UpdateItem"), fault);
        crate::support::eventually("it is not ready", || async {
            use_a_due_session(&gateway, &engine).await;
            let ready = ask(&gateway, "/readyz").await;
            ready.status == 503 && ready.json()["checks"]["stores"]["main"] == format!("not writable: {word}")
        })
        .await;
        engine.clear_faults();
        crate::support::eventually("it is ready", || async {
            use_a_due_session(&gateway, &engine).await;
            ask(&gateway, "/readyz").await.status == 200
        })
        .await;
    }
}

/// Sends a request whose session is due, which the gateway answers whether or not the reissue can be written.
async fn use_a_due_session(gateway: &Gateway, engine: &Engine) {
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(engine).await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
}

/// The word of `/readyz` for the upstream `app`, and its status.
async fn readiness_of_app(gateway: &Gateway) -> (u16, Value) {
    let ready = ask(gateway, "/readyz").await;
    (ready.status, ready.json()["checks"]["upstreams"]["app"].clone())
}

#[tokio::test]
async fn upstream_whose_servers_are_all_ejected_makes_it_unready_until_one_answers() {
    let (engine, mut upstream, other) = (table::engine().await, Upstream::start(), Upstream::start());
    let gateway = builder(&engine, &upstream, "")
        .toml("[upstreams.app.ejection]\nfailures = 2\nfor = \"1h\"")
        .upstream("other", &other)
        .route("/public", "public", "")
        .toml("[[routes]]\npath = \"/other\"\naccess = \"public\"\nupstream = \"other\"")
        .start()
        .await;
    assert_eq!(readiness_of_app(&gateway).await, (200, "ok".into()));
    upstream.server().stop().await;
    for _ in 0..3 {
        assert_eq!(gateway.send(&Request::get("/public")).await.status, 502);
    }
    let ejected = (503, "every server is ejected".into());
    crate::support::eventually("it is not ready", || async { readiness_of_app(&gateway).await == ejected })
        .await;
    assert_eq!(ask(&gateway, "/readyz").await.json()["checks"]["upstreams"]["other"], "ok");
    let available = |upstream| [("upstream", upstream)];
    let metrics = Metrics::scrape(&gateway).await;
    let sum = |upstream| metrics.sum("sessiongate_upstream_available", &available(upstream));
    assert_eq!((sum("app"), sum("other")), (0.0, 1.0));

    upstream.server().resume();
    assert_eq!(gateway.send(&Request::get("/public")).await.status, 200, "there is no other server");
    crate::support::eventually("it is ready", || async { readiness_of_app(&gateway).await.0 == 200 }).await;
}

/// A balancer that sends no requests to gateways that are not ready must not wait for one that succeeds.
#[tokio::test]
async fn upstream_without_requests_is_ready_again_after_one_period_of_its_ejection() {
    let (engine, mut upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "")
        .toml("[upstreams.app.ejection]\nfailures = 1\nfor = \"3s\"")
        .route("/public", "public", "")
        .start()
        .await;
    upstream.server().stop().await;
    assert_eq!(gateway.send(&Request::get("/public")).await.status, 502);
    crate::support::eventually("it is not ready", || async { readiness_of_app(&gateway).await.0 == 503 })
        .await;
    crate::support::eventually("it is ready", || async { readiness_of_app(&gateway).await.0 == 200 }).await;
}

#[tokio::test]
async fn upstream_with_one_ejected_server_of_two_is_ready() {
    let (engine, mut bad, good) = (table::engine().await, Upstream::start(), Upstream::start());
    let servers = format!("servers = [\"http://{}\", \"http://{}\"]", bad.address(), good.address());
    let gateway = Gateway::builder()
        .engine(&engine)
        .toml(&format!("[admin]\naddress = \"127.0.0.1:0\"\n[upstreams.app]\n{servers}\nejection = {{ failures = 1, for = \"1h\" }}"))
        .route("/public", "public", "")
        .start()
        .await;
    bad.server().stop().await;
    for _ in 0..4 {
        assert_eq!(gateway.send(&Request::get("/public")).await.status, 200);
    }
    assert_eq!(gateway.events("a server is ejected").len(), 1);
    assert_eq!(readiness_of_app(&gateway).await, (200, "ok".into()));
}

/// Whoever asks a hundred times a second asks the table once.
#[tokio::test]
async fn probes_are_no_load_for_the_table() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    let began = sessiongate::time::Clock.mono();
    for _ in 0..100 {
        assert_eq!(ask(&gateway, "/readyz").await.status, 200);
    }
    let seconds = (sessiongate::time::Clock.mono() - began).as_secs();
    let reads = u64::try_from(engine.counts().reads()).unwrap();
    assert!((1..=seconds + 1).contains(&reads), "{reads} in {seconds} s");
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_still_answers() {
    let (engine, gate) = (table::engine().await, Gate::closed());
    let upstream = {
        let gate = gate.clone();
        Upstream::responding(move |_| {
            crate::support::scripted_response::ScriptedResponse::ok("late").after(&gate)
        })
    };
    let gateway = builder(&engine, &upstream, "").route("/public", "public", "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/public")).await;
    upstream.wait_for_requests(1).await;
    gateway.signal("TERM");
    crate::support::eventually("it is draining", || async {
        let ready = ask(&gateway, "/readyz").await;
        ready.status == 503 && ready.json()["checks"]["serving"] == "draining"
    })
    .await;
    assert_eq!(ask(&gateway, "/healthz").await.status, 200);
    gate.open();
    assert_eq!(client.read_response().await.unwrap().text(), "late");
}

#[tokio::test]
async fn a_socket_in_the_file_system() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let builder = || {
        Gateway::builder()
            .engine(&engine)
            .upstream("app", &upstream)
            .route("/", "public", "")
            .toml("[admin]\naddress = \"unix:admin.sock\"")
    };
    let gateway = builder().start().await;
    let socket = gateway.directory().join("admin.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    let stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let _connection = tokio::spawn(connection);
    // By whatever name: none leads there.
    let request = http::Request::get("/config")
        .header("Host", "admin")
        .body(http_body_util::Empty::<bytes::Bytes>::new());
    assert_eq!(sender.send_request(request.unwrap()).await.unwrap().status(), 200);
    drop(sender);
    let events: Vec<Value> = gateway.events("listening");
    assert!(events.iter().any(|event| event["address"].as_str().is_some_and(|a| a.starts_with("unix:"))));
    gateway.terminate().await;
    assert!(!socket.exists());
}

/// Whoever opens connections and says nothing keeps nobody from the public listener.
#[tokio::test]
async fn its_connections_are_bounded() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").route("/public", "public", "").start().await;
    let address = gateway.addresses("admin")[0];
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut client = Client::connect(address).await;
        assert_eq!(client.request(&Request::get("/healthz")).await.status, 200);
        silent.push(client);
    }
    let mut late = Client::connect(address).await;
    late.send_request(&Request::get("/healthz")).await;
    assert_eq!(gateway.send(&Request::get("/public")).await.status, 200);
    drop(silent);
    assert_eq!(late.read_response().await.unwrap().status, 200);
}
