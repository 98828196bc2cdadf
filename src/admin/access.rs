//! Who may see what the admin listener shows beyond whether the gateway is alive and ready.
//!
//! 1. With a token: who brings it.
//! 2. Without one, on an address of this machine's own: who asks for it by a name of this machine. A browser asks in the
//!    name of the page that it shows, and whoever owns that name can have it lead here (DNS rebinding): such a page
//!    would read what every program of this machine may.
//! 3. On a unix socket without a token: who can open it. No name leads there.

use std::net::{Ipv4Addr, Ipv6Addr};

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::{AdminAddress, AdminConfig};
use crate::route::canonical_host;
use crate::secret::Secret;

/// What `Authorization` begins with.
const BEARER: &[u8] = b"Bearer ";

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum AdminAccess {
    /// The token.
    Token(Secret),
    /// A name of this machine.
    Local,
    /// Nothing.
    Open,
}

/// What somebody did not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token.
    Token,
    /// A name of this machine.
    Host,
}

impl AdminAccess {
    pub(super) fn of(config: &AdminConfig) -> Self {
        match (&config.token, &config.address) {
            (Some(token), _) => Self::Token(token.clone()),
            (None, AdminAddress::Tcp(_)) => Self::Local,
            (None, AdminAddress::Unix(_)) => Self::Open,
        }
    }

    /// Whether these headers bring what is asked for.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        match self {
            Self::Token(token) => {
                if brings(headers, token) {
                    Ok(())
                } else {
                    Err(Denied::Token)
                }
            }
            Self::Local => {
                let host = only(headers, &HOST).and_then(|host| canonical_host(host.as_bytes()));
                if host.is_some_and(|host| is_local(&host)) { Ok(()) } else { Err(Denied::Host) }
            }
            Self::Open => Ok(()),
        }
    }
}

/// What it takes to find out says nothing about the token.
fn brings(headers: &HeaderMap, token: &Secret) -> bool {
    let Some(line) = only(headers, &AUTHORIZATION) else { return false };
    let Some((scheme, brought)) = line.as_bytes().split_at_checked(BEARER.len()) else { return false };
    let digests = (Sha256::digest(brought.trim_ascii()), Sha256::digest(token.expose()));
    scheme.eq_ignore_ascii_case(BEARER) && bool::from(digests.0.ct_eq(&digests.1))
}

/// Whether `host`, in its one spelling, can be no other machine's.
fn is_local(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
    }
}

/// The header's one line: two are one too many.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next();
    line.filter(|_| lines.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_and_of_others() {
        let check = |hosts: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_static(host));
            }
            AdminAccess::Local.check(&headers)
        };
        for own in ["127.0.0.1", "127.0.0.1:9090", "127.8.9.1:1", "[::1]", "[0:0::1]:9090", "LocalHost.:9090"]
        {
            assert_eq!(check(&[own]), Ok(()), "{own}");
        }
        for other in [
            "attacker.test",
            "attacker.test:9090",
            "localhost.attacker.test",
            "127.0.0.1.attacker.test",
            "attacker.test@localhost",
            "128.0.0.1",
            "0.0.0.0",
            "0x7f000001",
            "[::ffff:127.0.0.1]",
            "[::2]",
            "",
        ] {
            assert_eq!(check(&[other]), Err(Denied::Host), "{other}");
        }
        assert_eq!(check(&[]), Err(Denied::Host));
        assert_eq!(check(&["localhost", "localhost"]), Err(Denied::Host));
    }
}
