//! How many connections there may be: those that are there are served, those that come wait, and nothing spins.

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

/// The time that a process has worked, in the system's ticks.
fn worked(gateway: &Gateway) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split(' ').collect();
    fields[12].parse::<u64>().unwrap() + fields[13].parse::<u64>().unwrap()
}

#[tokio::test]
async fn who_comes_when_all_places_are_taken_waits_for_one() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections = 3").start().await;
    let mut inside = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(gateway.address()).await;
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        inside.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/late")).await;
        waiting.push(client);
    }
    for client in &mut inside {
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
    }
    assert_eq!(upstream.request_count(), 6, "those who wait are not served");

    // Each who leaves lets another in.
    for client in waiting {
        drop(inside.pop());
        let mut client = client;
        assert_eq!(client.read_response().await.unwrap().status, 200);
        inside.push(client);
    }
}

#[tokio::test]
async fn an_address_that_has_its_share_is_turned_away() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections_per_address = 2")
        .listener("address = \"127.0.0.1:0\"")
        .listener("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\nproxy_protocol = true")
        .start()
        .await;
    let [direct, proxied] = gateway.addresses("http")[..] else { panic!("two listeners") };
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(direct).await;
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        inside.push(client);
    }
    assert_eq!(Client::connect(direct).await.read_to_end().await, b"");

    // Behind a proxy it is the client that counts, and never the proxy.
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
        let is_answered = client.read_response().await.is_ok_and(|answer| answer.status == 200);
        assert_eq!(is_answered, is_served, "{address}");
        inside.push(client);
    }
    inside.clear();
    eventually("a place for another", async || {
        let mut client = Client::connect(direct).await;
        client.try_send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_response().await.is_ok_and(|answer| answer.status == 200)
    })
    .await;
}

/// Nobody has to raise a limit that the gateway may raise itself, nor to hear of a number that nobody has asked for.
#[tokio::test]
async fn as_many_connections_as_files_may_be_open() {
    let upstream = Upstream::start();
    for (soft, hard, configured, expected, is_warned) in [
        (256, 1024, "", 484.0, false),
        (1024, 1024, "", 484.0, false),
        (256, 1024, "connections = 400", 400.0, false),
        (256, 1024, "connections = 2000", 484.0, true),
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
async fn with_few_descriptors_those_inside_are_served_and_nothing_spins() {
    let upstream = Upstream::start();
    let gateway = limited(&upstream, "connections = 300").open_file_limit(256).start().await;
    gateway.wait_for_line("allows for fewer connections than configured").await;
    let mut first = Client::connect(gateway.address()).await;
    assert_eq!(first.request(&Request::get("/")).await.status, 200);

    let mut crowd = Vec::new();
    for _ in 0..400 {
        let mut client = Client::connect(gateway.address()).await;
        client.send_request(&Request::get("/")).await;
        crowd.push(client);
    }
    // Whoever is inside by now is served, and so is the first, again and again.
    assert_eq!(crowd[0].read_response().await.unwrap().status, 200);
    // In a second of 100 ticks, with next to nothing to do.
    let before = worked(&gateway);
    for _ in 0..20 {
        assert_eq!(first.request(&Request::get("/")).await.status, 200);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let ticks = worked(&gateway) - before;
    assert!(ticks < 20, "{ticks} ticks");
    assert!(!gateway.log().contains("could not be accepted"), "the descriptors suffice");

    crowd.clear();
    let answer = within("recovery", Request::get("/").send(gateway.address())).await;
    assert_eq!(answer.status, 200);
}

/// The resident memory of the gateway, in KiB.
fn resident(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// However fast they are opened: idle connections give up their buffers, and what they give up goes back to the system.
#[cfg(target_os = "linux")]
#[cfg_attr(not(feature = "jemalloc"), ignore = "only jemalloc returns it")]
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
