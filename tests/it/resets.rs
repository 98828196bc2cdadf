//! Clients of HTTP/2 that open streams and reset them: the few that an honest one gives up go unnoticed; more are paid
//! for by its address, in time, and by nobody else.

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

/// Whose resets these tests are about, and somebody else.
const CLIENT: &str = "127.0.0.2";
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

/// Waits until as much has been counted.
async fn counted(gateway: &Gateway, name: &str, expected: f64) {
    eventually(&format!("{expected} {name}"), async || count(gateway, name).await >= expected).await;
    assert_eq!(count(gateway, name).await, expected, "{name}");
}

/// Opens as many streams, and resets them when the upstream has been asked for all of them.
async fn give_up(client: &mut RawHttp2, streams: usize, upstream: &Upstream) {
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
async fn who_resets_too_much_is_read_when_it_has_paid() {
    let upstream = upstream();
    let gateway = builder(&upstream, "reset_rate = { per_second = 2, burst = 10 }").start().await;
    let mut before = RawHttp2::connect(CLIENT, gateway.address()).await;
    assert!(is_served(&mut before).await);
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    let began = Clock.mono();
    give_up(&mut client, 20, &upstream).await;
    counted(&gateway, "resets", 20.0).await;
    counted(&gateway, "pauses", 1.0).await;

    let mut another = RawHttp2::connect(CLIENT, gateway.address()).await;
    let (first, second) = (client.get("/"), another.get("/"));
    client.send().await;
    another.send().await;
    counted(&gateway, "pauses", 2.0).await;
    let mut other = RawHttp2::connect(OTHER, gateway.address()).await;
    assert!(is_served(&mut other).await, "others are others");
    assert!(is_served(&mut before).await, "a connection that resets nothing goes on");
    assert_eq!(upstream.request_count(), 1 + 20 + 2, "what the client sent since is not read");

    assert!(client.reads_to_end_of(first).await && another.reads_to_end_of(second).await);
    assert!(Clock.mono() - began >= Duration::from_secs(5), "ten were beyond the bucket");
    assert_eq!((count(&gateway, "resets").await, count(&gateway, "ended").await), (20.0, 0.0));
}

#[tokio::test]
async fn pages_that_are_left_while_they_load_go_unnoticed() {
    let upstream = upstream();
    let gateway = builder(&upstream, "").start().await;
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    for _ in 0..4 {
        give_up(&mut client, 100, &upstream).await;
    }
    assert!(is_served(&mut client).await);
    counted(&gateway, "resets", 400.0).await;
    assert_eq!((count(&gateway, "pauses").await, count(&gateway, "ended").await), (0.0, 0.0));
}

#[tokio::test]
async fn responses_that_have_gone_cost_nothing() {
    let upstream = Upstream::responding(|request| match request.target.as_str() {
        "/empty" => ScriptedResponse::new(204, ""),
        "/cut" => ScriptedResponse::ok("hello").truncated_to(2),
        _ => ScriptedResponse::ok("hello"),
    });
    let gateway = builder(&upstream, "reset_rate = { per_second = 1, burst = 1 }").start().await;
    let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
    for path in ["/", "/empty", "/missing"].repeat(10) {
        let stream = client.get(path);
        client.send().await;
        assert!(client.reads_to_end_of(stream).await, "{path}");
        // Too late to matter.
        client.reset(stream);
    }
    client.get("/cut");
    assert!(is_served(&mut client).await, "an upstream that breaks off is not the client's fault");
    assert_eq!((count(&gateway, "resets").await, count(&gateway, "pauses").await), (0.0, 0.0));
}

#[tokio::test]
async fn a_flood_on_one_connection_after_another_is_one_flood() {
    let upstream = upstream();
    let limits = "resets = 20\nreset_rate = { per_second = 1, burst = 50 }";
    let gateway = builder(&upstream, limits).start().await;
    let mut other = RawHttp2::connect(OTHER, gateway.address()).await;
    assert!(
        is_served(&mut other).await,
        "and leaves a connection to the upstream behind, ready for whoever asks"
    );
    let mut held = Vec::new();
    while count(&gateway, "pauses").await == 0.0 {
        assert!(held.len() < 5, "each takes its share of the bucket");
        let stopped = count(&gateway, "ended").await + count(&gateway, "pauses").await;
        let mut client = RawHttp2::connect(CLIENT, gateway.address()).await;
        for _ in 0..200 {
            let stream = client.get("/held");
            client.reset(stream);
        }
        client.send().await;
        eventually("a flood to be stopped", async || {
            count(&gateway, "ended").await + count(&gateway, "pauses").await > stopped
        })
        .await;
        held.push(client);
    }
    assert!(count(&gateway, "ended").await >= 1.0, "the first is told to be calm");
    assert_eq!(upstream.request_count(), 1, "what was reset before it was read asks no upstream");
    assert!(is_served(&mut other).await);
    let mut client = held.swap_remove(0);
    client.wait_for_close().await;
}

#[tokio::test]
async fn the_address_is_the_one_that_the_proxy_tells_and_a_proxy_has_no_limit() {
    let upstream = upstream();
    let gateway = builder(&upstream, "reset_rate = { per_second = 1, burst = 5 }")
        .listener("address = \"127.0.0.1:0\"\nproxy_protocol = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let from = async |header: &str| {
        let mut stream = connect("127.0.0.1", gateway.address()).await;
        stream.write_all(header.as_bytes()).await.unwrap();
        RawHttp2::over(stream)
    };
    let one = "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n";
    let mut client = from(one).await;
    give_up(&mut client, 12, &upstream).await;
    counted(&gateway, "pauses", 1.0).await;
    let mut again = from(one).await;
    again.get("/");
    again.send().await;
    counted(&gateway, "pauses", 2.0).await;
    assert!(is_served(&mut from("PROXY TCP4 192.0.2.2 192.0.2.9 1 2\r\n").await).await);
    let mut proxy = from("PROXY UNKNOWN\r\n").await;
    give_up(&mut proxy, 50, &upstream).await;
    assert!(is_served(&mut proxy).await);
    counted(&gateway, "resets", 62.0).await;
    assert_eq!(count(&gateway, "pauses").await, 2.0);
}

#[tokio::test]
async fn no_handshake_before_the_debt_is_paid() {
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
    let began = Clock.mono();
    give_up(&mut client, 12, &upstream).await;
    counted(&gateway, "pauses", 1.0).await;
    // What is no TLS is answered by whoever reads it.
    let mut impatient = connect(CLIENT, gateway.addresses("https")[0]).await;
    impatient.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    counted(&gateway, "pauses", 2.0).await;
    assert_eq!(plain_at_tls().await, 0.0);
    let mut answer = Vec::new();
    crate::support::within("the answer", impatient.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"));
    assert!(Clock.mono() - began >= Duration::from_secs(3));
}
