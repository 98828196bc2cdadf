//! Whose turn it is.

use super::{gateway, url};
use crate::support::client::{Client, Request};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn turns_go_by_weight() {
    let (heavy, light) = (Upstream::start(), Upstream::start());
    let upstream = format!(
        "[upstreams.app]\nservers = [{{ url = \"{}\", weight = 3 }}, \"{}\"]",
        url(&heavy),
        url(&light)
    );
    let gateway = Gateway::builder().toml(&upstream).route("/", "public", "").start().await;
    let mut client = Client::connect(gateway.address()).await;
    for _ in 0..8 {
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
    }
    assert_eq!((heavy.request_count(), light.request_count()), (6, 2));
    assert_eq!((heavy.connections(), light.connections()), (1, 1), "connections are used again");
}

#[tokio::test]
async fn clients_stick_to_a_server_and_only_those_of_one_that_is_gone_move() {
    let mut servers = [Upstream::start(), Upstream::start(), Upstream::start()];
    let lines = "balance = \"sticky\"\nejection.failures = 1\nejection.for = \"1h\"";
    let gateway = gateway(&servers.each_ref().map(url), lines)
        .listener("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let homes = async |servers: &[Upstream; 3]| {
        let mut homes = Vec::new();
        let mut client = Client::connect(gateway.address()).await;
        for number in 0..60 {
            let before = servers.each_ref().map(Upstream::request_count);
            let address = format!("10.0.0.{number}");
            let request = Request::get("/").header("X-Forwarded-For", &address);
            assert_eq!(client.request(&request).await.status, 200);
            let after = servers.each_ref().map(Upstream::request_count);
            homes.push((0..3).find(|&index| after[index] > before[index]).unwrap());
        }
        homes
    };
    let before = homes(&servers).await;
    for index in 0..3 {
        let share = before.iter().filter(|&&home| home == index).count();
        assert!((8..=32).contains(&share), "{before:?}");
    }
    assert_eq!(homes(&servers).await, before);
    servers[1].server().stop().await;
    let after = homes(&servers).await;
    for (before, after) in before.into_iter().zip(after) {
        assert!(after != 1 && (before == 1 || before == after), "{before} moved to {after}");
    }
}
