//! The admin listener: health, readiness, metrics and configuration, and who may read them.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

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

async fn admin_get(gateway: &Gateway, target: &str) -> Response {
    let address = gateway.addresses("admin")[0];
    Request::get(target).header("Host", &address.to_string()).send(address).await
}

#[tokio::test]
async fn healthy_gateway_is_alive_and_ready() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;

    let health = admin_get(&gateway, "/healthz").await;
    assert_eq!(
        (health.status, health.json()),
        (200, json!({ "status": "alive", "checks": { "workers": "alive" } }))
    );
    let ready = admin_get(&gateway, "/readyz").await;
    let checks = json!({ "serving": "ok", "stores": { "main": "ok" }, "upstreams": { "app": "ok" } });
    assert_eq!((ready.status, ready.json()), (200, json!({ "status": "ready", "checks": checks })));
    assert_eq!(ready.header("content-type"), Some("application/json"));
    assert_eq!(ready.header("cache-control"), Some("no-store"));

    let page = admin_get(&gateway, "/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    for link in ["/healthz", "/readyz", "/metrics", "/config"] {
        assert!(page.text().contains(&format!("href={link}")), "{}", page.text());
        assert_eq!(admin_get(&gateway, link).await.status, 200);
    }
    assert_eq!(admin_get(&gateway, "/other").await.status, 404);
    assert_eq!(Request::post("/metrics", "x").send(gateway.addresses("admin")[0]).await.status, 405);
    let head = Request::new("HEAD", "/metrics").header("Host", "localhost");
    let head = head.send(gateway.addresses("admin")[0]).await;
    assert_eq!((head.status, head.text().len()), (200, 0));
}

#[tokio::test]
async fn admin_paths_on_the_public_listener_are_routed() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    for path in ["/healthz", "/readyz", "/metrics", "/config"] {
        assert_eq!(gateway.send(&Request::get(path)).await.status, 401, "{path}");
    }
    assert_eq!(upstream.request_count(), 0);
    let without = Gateway::builder().engine(&engine).upstream("app", &upstream).route("/", "public", "");
    assert!(without.start().await.addresses("admin").is_empty());
}

#[tokio::test]
async fn with_a_token_configured_only_health_and_readiness_need_none() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "token = { env = \"ADMIN_TOKEN\" }").start().await;
    let address = gateway.addresses("admin")[0];
    for path in ["/healthz", "/readyz"] {
        assert_eq!(admin_get(&gateway, path).await.status, 200, "{path}");
    }
    for path in ["/", "/metrics", "/config", "/other"] {
        let refused = admin_get(&gateway, path).await;
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
        assert_eq!(both.send(address).await.status, 401, "two Authorization headers");
    }
    let open = Gateway::builder().engine(&engine).upstream("app", &upstream).route("/", "public", "");
    let open = open.toml("[admin]\naddress = \"0.0.0.0:0\"").fail_to_start().await;
    assert!(open.log.contains("is reachable from other machines"), "{}", open.log);
}

/// A website can resolve its own name to a loopback address (DNS rebinding); its requests then have its own name as Host.
#[tokio::test]
async fn without_a_token_other_hosts_than_this_machine_are_421() {
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
        let response = String::from_utf8(client.read_to_end().await).unwrap();
        assert!(response.starts_with("HTTP/1.0 421"), "{response}");
    }
    let health = Request::get("/healthz").header("Host", "attacker.test").send(address).await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn config_page_masks_secrets() {
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
    let config = admin_get(&gateway, "/config").await;
    assert!(!config.text().contains("planted") && !config.text().contains(TOKEN), "{}", config.text());
    let shown = config.json();
    assert_eq!(shown["sessions"]["other"]["keys"]["previous"], json!(["***"]));
    assert_eq!(shown["sessions"]["other"]["keys"]["current"], json!({ "env": "ADMIN_TOKEN" }));
    assert_eq!(shown["routes"][0]["path"], "/");
    let edits = json!({ "set": { "Authorization": "***" }, "remove": ["X-Debug"] });
    assert_eq!(shown["routes"][1]["request_headers"], edits);
}

#[tokio::test]
async fn unavailable_table_makes_it_unready_and_still_alive() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    for (fault, word) in
        [(Fault::Throttle, "throttled"), (Fault::AccessDenied, "denied"), (Fault::NoResponse, "unavailable")]
    {
        engine.inject(Affected::All, fault);
        crate::support::eventually("503 of /readyz", || async {
            let ready = admin_get(&gateway, "/readyz").await;
            ready.status == 503 && ready.json()["checks"]["stores"]["main"] == word
        })
        .await;
        assert_eq!(admin_get(&gateway, "/healthz").await.status, 200);
        engine.clear_faults();
        crate::support::eventually("200 of /readyz", || async {
            admin_get(&gateway, "/readyz").await.status == 200
        })
        .await;
    }
}

/// For example, an IAM role without write access, or throttled writes.
#[tokio::test]
async fn table_that_rejects_writes_makes_it_unready_and_requests_succeed() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    for (fault, word) in [(Fault::AccessDenied, "denied"), (Fault::Throttle, "throttled")] {
        engine.inject(Affected::Only("UpdateItem"), fault);
        crate::support::eventually("503 of /readyz", || async {
            use_a_due_session(&gateway, &engine).await;
            let ready = admin_get(&gateway, "/readyz").await;
            ready.status == 503 && ready.json()["checks"]["stores"]["main"] == format!("not writable: {word}")
        })
        .await;
        engine.clear_faults();
        crate::support::eventually("200 of /readyz", || async {
            use_a_due_session(&gateway, &engine).await;
            admin_get(&gateway, "/readyz").await.status == 200
        })
        .await;
    }
}

/// Sends a request whose session is due. It succeeds whether or not the reissue can be written.
async fn use_a_due_session(gateway: &Gateway, engine: &Engine) {
    let session = Session::new(json!({ "user": "alice" })).aged(DUE);
    session.put(engine).await;
    assert_eq!(gateway.get("/", &session.cookie()).await.status, 200);
}

/// Returns the status of `/readyz` and its state of the upstream `app`.
async fn readiness_of_app(gateway: &Gateway) -> (u16, Value) {
    let ready = admin_get(gateway, "/readyz").await;
    (ready.status, ready.json()["checks"]["upstreams"]["app"].clone())
}

#[tokio::test]
async fn upstream_whose_servers_are_all_ejected_makes_it_unready_until_one_responds() {
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
    let ejected = (503, "every healthy server is ejected".into());
    crate::support::eventually("503 of /readyz", || async { readiness_of_app(&gateway).await == ejected })
        .await;
    assert_eq!(admin_get(&gateway, "/readyz").await.json()["checks"]["upstreams"]["other"], "ok");
    let available = |upstream| [("upstream", upstream)];
    let metrics = Metrics::scrape(&gateway).await;
    let sum = |upstream| metrics.sum("sessiongate_upstream_available", &available(upstream));
    assert_eq!((sum("app"), sum("other")), (0.0, 1.0));

    upstream.server().resume();
    assert_eq!(gateway.send(&Request::get("/public")).await.status, 200, "there is no other server");
    crate::support::eventually("200 of /readyz", || async { readiness_of_app(&gateway).await.0 == 200 })
        .await;
}

/// A load balancer sends no requests to a gateway that is not ready, so that none can succeed.
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
    crate::support::eventually("503 of /readyz", || async { readiness_of_app(&gateway).await.0 == 503 })
        .await;
    crate::support::eventually("200 of /readyz", || async { readiness_of_app(&gateway).await.0 == 200 })
        .await;
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

#[tokio::test]
async fn readiness_probes_read_the_table_once_a_second_at_most() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").start().await;
    let began = sessiongate::time::Clock.mono();
    for _ in 0..100 {
        assert_eq!(admin_get(&gateway, "/readyz").await.status, 200);
    }
    let seconds = (sessiongate::time::Clock.mono() - began).as_secs();
    let reads = u64::try_from(engine.counts().reads()).unwrap();
    assert!((1..=seconds + 1).contains(&reads), "{reads} in {seconds} s");
}

#[tokio::test]
async fn draining_gateway_is_unready_and_still_alive() {
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
    crate::support::eventually("draining", || async {
        let ready = admin_get(&gateway, "/readyz").await;
        ready.status == 503 && ready.json()["checks"]["serving"] == "draining"
    })
    .await;
    assert_eq!(admin_get(&gateway, "/healthz").await.status, 200);
    gate.open();
    assert_eq!(client.read_response().await.unwrap().text(), "late");
}

#[tokio::test]
async fn unix_socket_has_mode_660_accepts_any_host_and_is_removed_at_exit() {
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
    // No website can reach a Unix socket, whatever its name resolves to.
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

/// A blocking connection attempt to a socket whose accept queue is full would wait without a timeout.
#[tokio::test]
async fn unix_socket_of_a_process_that_does_not_respond_is_not_replaced() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    let address = SockAddr::unix(&path).unwrap();
    let open = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let listening = open();
    listening.bind(&address).unwrap();
    listening.listen(1).unwrap();
    let mut queued = vec![open()];
    while queued.last().unwrap().connect(&address).is_ok() {
        queued.push(open());
    }

    let gateway = Gateway::builder()
        .engine(&engine)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .toml(&format!("[admin]\naddress = \"unix:{}\"", path.display()));
    let failure = gateway.fail_to_start().await;

    assert!(failure.log.contains("the admin listener: address in use"), "{}", failure.log);
    assert!(path.exists());
}

/// Idle admin connections do not use up those of the public listener.
#[tokio::test]
async fn admin_connection_above_the_limit_waits_and_public_requests_do_not() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let gateway = builder(&engine, &upstream, "").route("/public", "public", "").start().await;
    let address = gateway.addresses("admin")[0];
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut client = Client::connect(address).await;
        assert_eq!(client.request(&Request::get("/healthz")).await.status, 200);
        idle.push(client);
    }
    let mut late = Client::connect(address).await;
    late.send_request(&Request::get("/healthz")).await;
    assert_eq!(gateway.send(&Request::get("/public")).await.status, 200);
    drop(idle);
    assert_eq!(late.read_response().await.unwrap().status, 200);
}
