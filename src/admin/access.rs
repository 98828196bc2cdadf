//! Who may see what the admin listener shows beyond whether the gateway is alive and ready.
//!
//! 1. With a token: who brings it.
//! 2. Without one, on an address of this machine's own: who asks for it by a name of this machine. A browser asks in the
//!    name of the page that it shows, and whoever owns that name can have it lead here (DNS rebinding): such a page
//!    would read what every program of this machine may.
//! 3. On a unix socket without a token: who can open it. No name leads there.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::{AdminAddress, AdminConfig};
use crate::headers::sole;
use crate::host::names_this_machine;
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
                if names_this_machine(headers) {
                    Ok(())
                } else {
                    Err(Denied::Host)
                }
            }
            Self::Open => Ok(()),
        }
    }
}

/// What it takes to find out says nothing about the token.
fn brings(headers: &HeaderMap, token: &Secret) -> bool {
    let Some(line) = sole(headers, &AUTHORIZATION) else { return false };
    let Some((scheme, brought)) = line.as_bytes().split_at_checked(BEARER.len()) else { return false };
    let digests = (Sha256::digest(brought.trim_ascii()), Sha256::digest(token.expose()));
    scheme.eq_ignore_ascii_case(BEARER) && bool::from(digests.0.ct_eq(&digests.1))
}
