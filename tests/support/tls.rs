//! TLS clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{Authority, Identity};
use super::client::Client;
use super::within;

/// Returns the configuration of a client that trusts `authority`, presents `identity`, and resumes its TLS sessions.
pub(crate) fn client_config(authority: &Authority, identity: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    roots.add(certificate(authority.pem())).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
            builder
                .with_client_auth_cert(vec![certificate(&identity.certificate)], key)
                .expect("a certificate with its key")
        }
    })
}

/// Connects and does the TLS handshake with the server name `name`.
pub(crate) async fn handshake(
    address: SocketAddr,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = within("a connection", TcpStream::connect(address)).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    within("a handshake", TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}

/// Connects with TLS and returns a client for HTTP/1.1.
pub(crate) async fn connect(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> Client {
    Client::over(handshake(address, name, config).await.expect("a handshake"))
}
