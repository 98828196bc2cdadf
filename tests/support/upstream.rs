//! An upstream that remembers every request to the byte, and answers what the test says.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::answer::Answer;
use super::server::{Received, Server};
use super::within;

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    server: Server,
    requests: Arc<watch::Sender<Vec<Received>>>,
}

impl Upstream {
    /// An upstream that answers everything with `200 ok`.
    pub(crate) fn start() -> Self {
        Self::answering(|_| Answer::ok("ok"))
    }

    /// An upstream that answers by `script`.
    pub(crate) fn answering(script: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let requests = Arc::new(watch::Sender::new(Vec::new()));
        let record = requests.clone();
        let server = Server::start(move |received| {
            let answer = script(&received);
            record.send_modify(|requests| requests.push(received));
            Box::pin(std::future::ready(answer))
        });
        Self { server, requests }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The server under it, to stop it and start it again.
    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.borrow().clone()
    }

    /// How many requests arrived.
    pub(crate) fn hits(&self) -> usize {
        self.requests.borrow().len()
    }

    /// How many connections were opened.
    pub(crate) fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Waits until `count` requests have arrived.
    pub(crate) async fn arrivals(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        let _all =
            within("a request at the upstream", requests.wait_for(|all| all.len() >= count)).await.unwrap();
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Received {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests: {requests:#?}");
        requests.remove(0)
    }

    /// The latest request.
    pub(crate) fn last(&self) -> Received {
        self.requests().pop().expect("a request")
    }
}
