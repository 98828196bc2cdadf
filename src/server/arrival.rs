//! From an accepted socket to a connection that speaks HTTP: who it is, whether there is room, and TLS.
//!
//! All of it happens in the connection's own task, each wait with a limit, so that nobody who is slow or hostile here
//! keeps anybody else from being accepted. Who is turned away here is told nothing and counted ([`Counters`](super::Counters)), but for those
//! who come with plain HTTP to TLS: they mean no harm, and are answered 400.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::connection;
use super::connection::ClientProtocol;
use super::connections::{ConnectionPermit, Connections};
use super::proxy_protocol::{self, Named};
use super::reset_budget::ResetBudget;
use super::tls::{HandshakeFailure, Terminator, TlsError};
use super::transport::{ClientSocket, Transport};
use crate::config::ListenerConfig;
use crate::proxy::{ListenerPolicy, Peer, Worker};
use crate::time::Timestamp;

/// What those get who speak plain HTTP to a listener with TLS.
const PLAIN: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: 71\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"This port is one of HTTPS\",\"status\":400}";
/// How long those are given to read it.
const FAREWELL: Duration = Duration::from_secs(1);
/// How much of what they go on sending is thrown away meanwhile.
const LEFTOVERS: u64 = 64 * 1024;

/// What whoever arrives at a listener passes through.
#[derive(Debug)]
pub(super) struct ListenerContext {
    policy: Arc<ListenerPolicy>,
    proxy_protocol: bool,
    http2: bool,
    tls: Option<Terminator>,
    pub(super) connections: Arc<Connections>,
}

/// Who somebody at the entrance turned out to be.
struct ClientIdentity {
    /// None: nobody knows.
    client: Option<IpAddr>,
    /// The same, but none of a proxy, which is many clients.
    alone: Option<IpAddr>,
}

/// Somebody at the entrance.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) socket: ClientSocket,
    /// None: by a unix socket.
    pub(super) address: Option<IpAddr>,
    pub(super) place: ConnectionPermit,
}

impl ListenerContext {
    pub(super) fn new(config: &ListenerConfig, connections: &Arc<Connections>) -> Result<Self, TlsError> {
        let tls = config.tls.as_ref().map(|tls| Terminator::open(tls, config.http2, connections)).transpose();
        Ok(Self {
            policy: Arc::new(ListenerPolicy::new(config)),
            proxy_protocol: config.proxy_protocol,
            http2: config.http2,
            tls: tls?,
            connections: Arc::clone(connections),
        })
    }

    /// When the first of its certificates expires; none: it has none.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        self.tls.as_ref().map(Terminator::not_after)
    }

    /// Who is at the other end; none: nobody who is served.
    async fn identify(
        &self,
        transport: &mut Transport,
        address: Option<IpAddr>,
        limit: Duration,
    ) -> Option<ClientIdentity> {
        let mut client = address;
        if self.proxy_protocol {
            let named = async {
                if !self.policy.proxies().believe(address.map(|address| address.to_canonical())) {
                    return None;
                }
                tokio::time::timeout(limit, proxy_protocol::read(transport)).await.ok()?.ok()
            };
            match named.await {
                Some(Named::Client(address)) => client = Some(address),
                Some(Named::Proxy) => {}
                None => {
                    self.connections.counters.bad_proxy_headers.add();
                    tracing::debug!("a connection without a PROXY header of a trusted proxy was closed");
                    return None;
                }
            }
        }
        let alone = client.filter(|client| !self.policy.proxies().believe(Some(client.to_canonical())));
        if let Some(address) = alone
            && !transport.place().take_share(&self.connections, address)
        {
            tracing::debug!("a connection of an address that has its share was closed");
            return None;
        }
        Some(ClientIdentity { client, alone })
    }
}

/// Serves whoever arrived, to the end of the connection.
pub(super) async fn receive(
    entrance: Arc<ListenerContext>,
    arrival: AcceptedConnection,
    worker: Rc<Worker>,
    stopped: watch::Receiver<bool>,
) {
    entrance.connections.counters.accepted.add();
    let mut transport = Transport::new(arrival.socket, arrival.place);
    let limit = worker.snapshot().gateway.timeouts.header;
    let Some(ClientIdentity { client, alone }) =
        entrance.identify(&mut transport, arrival.address, limit).await
    else {
        return;
    };
    let budget = ResetBudget::new(worker.snapshot().gateway.resets.as_ref(), alone, &entrance.connections);
    let Some(tls) = &entrance.tls else {
        let peer = Peer::new(client, &entrance.policy, None);
        let protocol = if entrance.http2 { ClientProtocol::Unknown } else { ClientProtocol::Http1 };
        return connection::serve(transport, protocol, peer, worker, budget, stopped).await;
    };
    // A handshake costs more than anything that may follow it.
    if entrance.http2 && !budget.settle(limit).await {
        tracing::debug!("a connection of an address that resets too many streams was closed");
        return;
    }
    // Boxed, all of it: a connection without TLS is not to be as large as one with it.
    match Box::pin(tls.accept(transport)).await {
        Ok((stream, protocol, secured)) => {
            entrance.connections.counters.handshakes.add();
            let peer = Peer::new(client, &entrance.policy, Some(secured));
            Box::pin(connection::serve(stream, protocol, peer, worker, budget, stopped)).await;
        }
        Err(HandshakeFailure::Plain(transport)) => {
            entrance.connections.counters.plain_at_tls.add();
            Box::pin(turn_away(transport)).await;
        }
        Err(HandshakeFailure::Handshake(error)) => {
            entrance.connections.counters.failed_handshakes.add();
            tracing::debug!(%error, "a TLS handshake failed");
        }
    }
}

/// Answers plain HTTP. What the client goes on sending is read for a moment: to close on it would reset the connection,
/// and the answer with it.
async fn turn_away(mut transport: Box<Transport>) {
    let farewell = async {
        transport.write_all(PLAIN).await?;
        transport.shutdown().await?;
        tokio::io::copy(&mut transport.take(LEFTOVERS), &mut tokio::io::sink()).await
    };
    // Whoever does not wait for an answer gets none.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
