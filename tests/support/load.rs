//! A constant load: clients that ask for the next thing as soon as they have the last, and fail the test at the first
//! request that is not answered.
//!
//! A server may end a connection between two requests after it has said `Connection: close`, and in no other way.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Client, Request};
use super::within;

/// Clients at work; they stop when this is dropped.
#[derive(Debug)]
pub(crate) struct Load {
    clients: JoinSet<()>,
    answered: Arc<watch::Sender<usize>>,
    stop: watch::Sender<bool>,
}

impl Load {
    /// Starts `lasting` clients that keep their connections and `fleeting` ones that open one for each request.
    pub(crate) fn start(address: SocketAddr, request: &Request, lasting: usize, fleeting: usize) -> Self {
        let answered = Arc::new(watch::Sender::new(0));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..lasting + fleeting {
            let (request, answered, stopped) = (request.clone(), Arc::clone(&answered), stopped.clone());
            clients.spawn(ask(address, request, number < lasting, answered, stopped));
        }
        Self { clients, answered, stop }
    }

    /// Waits until `count` more requests have been answered.
    pub(crate) async fn answers(&mut self, count: usize) {
        let mut answered = self.answered.subscribe();
        let goal = *answered.borrow() + count;
        let all = async {
            tokio::select! {
                reached = answered.wait_for(|answered| *answered >= goal) => drop(reached.expect("lives")),
                failed = self.clients.join_next() => panic!("a client has ended: {failed:?}"),
            }
        };
        within("the next answers", all).await;
    }

    /// Lets every client finish its last request; how many were answered in all.
    pub(crate) async fn finish(mut self) -> usize {
        self.stop.send_replace(true);
        while let Some(ended) = within("the clients' end", self.clients.join_next()).await {
            ended.expect("every request is answered");
        }
        *self.answered.borrow()
    }
}

async fn ask(
    address: SocketAddr,
    request: Request,
    lasts: bool,
    answered: Arc<watch::Sender<usize>>,
    stopped: watch::Receiver<bool>,
) {
    let mut connection = None;
    while !*stopped.borrow() {
        let mut client = match connection.take() {
            Some(client) => client,
            None => Client::connect(address).await,
        };
        client.start(&request).await;
        let response = client.answer().await.expect("a complete answer");
        assert_eq!(response.status, 200, "{response:?}");
        answered.send_modify(|answered| *answered += 1);
        if lasts && response.header("connection") != Some("close") {
            connection = Some(client);
        }
    }
}
