//! Limits on connections: those within the limit are served, further ones wait, and the gateway does not busy-loop.

use std::fs;

use futures_util::future::join_all;

use crate::support::client::{Client, Request};
use crate::support::gateway::{Builder, Gateway};
use crate::support::metrics::Metrics;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

fn limited(upstream: &Upstream, lines: &str) -> Builder {
    Gateway::builder()
        .server(&format!("workers = 1\n[server.limits]\n{lines}"))
        .upstream("app", upstream)
        .route("/", "public", "")
}

/// Returns the CPU time of the gateway's process, in clock ticks.
fn cpu_ticks(gateway: &Gateway) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

#[tokio::test]
async fn connection_beyond_the_limit_waits_until_another_closes() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections = 3").start().await;
    let mut connected = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(gateway.address()).await;
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        connected.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/late")).await;
        waiting.push(client);
    }
    for client in &mut connected {
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
    }
    assert_eq!(upstream.request_count(), 6, "waiting connections are not served");

    // Each connection that closes admits a waiting one.
    for client in waiting {
        drop(connected.pop());
        let mut client = client;
        assert_eq!(client.read_response().await.unwrap().status, 200);
        connected.push(client);
    }
}

#[tokio::test]
async fn connection_beyond_the_limit_of_its_address_is_closed() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections_per_address = 2")
        .listener("address = \"127.0.0.1:0\"")
        .listener("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true")
        .start()
        .await;
    let [direct, proxied] = gateway.addresses("http")[..] else { panic!("two listeners") };
    let mut connected = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(direct).await;
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        connected.push(client);
    }
    assert_eq!(Client::connect(direct).await.read_to_end().await, b"");

    // Behind a proxy, connections count against the client's address, not the proxy's.
    for (address, is_served) in [
        ("192.0.2.1", true),
        ("192.0.2.1", true),
        ("192.0.2.1", false),
        ("192.0.2.2", true),
        ("127.0.0.1", true),
    ] {
        let mut client = Client::connect(proxied).await;
        client.send(format!("PROXY TCP4 {address} 127.0.0.1 1 2\r\n")).await;
        client.try_send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let has_response = client.read_response().await.is_ok_and(|response| response.status == 200);
        assert_eq!(has_response, is_served, "{address}");
        connected.push(client);
    }
    connected.clear();
    eventually("a connection is free again", async || {
        let mut client = Client::connect(direct).await;
        client.try_send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_response().await.is_ok_and(|response| response.status == 200)
    })
    .await;
}

/// The gateway raises the soft limit itself, and warns only if a configured limit on connections does not fit.
#[tokio::test]
async fn connection_limit_follows_the_open_file_limit() {
    let upstream = Upstream::start();
    for (soft, hard, configured, expected, is_warned) in [
        (256, 1024, "", 483.0, false),
        (1024, 1024, "", 483.0, false),
        (256, 1024, "connections = 400", 400.0, false),
        (256, 1024, "connections = 2000", 483.0, true),
    ] {
        let gateway = limited(&upstream, configured).open_file_limits(soft, hard);
        let gateway = gateway.toml("[admin]\naddress = \"127.0.0.1:0\"").start().await;
        let metrics = Metrics::scrape(&gateway).await;
        assert_eq!(metrics.sum("process_max_fds", &[]), f64::from(hard), "{configured}");
        assert_eq!(metrics.sum("sessiongate_connections_limit", &[]), expected, "{configured}");
        assert_eq!(gateway.log().contains("\"WARN\""), is_warned, "{}", gateway.log());
    }
}

#[tokio::test]
async fn open_connections_are_served_without_busy_looping_if_descriptors_are_few() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections = 300").open_file_limit(256).start().await;
    gateway.wait_for_line("allows for fewer connections than configured").await;
    let mut first = Client::connect(gateway.address()).await;
    assert_eq!(first.request(&Request::get("/")).await.status, 200);

    let mut clients = Vec::new();
    for _ in 0..400 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/")).await;
        clients.push(client);
    }
    // Connections within the limit are served, the first one repeatedly.
    assert_eq!(clients[0].read_response().await.unwrap().status, 200);
    // The gateway is nearly idle for a second, which has 100 ticks.
    let before = cpu_ticks(&gateway);
    for _ in 0..20 {
        assert_eq!(first.request(&Request::get("/")).await.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let ticks = cpu_ticks(&gateway) - before;
    assert!(ticks < 20, "{ticks} ticks");
    assert!(!gateway.log().contains("could not be accepted"), "the descriptors suffice");

    clients.clear();
    let response = within("recovery", Request::get("/").send(gateway.address())).await;
    assert_eq!(response.status, 200);
}

/// Returns the resident memory of the gateway's process, in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Idle connections release their buffers, and the allocator returns the memory to the system.
#[cfg(target_os = "linux")]
#[cfg_attr(not(feature = "jemalloc"), ignore = "only jemalloc returns memory to the system")]
#[tokio::test]
async fn memory_of_idle_and_closed_connections_returns_to_the_system() {
    const CONNECTIONS: u64 = 800;
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections = 1000").start().await;
    let open = async |count: u64| {
        let clients = (0..count).map(|_| async {
            let mut client = Client::connect(gateway.address()).await;
            assert_eq!(client.request(&Request::get("/")).await.status, 200);
            client
        });
        join_all(clients).await
    };
    drop(open(100).await);
    let before = resident(&gateway);
    let held = open(CONNECTIONS).await;
    eventually("idle connections keep less than 9 KiB each", || async {
        resident(&gateway).saturating_sub(before) < 9 * CONNECTIONS
    })
    .await;
    drop(held);
    eventually("the memory of closed connections is returned", || async {
        resident(&gateway).saturating_sub(before) < 2 * CONNECTIONS
    })
    .await;
}
