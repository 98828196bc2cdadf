//! An accepted connection before its first request: PROXY header, limits per address, TLS handshake.
//!
//! All of this runs in the connection's own task, and every wait has a timeout, so that a slow or hostile client does
//! not delay the next accept. A refused connection is counted ([`Counters`](super::Counters)) and closed without a
//! response, except that plain HTTP on a TLS port gets a 400.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::connection;
use super::connection::ClientProtocol;
use super::connections::{ConnectionPermit, Connections};
use super::proxy_protocol::{self, ProxySource};
use super::reset_budget::ResetBudget;
use super::tls::{HandshakeFailure, TlsError, TlsTerminator};
use super::transport::{ClientSocket, Transport};
use crate::config::ListenerConfig;
use crate::proxy::{ListenerPolicy, Peer, Worker};
use crate::time::Timestamp;

/// The response to plain HTTP on a TLS listener.
const HTTPS_REQUIRED: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: 70\r\n\
    Cache-Control: no-store\r\nConnection: close\r\n\r\n\
    {\"type\":\"about:blank\",\"title\":\"This port requires HTTPS\",\"status\":400}";
/// Timeout for sending [`HTTPS_REQUIRED`] and for discarding what the client still sends.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Limit on the bytes from the client that are discarded after [`HTTPS_REQUIRED`].
const MAX_DISCARD: u64 = 64 * 1024;

/// Context shared by the connections of a listener.
#[derive(Debug)]
pub(super) struct ListenerContext {
    policy: Arc<ListenerPolicy>,
    proxy_protocol: bool,
    http2: bool,
    tls: Option<TlsTerminator>,
    pub(super) connections: Arc<Connections>,
}

/// The client of a connection.
struct ClientIdentity {
    /// The client's address, if it is known.
    address: Option<IpAddr>,
    /// The address to which limits per client apply; `None` if the address is unknown (Unix sockets) or belongs to a
    /// trusted proxy, which represents many clients.
    limited_address: Option<IpAddr>,
}

/// A connection that was just accepted.
#[derive(Debug)]
pub(super) struct AcceptedConnection {
    pub(super) socket: ClientSocket,
    /// The address that the socket is connected to; `None` for a Unix socket.
    pub(super) peer_address: Option<IpAddr>,
    pub(super) permit: ConnectionPermit,
}

impl ListenerContext {
    pub(super) fn new(config: &ListenerConfig, connections: &Arc<Connections>) -> Result<Self, TlsError> {
        let tls =
            config.tls.as_ref().map(|tls| TlsTerminator::open(tls, config.http2, connections)).transpose();
        Ok(Self {
            policy: Arc::new(ListenerPolicy::new(config)),
            proxy_protocol: config.proxy_protocol,
            http2: config.http2,
            tls: tls?,
            connections: Arc::clone(connections),
        })
    }

    /// Returns when the first of the listener's certificates expires, or `None` without TLS.
    pub(super) fn not_after(&self) -> Option<Timestamp> {
        self.tls.as_ref().map(TlsTerminator::not_after)
    }

    /// Determines the client's address, and counts the connection for it. Returns `None` if the connection is refused.
    async fn identify(
        &self,
        transport: &mut Transport,
        peer_address: Option<IpAddr>,
        timeout: Duration,
    ) -> Option<ClientIdentity> {
        let mut address = peer_address;
        if self.proxy_protocol {
            let source = async {
                if !self.policy.proxies().contains(peer_address.map(|address| address.to_canonical())) {
                    return None;
                }
                tokio::time::timeout(timeout, proxy_protocol::read(transport)).await.ok()?.ok()
            };
            match source.await {
                Some(ProxySource::Client(client)) => address = Some(client),
                Some(ProxySource::Proxy) => {}
                None => {
                    self.connections.counters.bad_proxy_headers.increment();
                    tracing::debug!("a connection without a PROXY header from a trusted proxy was closed");
                    return None;
                }
            }
        }
        let is_proxy = |address: &IpAddr| self.policy.proxies().contains(Some(address.to_canonical()));
        let limited_address = address.filter(|address| !is_proxy(address));
        if let Some(address) = limited_address
            && !transport.permit().count_for(&self.connections, address)
        {
            tracing::debug!("a connection was closed: its address has too many connections");
            return None;
        }
        Some(ClientIdentity { address, limited_address })
    }
}

/// Serves an accepted connection until it ends.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, which idle connections pay for"
)]
pub(super) fn serve(
    listener: Arc<ListenerContext>,
    accepted: AcceptedConnection,
    worker: Rc<Worker>,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> {
    async move {
        listener.connections.counters.accepted.increment();
        let mut transport = Transport::new(accepted.socket, accepted.permit);
        let timeout = worker.snapshot().gateway.timeouts.header;
        let Some(ClientIdentity { address, limited_address }) =
            listener.identify(&mut transport, accepted.peer_address, timeout).await
        else {
            return;
        };
        let budget = ResetBudget::new(
            worker.snapshot().gateway.resets.as_ref(),
            limited_address,
            &listener.connections,
        );
        let Some(tls) = &listener.tls else {
            let peer = Rc::new(Peer::new(address, &listener.policy, None));
            let protocol = if listener.http2 { ClientProtocol::Unknown } else { ClientProtocol::Http1 };
            return connection::serve(transport, protocol, peer, worker, budget, stopped).await;
        };
        // The handshake is the most expensive part of most connections, so a client without tokens has to wait before it.
        if listener.http2 && !budget.wait_for_token(timeout).await {
            tracing::debug!("a connection was closed: its address has reset too many streams");
            return;
        }
        // Boxed, so that connections without TLS need less memory.
        match Box::pin(tls.accept(transport)).await {
            Ok((stream, protocol, facts)) => {
                listener.connections.counters.handshakes.increment();
                let peer = Rc::new(Peer::new(address, &listener.policy, Some(facts)));
                Box::pin(connection::serve(stream, protocol, peer, worker, budget, stopped)).await;
            }
            Err(HandshakeFailure::PlainHttp(transport)) => {
                listener.connections.counters.plain_at_tls.increment();
                Box::pin(refuse_plain_http(transport)).await;
            }
            Err(HandshakeFailure::Other(error)) => {
                listener.connections.counters.failed_handshakes.increment();
                tracing::debug!(%error, "a TLS handshake failed");
            }
        }
    }
}

/// Responds to plain HTTP. Then discards what the client still sends for a short time, because closing at once would
/// reset the connection, and the client could lose the response.
async fn refuse_plain_http(mut transport: Box<Transport>) {
    let respond = async {
        transport.write_all(HTTPS_REQUIRED).await?;
        transport.shutdown().await?;
        tokio::io::copy(&mut transport.take(MAX_DISCARD), &mut tokio::io::sink()).await
    };
    // The connection is closed in any case.
    let _ = tokio::time::timeout(REFUSAL_TIMEOUT, respond).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_to_plain_http_has_the_right_content_length() {
        let text = std::str::from_utf8(HTTPS_REQUIRED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
