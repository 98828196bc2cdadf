//! The PROXY protocol, versions 1 and 2: who the client is, said by the proxy that passes its connection on.
//!
//! 1. Only a trusted proxy is listened to. Whoever else comes is not served: it would be taken for the proxy.
//! 2. A header must come, whole, and first. Without one the connection ends: a client must not get to speak for itself.
//! 3. A header that names no client (`LOCAL`, `UNKNOWN`, a unix socket's) leaves the proxy itself the peer.
//! 4. What else a header says (TLS at the proxy, names) is not believed.

use std::io;
use std::net::IpAddr;

use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader};

use super::transport::Transport;

/// The most that a header may take. Proxies of today stay below 1 KiB; the protocol would allow for 64.
const LONGEST: usize = 4096;

/// The same of version 1, by its specification: room for two IPv6 addresses, and no more.
const LONGEST_LINE: usize = 107;

/// Whom a header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The client at this address.
    Client(IpAddr),
    /// Nobody but the proxy itself.
    Proxy,
}

/// Reads the header off `transport`.
pub(super) async fn read(transport: &mut Transport) -> io::Result<Named> {
    loop {
        let ahead = transport.ahead();
        match parse(ahead) {
            Ok((named, length)) => {
                transport.take(length);
                return Ok(named);
            }
            Err(Error::BufferTooShort) if ahead.len() < LONGEST => {}
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
        if !transport.read_ahead().await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn parse(bytes: &[u8]) -> Result<(Named, usize), Error> {
    let (header, length) =
        ProxyHeader::parse(bytes, ParseConfig { include_tlvs: false, ..ParseConfig::default() })?;
    if bytes.first() == Some(&b'P') && length > LONGEST_LINE {
        return Err(Error::HeaderTooBig);
    }
    let named = match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => Named::Client(address.source.ip()),
        Some(_) | None => Named::Proxy,
    };
    Ok((named, length))
}
