//! Shutdown, binary upgrades and socket activation: every request gets a response.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::support::client::{Client, Request};
use crate::support::gate::Gate;
use crate::support::gateway::{self, Gateway, field};
use crate::support::load::Load;
use crate::support::scripted_response::ScriptedResponse;
use crate::support::server::Server;
use crate::support::table;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

const SERVER: &str = "workers = 2\nwatch = false\naccess_log = false";

/// The notification socket of a service manager (sd_notify(3)).
struct ServiceManager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl ServiceManager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(crate::support::DEADLINE)).unwrap();
        Self { socket, directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("notify")
    }

    /// Receives the next message and returns its variables.
    fn next(&self) -> HashMap<String, String> {
        let mut buffer = [0; 4096];
        // The end of a child process interrupts the call.
        let length = std::iter::repeat_with(|| self.socket.recv(&mut buffer)).find(
            |received| !matches!(received, Err(error) if error.kind() == std::io::ErrorKind::Interrupted),
        );
        let length = length.unwrap().expect("a message in time");
        let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
        text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect()
    }

    /// Receives messages until one has the variable `name`, and returns that.
    fn wait_for(&self, name: &str) -> HashMap<String, String> {
        std::iter::repeat_with(|| self.next()).find(|message| message.contains_key(name)).unwrap()
    }
}

#[tokio::test]
async fn connections_in_the_accept_queue_are_served_before_exit() {
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
    // While the process is stopped, the kernel queues its connections.
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
        assert_eq!(client.read_response().await.expect("a response").text(), "12345");
    }
    assert!(gateway.wait().await.success());
}

#[tokio::test]
async fn keep_alive_connection_is_closed_after_one_more_response() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::builder().server(SERVER).upstream("app", &upstream).route("/", "public", "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    assert_eq!(client.request(&Request::get("/")).await.header("connection"), None);

    gateway.signal("TERM");
    gateway.wait_for_event("drain", |event| field(event, "message") == "draining").await;

    client.request_until_close(&Request::get("/")).await;
    assert!(client.is_closed().await);
    let address = gateway.address();
    eventually("a refused connection", || async move { TcpStream::connect(address).await.is_err() }).await;
}

#[tokio::test]
async fn requests_are_served_during_the_drain_delay() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server(&format!("{SERVER}\ndrain_delay = \"1h\""))
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;

    gateway.signal("TERM");
    gateway.wait_for_event("delay", |event| field(event, "message") == "readiness fails from now on").await;

    let response = gateway.get("/", "").await;
    assert_eq!((response.status, response.header("connection")), (200, None));
    // A second SIGTERM ends the delay.
    let (status, _) = gateway.terminate().await;
    assert!(status.success());
}

#[tokio::test]
async fn second_signal_ends_the_process_while_a_request_is_in_flight() {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::responding(move |_| ScriptedResponse::ok("late").after(&held));
    let gateway = Gateway::builder()
        .server(&format!("{SERVER}\ndrain = \"1h\""))
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;
    let mut client = Client::connect(gateway.address()).await;
    client.send_request(&Request::get("/")).await;
    gate.wait_for_arrival().await;

    gateway.signal("TERM");
    gateway.nth_event("draining", 1).await;
    let (status, _) = gateway.terminate().await;

    assert!(status.success());
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn upgraded_process_has_the_sockets_and_the_new_settings() {
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
    let session = table::alice_session(&engine).await;
    let addresses = gateway.addresses("http");
    let mut open = Client::connect(addresses[0]).await;
    let request = Request::get("/").cookie(&session.cookie());
    open.request(&request).await;

    gateway.edit_config(|text| text.replace("workers = 1", "workers = 3"));
    assert_eq!(field(&gateway.reload().await, "waiting_for_restart"), "server.workers");
    let before = gateway.pid();
    let after = gateway.upgrade_binary().await;
    assert_ne!(before, after);

    assert_eq!(gateway.addresses("http")[2..], addresses);
    assert_eq!(field(&gateway.nth_event("ready", 2).await, "workers"), 3);
    open.request_until_close(&request).await;
    gateway.wait_for_event("exit of the first process", |event| field(event, "message") == "stopped").await;
    for address in addresses {
        assert_eq!(request.send(address).await.status, 200);
    }
    // The second process can be upgraded, too, and the third exits on SIGTERM.
    gateway.upgrade_binary().await;
    gateway.nth_event("stopped", 2).await;
    assert_eq!(request.send(gateway.address()).await.status, 200);
    gateway.signal("TERM");
    gateway.wait().await;
    assert_eq!(gateway.events("stopped").len(), 3);
}

#[tokio::test]
async fn upgraded_process_has_the_admin_socket() {
    for address in ["127.0.0.1:0", "unix:admin.sock"] {
        let (engine, gate) = (table::engine().await, Gate::closed());
        let held = gate.clone();
        let upstream = Upstream::responding(move |_| ScriptedResponse::ok("12345").paused_after(2, &held));
        let mut gateway = Gateway::builder()
            .server(SERVER)
            .engine(&engine)
            .upstream("app", &upstream)
            .route("/", "public", "")
            .toml(&format!("[admin]\naddress = \"{address}\""))
            .start()
            .await;
        let is_admin = |event: &serde_json::Value| field(event, "listener") == "admin";
        let listening = |gateway: &Gateway| -> Vec<_> {
            let events = gateway.events("listening").into_iter().filter(is_admin);
            events.map(|event| field(&event, "address").as_str().unwrap().to_owned()).collect()
        };
        // This request keeps the first process, which is not ready, from exiting.
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/")).await;
        gate.wait_for_arrival().await;
        gateway.upgrade_binary().await;
        gateway.nth_event("draining", 1).await;

        let addresses = listening(&gateway);
        assert_eq!(addresses[0], addresses[1], "another socket");
        for _ in 0..20 {
            assert_eq!(ready(&addresses[0]).await, 200, "the first process responded");
        }
        gate.open();
        assert_eq!(client.read_response().await.unwrap().text(), "12345");
        gateway.nth_event("stopped", 1).await;
        assert_eq!(ready(&addresses[0]).await, 200, "the socket was closed");
    }
}

/// Returns the status of `/readyz` at an admin listener.
async fn ready(address: &str) -> u16 {
    match address.strip_prefix("unix:") {
        None => Request::get("/readyz").send(address.parse().unwrap()).await.status,
        Some(path) => {
            let mut stream = UnixStream::connect(path).await.unwrap();
            let request = "GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            within("the response", stream.read_to_string(&mut response)).await.unwrap();
            response.split(' ').nth(1).unwrap().parse().unwrap()
        }
    }
}

#[tokio::test]
async fn failed_upgrade_leaves_the_old_process_serving() {
    let engine = table::engine().await;
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server(SERVER)
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

/// Returns the status of a request over a Unix socket.
async fn get_over_unix(socket: &Path) -> u16 {
    let stream = within("a connection", UnixStream::connect(socket)).await.unwrap();
    Client::over(stream).request(&Request::get("/")).await.status
}

/// The process that has the socket removes its file at exit.
#[tokio::test]
async fn unix_socket_belongs_to_the_new_process_only_after_a_successful_upgrade() {
    let engine = table::engine().await;
    let upstream = Upstream::start();
    let builder = || {
        let builder = Gateway::builder().server(SERVER).listener("address = \"unix:in.sock\"");
        builder.engine(&engine).upstream("app", &upstream).route("/", "public", "")
    };
    let fail_upgrade = async |gateway: &Gateway| {
        gateway.edit_config(|text| text.replace("[[routes]]", "[[router]]"));
        gateway.signal("USR2");
        gateway.nth_event("handover failed: this process continues to serve", 1).await;
        gateway.edit_config(|text| text.replace("[[router]]", "[[routes]]"));
    };

    let mut gateway = builder().start().await;
    let socket = gateway.directory().join("in.sock");
    fail_upgrade(&gateway).await;
    assert_eq!(get_over_unix(&socket).await, 200);
    gateway.signal("TERM");
    gateway.wait().await;
    assert!(!socket.exists(), "the first process did not remove its socket");

    let mut gateway = builder().start().await;
    let socket = gateway.directory().join("in.sock");
    fail_upgrade(&gateway).await;
    let mut open = Client::over(UnixStream::connect(&socket).await.unwrap());
    assert_eq!(open.request(&Request::get("/")).await.status, 200);
    gateway.upgrade_binary().await;
    open.request_until_close(&Request::get("/")).await;
    gateway.nth_event("stopped", 1).await;
    assert_eq!(get_over_unix(&socket).await, 200, "the first process removed the socket");
    let mode = || fs::metadata(&socket).unwrap().mode() & 0o777;
    assert_eq!(mode(), 0o660);
    gateway.edit_config(|text| text.replace("\"unix:in.sock\"", "\"unix:in.sock\"\nmode = \"0600\""));
    gateway.reload().await;
    assert_eq!(mode(), 0o600, "the mode of an inherited socket was not changed");
    gateway.signal("TERM");
    gateway.wait().await;
    assert!(!socket.exists(), "the second process did not remove its socket");
}

#[tokio::test]
async fn upgrade_that_would_lose_a_store_in_memory_is_rejected() {
    let upstream = Upstream::start();
    let gateway =
        Gateway::builder().server(SERVER).upstream("app", &upstream).route("/", "public", "").start().await;

    gateway.signal("USR2");
    let event = gateway.nth_event("handover failed: this process continues to serve", 1).await;

    assert!(field(&event, "reason").as_str().unwrap().contains("sessions would be lost"), "{event}");
    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn service_manager_is_notified_of_each_state() {
    let (manager, engine) = (ServiceManager::new(), table::engine().await);
    let upstream = Upstream::start();
    let mut gateway = Gateway::builder()
        .server(SERVER)
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

/// systemfd sets this variable, which says where the descriptors of its own child process begin.
#[tokio::test]
async fn upgraded_process_ignores_the_first_descriptor_of_its_predecessor() {
    let (upstream, engine) = (Upstream::start(), table::engine().await);
    let mut gateway = Gateway::builder()
        .server(SERVER)
        .engine(&engine)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .env("LISTEN_FDS_FIRST_FD", "100")
        .start()
        .await;

    gateway.upgrade_binary().await;
    gateway.nth_event("stopped", 1).await;

    assert_eq!(gateway.get("/", "").await.status, 200);
}

#[tokio::test]
async fn inherited_socket_is_used() {
    let upstream = Upstream::start();
    let gateway = Gateway::builder()
        .server(SERVER)
        .upstream("app", &upstream)
        .route("/", "public", "")
        .inherited_sockets(&["127.0.0.1:0", "[::1]:0"])
        .start()
        .await;

    let passed = gateway.wait_for_event("list of sockets", |event| event["bound"].is_array()).await;
    let bound: Vec<_> = passed["bound"].as_array().unwrap().iter().map(|at| at.as_str().unwrap()).collect();
    assert_eq!(gateway.address().to_string(), bound[0]);
    assert_eq!(gateway.get("/", "").await.status, 200);
    // A socket that no listener uses is a warning.
    let unused = gateway.wait_for_event("warning", |event| event["address"] == bound[1]).await;
    assert_eq!(field(&unused, "level"), "WARN");
    assert!(within("a refused connection", TcpStream::connect(bound[1])).await.is_err());
}

#[tokio::test]
async fn inherited_unix_socket_is_used_and_its_file_is_kept() {
    let (engine, upstream) = (table::engine().await, Upstream::start());
    let mut gateway = Gateway::builder()
        .server(SERVER)
        .engine(&engine)
        .listener("address = \"unix:in.sock\"")
        .upstream("app", &upstream)
        .route("/", "public", "")
        .inherited_sockets(&["unix:in.sock"])
        .start()
        .await;
    let socket = gateway.directory().join("in.sock");
    let before = fs::metadata(&socket).unwrap().ino();
    let mode = fs::metadata(&socket).unwrap().mode();
    assert_eq!(get_over_unix(&socket).await, 200);
    gateway.upgrade_binary().await;
    gateway.nth_event("stopped", 1).await;
    assert_eq!(get_over_unix(&socket).await, 200);
    gateway.signal("TERM");
    assert!(gateway.wait().await.success());
    let after = fs::metadata(&socket).unwrap();
    assert_eq!((after.ino(), after.mode()), (before, mode), "the file is the service manager's");
}

/// Reloads every second for `SESSIONGATE_LOAD_SECONDS`; if it is not set, 20 times, after every 900 responses.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_request_fails_during_reloads_and_a_binary_upgrade() {
    let seconds: Option<u64> =
        std::env::var("SESSIONGATE_LOAD_SECONDS").ok().map(|seconds| seconds.parse().expect("a number"));
    let engine = table::engine().await;
    let upstream = Server::start(|_| Box::pin(std::future::ready(ScriptedResponse::ok("ok"))));
    let mut gateway = Gateway::builder()
        .server(SERVER)
        .engine(&engine)
        .upstream_at("app", upstream.address(), "")
        .realm("")
        .route("/", "required", "[routes.headers]\nX-User = \"user\"")
        .start()
        .await;
    let session = table::alice_session(&engine).await;
    let request = Request::get("/").cookie(&session.cookie());
    let mut load = Load::start(gateway.address(), &request, 48, 16);

    let reloads = seconds.map_or(20, |seconds| usize::try_from(seconds).unwrap());
    for round in 1..=reloads {
        let invalid = round % 5 == 0;
        gateway.edit_config(|text| {
            let text = text.replace("unknown = 1\n", "");
            let text = match round % 2 {
                0 => text.replace("max_header_bytes = \"4KiB\"\n", "").replace("X-Name", "X-User"),
                _ => text
                    .replace("watch = false\n", "watch = false\nmax_header_bytes = \"4KiB\"\n")
                    .replace("X-User", "X-Name"),
            };
            if invalid { text.replace("watch = false\n", "watch = false\nunknown = 1\n") } else { text }
        });
        if invalid {
            gateway.rejected_reload().await;
        } else {
            gateway.reload().await;
        }
        match seconds {
            Some(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            None => load.wait_for_responses(900).await,
        }
    }
    gateway.edit_config(|text| text.replace("unknown = 1\n", ""));
    gateway.upgrade_binary().await;
    load.wait_for_responses(1000).await;
    gateway.nth_event("stopped", 1).await;
    load.wait_for_responses(1000).await;

    let responses = load.finish().await;
    assert!(responses >= 20_000, "{responses}");
    println!("{responses} requests, {reloads} reloads, one upgrade");
    assert_eq!(gateway.events(gateway::RELOADED).len(), reloads - reloads / 5);
}
