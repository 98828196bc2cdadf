//! The transport of a connection to a server: TCP with or without TLS, or a Unix socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::endpoint::{Address, Endpoint, ServerProtocol};

/// An open connection to a server, below HTTP.
#[derive(Debug)]
pub(super) enum ServerStream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// The protocols to offer by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// All that the configuration allows.
    All,
    /// Only HTTP/1.1.
    Http1,
}

impl ServerStream {
    /// Connects to `address` of `endpoint`, TLS handshake included, within `timeout`.
    ///
    /// # Errors
    /// Returns the reason, for the log.
    pub(super) async fn open(
        endpoint: &Endpoint,
        address: &Address,
        timeout: Duration,
        offer: Offer,
    ) -> Result<(Self, Version), String> {
        match tokio::time::timeout(timeout, Self::connect(endpoint, address, offer)).await {
            Ok(connected) => connected,
            Err(_) => Err(format!("no connection within {}", humantime::format_duration(timeout))),
        }
    }

    async fn connect(
        endpoint: &Endpoint,
        address: &Address,
        offer: Offer,
    ) -> Result<(Self, Version), String> {
        let stream = match address {
            Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            Address::Tcp(address) => TcpStream::connect(address).await.and_then(|stream| {
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }),
        };
        let stream = stream.map_err(|error| error.to_string())?;
        match (&endpoint.protocol, stream) {
            (ServerProtocol::Tls(tls), Self::Tcp(stream)) => {
                let config = match offer {
                    Offer::All => &tls.config,
                    Offer::Http1 => &tls.http1,
                };
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(tls.name.clone(), stream).await;
                let stream = stream.map_err(|error| format!("TLS: {error}"))?;
                let version = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Version::Http2,
                    // A server without ALPN speaks HTTP/1.1.
                    None if config.alpn_protocols == [b"h2"] => {
                        return Err("TLS: the server does not speak HTTP/2".to_owned());
                    }
                    Some(_) | None => Version::Http1,
                };
                Ok((Self::Tls(Box::new(stream)), version))
            }
            (ServerProtocol::Http2, stream) => Ok((stream, Version::Http2)),
            (ServerProtocol::Http1 | ServerProtocol::Tls(_), stream) => Ok((stream, Version::Http1)),
        }
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
