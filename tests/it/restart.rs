//! The end of a process, and what comes after it: nobody who asks is left without an answer.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::support::client::{Client, Request};
use crate::support::gate::Gate;
use crate::support::gateway::{self, Gateway, field};
use crate::support::load::Load;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::server::Server;
use crate::support::table::{self, Session};
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

const SIGNALS: &str = "workers = 2\nwatch = false\naccess_log = false";

/// A socket as a service manager has it.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
        Self { socket, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// The next message, as its variables.
    fn next(&self) -> HashMap<String, String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message in time");
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect()
    }

    /// The next message that has the variable.
    fn wait_for(&self, name: &str) -> HashMap<String, String> {
        std::iter::repeat_with(|| self.next()).find(|message| message.contains_key(name)).unwrap()
    }
}

#[tokio::test]
async fn who_waits_in_the_queue_is_answered_before_the_end() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |request| match request.target.as_str() {
        "/first" => ScriptedResponse::ok("12345").paused_after(2, &held),
        _ => ScriptedResponse::ok("12345"),
    });
    let mut gateway = Gateway::builder()
        .server("workers = 1\nwatch = false")
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;
    // While the process stands still the system accepts connections in its name.
    let mut first = Client::connect(gateway.address()).await;
    first.send_request(&Request::get("/first")).await;
    gate.wait_for_arrival().await;
    gateway.signal("STOP");
    let mut waiting = Vec::new();
    for _ in 0..300 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/waiting")).await;
        waiting.push(client);
    }
    gateway.signal("TERM");
    gateway.signal("CONT");
    gate.open();

    for client in waiting.iter_mut().chain([&mut first]) {
        assert_eq!(client.read_response().await.expect("an answer").text(), "12345");
    }
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn a_connection_that_is_kept_gets_one_more_answer_and_is_told() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::builder().server(SIGNALS).upstream("app", &upstream).route("/", "public", "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.request(&Request::get("/")).await.header("connection"), None);

    gateway.signal("TERM");
    gateway.wait_for_event("the drain", |event| field(event, "message") == "draining").await;

    // The worker is told in its own time.
    let told =
        async { while client.request(&Request::get("/")).await.header("connection") != Some("close") {} };
    within("the last answer", told).await;
    assert!(client.is_closed().await);
    let address = gateway.address();
    eventually("a refusal", || async move { TcpStream::connect(address).await.is_err() }).await;
}

#[tokio::test]
async fn requests_are_taken_until_balancers_have_noticed() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server(&format!("{SIGNALS}\ndrain_delay = \"1h\""))
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;

    gateway.signal("TERM");
    gateway
        .wait_for_event("the delay", |event| field(event, "message") == "readiness fails from now on")
        .await;

    let response = gateway.get("/", "").await;
    assert_eq!((response.status, response.header("connection")), (200, None));
    // Who says it twice does not want to wait.
    let (status, _) = gateway.terminate().await;
    assert!(status.success());
}

#[tokio::test]
async fn the_next_process_takes_the_sockets_and_the_settings_that_waited_for_it() {
    let engine = table::engine().await;
    let upstream = Upstream::start();
    let mut gateway = Gateway::builder()
        .server("workers = 1\nwatch = false")
        .listener("address = \"127.0.0.1:0\"")
        .listener("address = \"127.0.0.1:0\"")
        .engine(&engine)
        .upstream("app", &upstream)
        .realm("")
        .route("/", "required", "")
        .start()
        .await;
    let session = Session::new(json!({ "user": "alice" }));
    session.put(&engine).await;
    let addresses = gateway.addresses("http");
    let mut kept = Client::connect(addresses[0]).await;
    let request = Request::get("/").cookie(&session.cookie());
    kept.request(&request).await;

    gateway.edit_config(|text| text.replace("workers = 1", "workers = 3"));
    assert_eq!(field(&gateway.reload().await, "waiting_for_restart"), "server.workers");
    let before = gateway.pid();
    let after = gateway.upgrade_binary().await;
    assert_ne!(before, after);

    assert_eq!(gateway.addresses("http")[2..], addresses);
    assert_eq!(field(&gateway.nth_event("ready", 2).await, "workers"), 3);
    let told = async { while kept.request(&request).await.header("connection") != Some("close") {} };
    within("the last answer", told).await;
    gateway.wait_for_event("the end of the first", |event| field(event, "message") == "stopped").await;
    for address in addresses {
        assert_eq!(request.send(address).await.status, 200);
    }
    // And so can the next one, and the one after it ends as the first would have.
    gateway.upgrade_binary().await;
    gateway.nth_event("stopped", 2).await;
    assert_eq!(request.send(gateway.address()).await.status, 200);
    gateway.signal("TERM");
    gateway.wait().await;
    assert_eq!(gateway.events("stopped").len(), 3);
}

#[tokio::test]
async fn the_admin_listener_goes_to_the_next_process() {
    for address in ["127.0.0.1:0", "unix:admin.sock"] {
        let (engine, gate) = (table::engine().await, Gate::closed());
        let held = gate.clone();
        let upstream = Upstream::responding(move |_| ScriptedResponse::ok("12345").paused_after(2, &held));
        let mut gateway = Gateway::builder()
            .server(SIGNALS)
            .engine(&engine)
            .upstream("app", &upstream)
            .route("/", "public", "")
            .toml(&format!("[admin]\naddress = \"{address}\""))
            .start()
            .await;
        let of_admin = |event: &serde_json::Value| field(event, "listener") == "admin";
        let listening = |gateway: &Gateway| -> Vec<_> {
            let events = gateway.events("listening").into_iter().filter(of_admin);
            events.map(|event| field(&event, "address").as_str().unwrap().to_owned()).collect()
        };
        // It keeps the first process, whose readiness fails, from ending.
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/")).await;
        gate.wait_for_arrival().await;
        gateway.upgrade_binary().await;
        gateway.nth_event("draining", 1).await;

        let addresses = listening(&gateway);
        assert_eq!(addresses[0], addresses[1], "the same socket");
        for _ in 0..20 {
            assert_eq!(ready(&addresses[0]).await, 200, "the first process does not answer any more");
        }
        gate.open();
        assert_eq!(client.read_response().await.unwrap().text(), "12345");
        gateway.nth_event("stopped", 1).await;
        assert_eq!(ready(&addresses[0]).await, 200, "it stays");
    }
}

/// The status of `/readyz` at an admin listener.
async fn ready(address: &str) -> u16 {
    match address.strip_prefix("unix:") {
        None => Request::get("/readyz").send(address.parse().unwrap()).await.status,
        Some(path) => {
            let mut stream = UnixStream::connect(path).await.unwrap();
            let request = "GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            within("the answer", stream.read_to_string(&mut answer)).await.unwrap();
            answer.split(' ').nth(1).unwrap().parse().unwrap()
        }
    }
}

#[tokio::test]
async fn a_process_that_does_not_get_as_far_as_serving_changes_nothing() {
    let engine = table::engine().await;
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server(SIGNALS)
        .engine(&engine)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;

    gateway.edit_config(|text| text.replace("[[routes]]", "[[router]]"));
    gateway.signal("USR2");
    let event = gateway.nth_event("handover failed: this process continues to serve", 1).await;

    assert!(field(&event, "reason").as_str().unwrap().contains("exit status: 2"), "{event}");
    assert_eq!(gateway.get("/", "").await.status, 200);
    gateway.edit_config(|text| text.replace("[[router]]", "[[routes]]"));
    gateway.reload().await;
    assert_eq!(gateway.get("/", "").await.status, 200);
}

/// The status of a request over a unix socket.
async fn ask(socket: &Path) -> u16 {
    let stream = within("a connection", UnixStream::connect(socket)).await.unwrap();
    Client::over(stream).request(&Request::get("/")).await.status
}

/// The socket's file is whose the socket is: the next process's if it serves, and else still the first one's.
#[tokio::test]
async fn a_unix_socket_goes_to_the_next_process_only_if_that_serves() {
    let engine = table::engine().await;
    let upstream = Upstream::start();
    let builder = || {
        let builder = Gateway::builder().server(SIGNALS).listener("address = \"unix:in.sock\"");
        builder.engine(&engine).upstream("app", &upstream).route("/", "public", "")
    };
    let refused = async |gateway: &Gateway| {
        gateway.edit_config(|text| text.replace("[[routes]]", "[[router]]"));
        gateway.signal("USR2");
        gateway.nth_event("handover failed: this process continues to serve", 1).await;
        gateway.edit_config(|text| text.replace("[[router]]", "[[routes]]"));
    };

    let mut gateway = builder().start().await;
    let socket = gateway.directory().join("in.sock");
    refused(&gateway).await;
    assert_eq!(ask(&socket).await, 200);
    gateway.signal("TERM");
    gateway.wait().await;
    assert!(!socket.exists(), "it was the first one's to the end");

    let mut gateway = builder().start().await;
    let socket = gateway.directory().join("in.sock");
    refused(&gateway).await;
    let mut kept = Client::over(UnixStream::connect(&socket).await.unwrap());
    assert_eq!(kept.request(&Request::get("/")).await.status, 200);
    gateway.upgrade_binary().await;
    let told =
        async { while kept.request(&Request::get("/")).await.header("connection") != Some("close") {} };
    within("the last answer", told).await;
    gateway.nth_event("stopped", 1).await;
    assert_eq!(ask(&socket).await, 200, "the next one's");
}

#[tokio::test]
async fn a_store_that_would_be_lost_is_not_handed_over() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::builder().server(SIGNALS).upstream("app", &upstream).route("/", "public", "").start().await;

    gateway.signal("USR2");
    let event = gateway.nth_event("handover failed: this process continues to serve", 1).await;

    assert!(field(&event, "reason").as_str().unwrap().contains("sessions would be lost"), "{event}");
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn a_service_manager_is_told() {
    let (manager, engine) = (Manager::new(), table::engine().await);
    let upstream = Upstream::start();
    let mut gateway = Gateway::builder()
        .server(SIGNALS)
        .engine(&engine)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .env("NOTIFY_SOCKET", manager.path().to_str().unwrap())
        .env("WATCHDOG_USEC", "200000")
        .start()
        .await;
    let ready = manager.wait_for("READY");
    assert_eq!(
        (ready["READY"].as_str(), ready["STATUS"].as_str()),
        ("1", "Serving on 1 listener, configuration 1")
    );
    assert_eq!(manager.wait_for("WATCHDOG")["WATCHDOG"], "1");

    gateway.reload().await;
    let reloading = manager.wait_for("RELOADING");
    assert!(reloading["MONOTONIC_USEC"].parse::<u64>().is_ok(), "{reloading:?}");
    assert_eq!(manager.wait_for("READY")["STATUS"], "Serving on 1 listener, configuration 2");

    let next = gateway.upgrade_binary().await;
    assert_eq!(manager.wait_for("MAINPID")["MAINPID"], next.to_string());
    assert_eq!(manager.wait_for("READY")["STATUS"], "Serving on 1 listener, configuration 1");
    assert_eq!(manager.wait_for("WATCHDOG")["WATCHDOG"], "1");

    gateway.nth_event("stopped", 1).await;
    gateway.signal("TERM");
    assert_eq!(manager.wait_for("STOPPING")["STOPPING"], "1");
    gateway.wait().await;
}

#[tokio::test]
async fn a_socket_that_was_opened_before_the_gateway_is_used() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server(SIGNALS)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .inherited_sockets(&["127.0.0.1:0", "[::1]:0"])
        .start()
        .await;

    let passed = gateway.wait_for_event("the socket", |event| event["bound"].is_array()).await;
    let bound: Vec<_> = passed["bound"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    assert_eq!(gateway.address().to_string(), bound[0]);
    assert_eq!(gateway.get("/", "").await.status, 200);
    // Who has a socket passed expects it to be used.
    let unused = gateway.wait_for_event("the warning", |event| event["address"] == bound[1]).await;
    assert_eq!(field(&unused, "level"), "WARN");
    assert!(within("a refusal", TcpStream::connect(bound[1])).await.is_err());
}

/// Whoever has made the socket's file removes it.
#[tokio::test]
async fn a_unix_socket_that_was_opened_before_the_gateway_is_used_and_left() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::builder()
        .server(SIGNALS)
        .listener("address = \"unix:in.sock\"")
        .upstream("app", &upstream)
        .route("/", "public", "")
        .inherited_sockets(&["unix:in.sock"])
        .start()
        .await;
    let socket = gateway.directory().join("in.sock");
    let before = fs::metadata(&socket).unwrap().ino();
    assert_eq!(ask(&socket).await, 200);
    gateway.signal("TERM");
    assert!(gateway.wait().await.success());
    assert_eq!(fs::metadata(&socket).unwrap().ino(), before);
}

/// Reloads, a fifth of them of broken files, and a change of processes: no request fails.
///
/// By counts, to be quick; with `SESSIONGATE_LOAD_SECONDS`, a reload every second for so long.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_request_fails_while_everything_is_exchanged() {
    let seconds: Option<u64> =
        std::env::var("SESSIONGATE_LOAD_SECONDS").ok().map(|seconds| seconds.parse().expect("a number"));
    let engine = table::engine().await;
    let upstream = Server::start(|_| Box::pin(std::future::ready(ScriptedResponse::ok("ok"))));
    let mut gateway = Gateway::builder()
        .server(SIGNALS)
        .engine(&engine)
        .upstream_at("app", upstream.address(), "")
        .realm("")
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await;
    let session = Session::new(json!({ "user": "alice" }));
    session.put(&engine).await;
    let request = Request::get("/").cookie(&session.cookie());
    let mut load = Load::start(gateway.address(), &request, 48, 16);

    let reloads = seconds.map_or(20, |seconds| usize::try_from(seconds).unwrap());
    for round in 1..=reloads {
        let broken = round % 5 == 0;
        gateway.edit_config(|text| {
            let text = text.replace("brokn = 1\n", "");
            let text = match round % 2 {
                0 => text.replace("max_header_bytes = \"4KiB\"\n", "").replace("X-Name", "X-User"),
                _ => text
                    .replace("watch = false\n", "watch = false\nmax_header_bytes = \"4KiB\"\n")
                    .replace("X-User", "X-Name"),
            };
            if broken { text.replace("watch = false\n", "watch = false\nbrokn = 1\n") } else { text }
        });
        if broken {
            gateway.rejected_reload().await;
        } else {
            gateway.reload().await;
        }
        match seconds {
            Some(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            None => load.wait_for_responses(900).await,
        }
    }
    gateway.edit_config(|text| text.replace("brokn = 1\n", ""));
    gateway.upgrade_binary().await;
    load.wait_for_responses(1000).await;
    gateway.nth_event("stopped", 1).await;
    load.wait_for_responses(1000).await;

    let answered = load.finish().await;
    assert!(answered >= 20_000, "{answered}");
    println!("{answered} requests, {reloads} reloads, one change of processes");
    assert_eq!(gateway.events(gateway::RELOADED).len(), reloads - reloads / 5);
}
