//! A constant load: clients that send their next request as soon as they have a response. The test fails at the first request
//! without a 200.
//!
//! A server may close a connection between two requests only after a response with `Connection: close`.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Client, Request};
use super::within;

/// Running clients, which stop when this value is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    clients: JoinSet<()>,
    responses: Arc<watch::Sender<usize>>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Starts `persistent` clients, which reuse their connections, and `one_shot` clients, which open one for each request.
    pub(crate) fn start(address: SocketAddr, request: &Request, persistent: usize, one_shot: usize) -> Self {
        let responses = Arc::new(watch::Sender::new(0));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..persistent + one_shot {
            let (request, responses, stopped) = (request.clone(), Arc::clone(&responses), stopped.clone());
            clients.spawn(run_client(address, request, number < persistent, responses, stopped));
        }
        Self { clients, responses, stop }
    }

    /// Waits until `count` more responses have arrived.
    pub(crate) async fn wait_for_responses(&mut self, count: usize) {
        let mut responses = self.responses.subscribe();
        let goal = *responses.borrow() + count;
        let all = async {
            tokio::select! {
                reached = responses.wait_for(|count| *count >= goal) => drop(reached.expect("the sender is alive")),
                failed = self.clients.join_next() => panic!("a client has ended: {failed:?}"),
            }
        };
        within("the next responses", all).await;
    }

    /// Waits until every client has finished its last request. Returns the number of all responses.
    pub(crate) async fn finish(mut self) -> usize {
        self.stop.send_replace(true);
        while let Some(ended) = within("the end of the clients", self.clients.join_next()).await {
            ended.expect("every request gets a 200");
        }
        *self.responses.borrow()
    }
}

async fn run_client(
    address: SocketAddr,
    request: Request,
    persistent: bool,
    responses: Arc<watch::Sender<usize>>,
    stopped: watch::Receiver<bool>,
) {
    let mut connection = None;
    while !*stopped.borrow() {
        let mut client = match connection.take() {
            Some(client) => client,
            None => Client::connect(address).await,
        };
        client.send_request(&request).await;
        let response = client.read_response().await.expect("a complete response");
        assert_eq!(response.status, 200, "{response:?}");
        responses.send_modify(|count| *count += 1);
        if persistent && response.header("connection") != Some("close") {
            connection = Some(client);
        }
    }
}
