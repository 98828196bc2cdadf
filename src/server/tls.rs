//! TLS termination at a listener: certificates by SNI, client certificates, the handshake timeout.
//!
//! Every certificate has its own rustls configuration with its own ticket keys. So a TLS session can be resumed neither
//! with another certificate, which may require other client certificates, nor after the files have changed. Clients
//! without SNI or with an unknown name get the first certificate.

mod context;
mod error;
mod files;
mod reload;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use self::context::{Contexts, HTTP2};
pub use self::error::TlsError;
use self::files::Files;
use super::connection::ClientProtocol;
use super::connections::Connections;
use super::transport::Transport;
use crate::config::TlsConfig;
use crate::config::environment::System;
use crate::proxy::{CertificateRule, TlsFacts};
use crate::time::{Clock, Timestamp};
use crate::tls::ClientCertificate;

/// The content type of handshake records (RFC 8446, 5.1): the first byte of a TLS connection.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Terminates TLS at one listener.
#[derive(Debug)]
pub(super) struct TlsTerminator {
    contexts: watch::Receiver<Arc<Contexts>>,
    timeout: Duration,
    /// Reloads the certificates when their files change.
    _reload: AbortOnDropHandle<()>,
}

/// Error of a TLS handshake.
#[derive(Debug)]
pub(super) enum HandshakeFailure {
    /// The client speaks plain HTTP.
    PlainHttp(Box<Transport>),
    /// Anything else.
    Other(io::Error),
}

impl TlsTerminator {
    /// Reads the certificates of `config`, and reloads them whenever their files change.
    pub(super) fn open(
        config: &TlsConfig,
        http2: bool,
        connections: &Arc<Connections>,
    ) -> Result<Self, TlsError> {
        let files = Files::read(config, &System);
        let contexts = Contexts::new(config, http2, &files)?;
        let (sender, receiver) = watch::channel(Arc::new(contexts));
        let reload = reload::run((config.clone(), http2), files, sender, Arc::clone(connections));
        let reload = AbortOnDropHandle::new(tokio::spawn(reload));
        Ok(Self { contexts: receiver, timeout: config.handshake_timeout, _reload: reload })
    }

    /// Returns when the first of the certificates expires.
    pub(super) fn not_after(&self) -> Timestamp {
        self.contexts.borrow().not_after
    }

    /// Performs the TLS handshake on `transport`.
    pub(super) async fn accept(
        &self,
        transport: Transport,
    ) -> Result<(Box<TlsStream<Transport>>, ClientProtocol, TlsFacts), HandshakeFailure> {
        let contexts = Arc::clone(&self.contexts.borrow());
        let handshake = tokio::time::timeout(self.timeout, handshake(transport, &contexts));
        handshake.await.unwrap_or_else(|_| Err(HandshakeFailure::Other(io::ErrorKind::TimedOut.into())))
    }
}

async fn handshake(
    mut transport: Transport,
    contexts: &Contexts,
) -> Result<(Box<TlsStream<Transport>>, ClientProtocol, TlsFacts), HandshakeFailure> {
    // The first byte is checked before rustls reads it, because rustls would send a TLS alert to a plain HTTP client.
    if transport.ahead().is_empty() {
        transport.read_ahead().await.map_err(HandshakeFailure::Other)?;
    }
    match transport.ahead().first() {
        Some(&HANDSHAKE_RECORD) => {}
        Some(byte) if byte.is_ascii_uppercase() => {
            return Err(HandshakeFailure::PlainHttp(Box::new(transport)));
        }
        Some(_) => return Err(failed("not a TLS handshake")),
        None => return Err(HandshakeFailure::Other(io::ErrorKind::UnexpectedEof.into())),
    }
    let start =
        LazyConfigAcceptor::new(Acceptor::default(), transport).await.map_err(HandshakeFailure::Other)?;
    let context = contexts.choose(start.client_hello().server_name());
    let stream = start.into_stream(Arc::clone(&context.config)).await.map_err(HandshakeFailure::Other)?;
    let (_, session) = stream.get_ref();
    let first = session.peer_certificates().and_then(|chain| chain.first());
    let certificate = first.map(|der| {
        read_valid(der).ok_or_else(|| failed("the client certificate has expired or cannot be parsed"))
    });
    let certificate = certificate.transpose()?;
    let rule = contexts
        .hosts
        .as_ref()
        .map(|hosts| CertificateRule { hosts: Arc::clone(hosts), number: context.rule });
    let protocol =
        if session.alpn_protocol() == Some(HTTP2) { ClientProtocol::Http2 } else { ClientProtocol::Http1 };
    Ok((Box::new(stream), protocol, TlsFacts { certificate, rule }))
}

/// Parses a client certificate. Returns `None` if it is malformed or has expired. The expiry is checked because a resumed
/// session relies on the verification by an earlier handshake.
fn read_valid(der: &[u8]) -> Option<ClientCertificate> {
    ClientCertificate::parse(der).filter(|certificate| Clock.wall() <= certificate.not_after)
}

fn failed(reason: &'static str) -> HandshakeFailure {
    HandshakeFailure::Other(io::Error::new(io::ErrorKind::InvalidData, reason))
}
