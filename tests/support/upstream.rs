//! An upstream that records every request and sends scripted responses.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;

use super::scripted_response::ScriptedResponse;
use super::server::{ReceivedRequest, Server};
use super::within;

/// A running upstream.
#[derive(Debug)]
pub(crate) struct Upstream {
    server: Server,
    requests: Arc<watch::Sender<Vec<ReceivedRequest>>>,
}

impl Upstream {
    /// Starts an upstream that responds to every request with `200 ok`.
    pub(crate) fn start() -> Self {
        Self::responding(|_| ScriptedResponse::ok("ok"))
    }

    /// Starts an upstream whose responses `script` returns.
    pub(crate) fn responding(
        script: impl Fn(&ReceivedRequest) -> ScriptedResponse + Send + Sync + 'static,
    ) -> Self {
        let requests = Arc::new(watch::Sender::new(Vec::new()));
        let record = requests.clone();
        let server = Server::start(move |received| {
            let response = script(&received);
            record.send_modify(|requests| requests.push(received));
            Box::pin(std::future::ready(response))
        });
        Self { server, requests }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns its server, to stop it and start it again.
    pub(crate) fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    /// Returns every request so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.borrow().clone()
    }

    /// Returns the number of requests so far.
    pub(crate) fn request_count(&self) -> usize {
        self.requests.borrow().len()
    }

    /// Returns the number of connections opened so far.
    pub(crate) fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Waits until `count` requests have arrived.
    pub(crate) async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        let _all =
            within("a request at the upstream", requests.wait_for(|all| all.len() >= count)).await.unwrap();
    }

    /// Returns the only request so far. Panics if there are none or several.
    pub(crate) fn only_request(&self) -> ReceivedRequest {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "requests: {requests:#?}");
        requests.remove(0)
    }

    /// Returns the latest request.
    pub(crate) fn last_request(&self) -> ReceivedRequest {
        self.requests().pop().expect("a request")
    }
}
