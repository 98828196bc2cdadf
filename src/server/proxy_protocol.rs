//! The PROXY protocol, versions 1 and 2: the proxy in front of the gateway sends the client's address.
//!
//! 1. Only trusted proxies may connect. Any other client could claim to be any address.
//! 2. Every connection must begin with a complete header, or it is closed.
//! 3. If a header has no client address (`LOCAL`, `UNKNOWN`, Unix sockets), the proxy counts as the client.
//! 4. TLVs (such as TLS at the proxy) are ignored.

use std::io;
use std::net::IpAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};

use super::transport::Transport;

/// Limit on the size of a header. Proxies send less than 1 KiB in practice; the protocol allows for 64 KiB.
const MAX_HEADER: usize = 4096;

/// Limit on the size of a version 1 header, by its specification.
const MAX_V1_HEADER: usize = 107;

/// The source of a connection, according to its PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProxySource {
    /// A client of the proxy.
    Client(IpAddr),
    /// The proxy itself, or a client without an address.
    Proxy,
}

/// Reads and consumes the PROXY header at the beginning of `transport`.
pub(super) async fn read(transport: &mut Transport) -> io::Result<ProxySource> {
    loop {
        let ahead = transport.ahead();
        match parse(ahead) {
            Ok((source, length)) => {
                transport.consume(length);
                return Ok(source);
            }
            Err(Error::BufferTooShort) if ahead.len() < MAX_HEADER => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        if !transport.read_ahead().await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(bytes: &[u8]) -> Result<(ProxySource, usize), Error> {
    let (header, length) =
        ProxyHeader::parse(bytes, ParseConfig { include_tlvs: false, ..ParseConfig::default() })?;
    if bytes.first() == Some(&b'P') && length > MAX_V1_HEADER {
        return Err(Error::HeaderTooBig);
    }
    let source = match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => ProxySource::Client(address.source.ip()),
        Some(_) | None => ProxySource::Proxy,
    };
    Ok((source, length))
}
