//! TLS at a listener: which certificate a client sees, what is asked of it, and how long it has.
//!
//! Every certificate has a configuration of its own, with its own tickets: what a client proved to one is no proof to
//! another, and nothing that was proved before the files changed counts after. The first certificate is for clients that
//! name none, or one that is not there.

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

/// What a TLS record of a handshake begins with.
const HANDSHAKE: u8 = 0x16;

/// TLS at one listener.
#[derive(Debug)]
pub(super) struct Terminator {
    contexts: watch::Receiver<Arc<Contexts>>,
    timeout: Duration,
    /// Follows the files, for as long as the listener is there.
    _reload: AbortOnDropHandle<()>,
}

/// Why a connection speaks no TLS.
#[derive(Debug)]
pub(super) enum HandshakeFailure {
    /// It speaks plain HTTP.
    Plain(Box<Transport>),
    /// Anything else.
    Handshake(io::Error),
}

impl Terminator {
    /// Reads the files of `config`, and goes on following them.
    pub(super) fn open(
        config: &TlsConfig,
        http2: bool,
        connections: &Arc<Connections>,
    ) -> Result<Self, TlsError> {
        let files = Files::read(config, &System);
        let contexts = Contexts::new(config, http2, &files)?;
        let (sender, receiver) = watch::channel(Arc::new(contexts));
        let following = reload::follow((config.clone(), http2), files, sender, Arc::clone(connections));
        let reload = AbortOnDropHandle::new(tokio::spawn(following));
        Ok(Self { contexts: receiver, timeout: config.handshake_timeout, _reload: reload })
    }

    /// When the first of the certificates expires.
    pub(super) fn not_after(&self) -> Timestamp {
        self.contexts.borrow().not_after
    }

    /// Shakes hands.
    pub(super) async fn accept(
        &self,
        transport: Transport,
    ) -> Result<(Box<TlsStream<Transport>>, ClientProtocol, TlsFacts), HandshakeFailure> {
        let contexts = Arc::clone(&self.contexts.borrow());
        let handshake = tokio::time::timeout(self.timeout, handshake(transport, &contexts));
        handshake.await.unwrap_or_else(|_| Err(HandshakeFailure::Handshake(io::ErrorKind::TimedOut.into())))
    }
}

async fn handshake(
    mut transport: Transport,
    contexts: &Contexts,
) -> Result<(Box<TlsStream<Transport>>, ClientProtocol, TlsFacts), HandshakeFailure> {
    // What is not TLS gets no alert, which it could not read.
    if transport.ahead().is_empty() {
        transport.read_ahead().await.map_err(HandshakeFailure::Handshake)?;
    }
    match transport.ahead().first() {
        Some(&HANDSHAKE) => {}
        Some(byte) if byte.is_ascii_uppercase() => return Err(HandshakeFailure::Plain(Box::new(transport))),
        Some(_) => return Err(failed("this is not TLS")),
        None => return Err(HandshakeFailure::Handshake(io::ErrorKind::UnexpectedEof.into())),
    }
    let start =
        LazyConfigAcceptor::new(Acceptor::default(), transport).await.map_err(HandshakeFailure::Handshake)?;
    let context = contexts.choose(start.client_hello().server_name());
    let stream = start.into_stream(Arc::clone(&context.config)).await.map_err(HandshakeFailure::Handshake)?;
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    let certificate =
        shown.map(|der| current(der).ok_or_else(|| failed("the client's certificate is not valid")));
    let certificate = certificate.transpose()?;
    let rule = contexts
        .hosts
        .as_ref()
        .map(|hosts| CertificateRule { hosts: Arc::clone(hosts), number: context.rule });
    let protocol =
        if session.alpn_protocol() == Some(HTTP2) { ClientProtocol::Http2 } else { ClientProtocol::Http1 };
    Ok((Box::new(stream), protocol, TlsFacts { certificate, rule }))
}

/// Reads a certificate that was verified, maybe by the handshake of a session that is resumed: then it may have expired
/// since.
fn current(der: &[u8]) -> Option<ClientCertificate> {
    ClientCertificate::parse(der).filter(|certificate| Clock.now().wall <= certificate.not_after)
}

fn failed(why: &'static str) -> HandshakeFailure {
    HandshakeFailure::Handshake(io::Error::new(io::ErrorKind::InvalidData, why))
}
