//! Limits on HTTP/2 stream resets: a few resets of a client have no effect; above the budget, the gateway pauses that
//! address's new connections and those that have reset streams, and no others.

use std::time::Duration;

use sessiongate::time::Clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::gateway::{Builder, Gateway};
use crate::support::metrics::Metrics;
use crate::support::raw_http2::{RawHttp2, connect};
use crate::support::scripted_response::ScriptedResponse;
use crate::support::upstream::Upstream;

/// Address of the client that resets streams.
const CLIENT: &str = "127.0.0.2";
/// Another address.
const OTHER: &str = "127.0.0.3";

fn upstream() -> Upstream {
    Upstream::responding(|request| match request.target.as_str() {
        "/held" => ScriptedResponse::never(),
        _ => ScriptedResponse::ok("hello"),
    })
}

fn builder(upstream: &Upstream, limits: &str) -> Builder {
    Gateway::builder()
        .server(&format!("workers = 1\n[server.limits]\n{limits}"))
        .upstream("app", upstream)
        .route("/", "public", "")
        .toml("[admin]\naddress = \"127.0.0.1:0\"")
}

async fn count(gateway: &Gateway, name: &str) -> f64 {
    Metrics::scrape(gateway).await.sum(&format!("sessiongate_http2_{name}_total"), &[])
}

/// Waits until the counter has this value.
async fn wait_for_count(gateway: &Gateway, name: &str, expected: f64) {
    eventually(&format!("{expected} {name}"), async || count(gateway, name).await >= expected).await;
    assert_eq!(count(gateway, name).await, expected, "{name}");
}

/// Opens this many streams, and resets them when all of their requests are at the upstream.
async fn reset_streams(client: &mut RawHttp2, streams: usize, upstream: &Upstream) {
    let before = upstream.request_count();
    let opened: Vec<_> = (0..streams).map(|_| client.get("/held")).collect();
    client.send().await;
    upstream.wait_for_requests(before + streams).await;
    opened.into_iter().for_each(|stream| client.reset(stream));
    client.send().await;
}

async fn is_served(client: &mut RawHttp2) -> bool {
    let stream = client.get("/");
    client.send().await;
    client.reads_to_end_of(stream).await
}

#[tokio::test]
async fn address_above_the_reset_budget_is_paused_until_it_has_recovered() {
    let upstream = upstream();
    let gateway = builder(&upstream, "reset_rate = { per_second = 2, burst = 10 }").start().await;
    let mut before = RawHttp2::connect(CLIENT, gateway.address()).await;
    assert!(is_served(&mut before).await);
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    let started = Clock.mono();
    reset_streams(&mut client, 20, &upstream).await;
    wait_for_count(&gateway, "resets", 20.0).await;
    wait_for_count(&gateway, "pauses", 1.0).await;

    let mut another = RawHttp2::connect(CLIENT, gateway.address()).await;
    let (first, second) = (client.get("/"), another.get("/"));
    client.send().await;
    another.send().await;
    wait_for_count(&gateway, "pauses", 2.0).await;
    let mut other = RawHttp2::connect(OTHER, gateway.address()).await;
    assert!(is_served(&mut other).await, "another address was paused");
    assert!(is_served(&mut before).await, "a connection without resets was paused");
    assert_eq!(upstream.request_count(), 1 + 20 + 2, "a request of the paused client was forwarded");

    assert!(client.reads_to_end_of(first).await && another.reads_to_end_of(second).await);
    assert!(Clock.mono() - started >= Duration::from_secs(5), "ten resets above the burst take five seconds");
    assert_eq!((count(&gateway, "resets").await, count(&gateway, "ended").await), (20.0, 0.0));
}

#[tokio::test]
async fn default_limits_allow_hundreds_of_resets() {
    let upstream = upstream();
    let gateway = builder(&upstream, "").start().await;
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    for _ in 0..4 {
        reset_streams(&mut client, 100, &upstream).await;
    }
    assert!(is_served(&mut client).await);
    wait_for_count(&gateway, "resets", 400.0).await;
    assert_eq!((count(&gateway, "pauses").await, count(&gateway, "ended").await), (0.0, 0.0));
}

#[tokio::test]
async fn resets_after_the_response_are_not_counted() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/empty" => ScriptedResponse::new(204, ""),
        "/truncated" => ScriptedResponse::ok("hello").truncated_to(2),
        _ => ScriptedResponse::ok("hello"),
    });
    let gateway = builder(&upstream, "reset_rate = { per_second = 1, burst = 1 }").start().await;
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    for path in ["/", "/empty", "/missing"].repeat(10) {
        let stream = client.get(path);
        client.send().await;
        assert!(client.reads_to_end_of(stream).await, "{path}");
        // The stream has ended.
        client.reset(stream);
    }
    client.get("/truncated");
    assert!(is_served(&mut client).await, "the connection was closed");
    assert_eq!((count(&gateway, "resets").await, count(&gateway, "pauses").await), (0.0, 0.0));
}

#[tokio::test]
async fn floods_of_several_connections_share_the_budget_of_the_address() {
    let upstream = upstream();
    let limits = "resets = 20\nreset_rate = { per_second = 1, burst = 50 }";
    let gateway = builder(&upstream, limits).start().await;
    let mut other = RawHttp2::connect(OTHER, gateway.address()).await;
    assert!(is_served(&mut other).await, "not served before the flood");
    let mut held = Vec::new();
    while count(&gateway, "pauses").await == 0.0 {
        assert!(held.len() < 5, "five floods did not use up the budget");
        let before = count(&gateway, "ended").await + count(&gateway, "pauses").await;
        let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
        for _ in 0..200 {
            let stream = client.get("/held");
            client.reset(stream);
        }
        client.send().await;
        eventually("the end of a flood", async || {
            count(&gateway, "ended").await + count(&gateway, "pauses").await > before
        })
        .await;
        held.push(client);
    }
    assert!(count(&gateway, "ended").await >= 1.0, "no connection was closed");
    assert_eq!(upstream.request_count(), 1, "a request that was reset at once was forwarded");
    assert!(is_served(&mut other).await);
    let mut client = held.swap_remove(0);
    client.wait_for_close().await;
}

#[tokio::test]
async fn budget_is_of_the_address_in_the_proxy_header_and_a_proxy_has_none() {
    let upstream = upstream();
    let gateway = builder(&upstream, "reset_rate = { per_second = 1, burst = 5 }")
        .listener("address = \"127.0.0.1:0\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let connect_from = async |header: &str| {
        let mut stream = connect("127.0.0.1", gateway.address()).await;
        stream.write_all(header.as_bytes()).await.unwrap();
        RawHttp2::over(stream)
    };
    let one = "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n";
    let mut client = connect_from(one).await;
    reset_streams(&mut client, 12, &upstream).await;
    wait_for_count(&gateway, "pauses", 1.0).await;
    let mut second = connect_from(one).await;
    second.get("/");
    second.send().await;
    wait_for_count(&gateway, "pauses", 2.0).await;
    assert!(is_served(&mut connect_from("PROXY TCP4 192.0.2.2 192.0.2.9 1 2\r\n").await).await);
    let mut proxy = connect_from("PROXY UNKNOWN\r\n").await;
    reset_streams(&mut proxy, 50, &upstream).await;
    assert!(is_served(&mut proxy).await);
    wait_for_count(&gateway, "resets", 62.0).await;
    assert_eq!(count(&gateway, "pauses").await, 2.0);
}

#[tokio::test]
async fn tls_handshake_of_a_paused_address_waits() {
    let upstream = upstream();
    let tls =
        "address = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"app.pem\", key = \"app.key\" }] }";
    let gateway = builder(&upstream, "reset_rate = { per_second = 2, burst = 5 }")
        .listener("address = \"127.0.0.1:0\"")
        .listener(tls)
        .certificate("app", &Authority::new("ca").server(&["gateway.test"]))
        .start()
        .await;
    let plain_at_tls = async || {
        let outcome = [("outcome", "plain_at_tls")];
        Metrics::scrape(&gateway).await.sum("sessiongate_connections_total", &outcome)
    };
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    let started = Clock.mono();
    reset_streams(&mut client, 12, &upstream).await;
    wait_for_count(&gateway, "pauses", 1.0).await;
    // The gateway responds to plain HTTP at a TLS port with 400 as soon as it reads it.
    let mut plain = connect(CLIENT, gateway.addresses("https")[0]).await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    wait_for_count(&gateway, "pauses", 2.0).await;
    assert_eq!(plain_at_tls().await, 0.0);
    let mut response = Vec::new();
    crate::support::within("the response", plain.read_to_end(&mut response)).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.1 400"));
    assert!(Clock.mono() - started >= Duration::from_secs(3));
}
