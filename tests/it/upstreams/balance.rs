//! Load balancing.

use super::{gateway, url};
use crate::support::client::{Client, Request};
use crate::support::gateway::Gateway;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn requests_are_distributed_by_weight() {
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
    assert_eq!((heavy.connections(), light.connections()), (1, 1), "connections are not reused");
}

#[tokio::test]
async fn sticky_clients_stay_at_their_server_and_only_those_of_a_stopped_one_move() {
    let mut servers = [Upstream::start(), Upstream::start(), Upstream::start()];
    let lines = "balance = \"sticky\"\nejection.failures = 1\nejection.for = \"1h\"";
    let gateway = gateway(&servers.each_ref().map(url), lines)
        .listener("address = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    let server_of_each_client = async |servers: &[Upstream; 3]| {
        let mut chosen = Vec::new();
        let mut client = Client::connect(gateway.address()).await;
        for number in 0..60 {
            let before = servers.each_ref().map(Upstream::request_count);
            let address = format!("10.0.0.{number}");
            let request = Request::get("/").header("X-Forwarded-For", &address);
            assert_eq!(client.request(&request).await.status, 200);
            let after = servers.each_ref().map(Upstream::request_count);
            chosen.push((0..3).find(|&index| after[index] > before[index]).unwrap());
        }
        chosen
    };
    let before = server_of_each_client(&servers).await;
    for index in 0..3 {
        let share = before.iter().filter(|&&server| server == index).count();
        assert!((8..=32).contains(&share), "{before:?}");
    }
    assert_eq!(server_of_each_client(&servers).await, before);
    servers[1].server().stop().await;
    let after = server_of_each_client(&servers).await;
    for (before, after) in before.into_iter().zip(after) {
        assert!(after != 1 && (before == 1 || before == after), "{before} moved to {after}");
    }
}
