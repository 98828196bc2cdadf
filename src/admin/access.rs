//! Access to the admin listener, except for the health and readiness checks, which are open to everyone.
//!
//! 1. If a token is configured, requests must present it.
//! 2. Without a token, on a loopback listener, the request's host must be a loopback address or `localhost`. Otherwise
//!    a web page on another host could read the responses: its owner only has to point the host name at 127.0.0.1 (DNS
//!    rebinding).
//! 3. Without a token, on a Unix socket, everyone who can open the socket has access.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::{AdminAddress, AdminConfig};
use crate::headers::single_value;
use crate::host::is_loopback_host;
use crate::secret::Secret;

/// The authentication scheme, and the space after it.
const BEARER: &[u8] = b"Bearer ";

/// The access rule of the admin listener.
#[derive(Clone, Debug)]
pub(super) enum AdminAccess {
    /// Requires the token.
    Token(Secret),
    /// Requires a loopback address or `localhost` as the request's host.
    Local,
    /// Requires nothing.
    Open,
}

/// The reason why access is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// The token is missing or wrong.
    Token,
    /// The host is neither a loopback address nor `localhost`.
    Host,
}

impl AdminAccess {
    pub(super) fn from_config(config: &AdminConfig) -> Self {
        match (&config.token, &config.address) {
            (Some(token), _) => Self::Token(token.clone()),
            (None, AdminAddress::Tcp(_)) => Self::Local,
            (None, AdminAddress::Unix(_)) => Self::Open,
        }
    }

    /// Checks a request's headers.
    ///
    /// # Errors
    /// Returns the reason if access is denied.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Denied> {
        match self {
            Self::Token(token) => {
                if has_token(headers, token) {
                    Ok(())
                } else {
                    Err(Denied::Token)
                }
            }
            Self::Local => {
                if is_loopback_host(headers) {
                    Ok(())
                } else {
                    Err(Denied::Host)
                }
            }
            Self::Open => Ok(()),
        }
    }
}

/// Returns whether the headers contain the token. Compares digests in constant time, so that the duration reveals nothing
/// about the token.
fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let Some(line) = single_value(headers, &AUTHORIZATION) else { return false };
    let Some((scheme, given)) = line.as_bytes().split_at_checked(BEARER.len()) else { return false };
    let digests = (Sha256::digest(given.trim_ascii()), Sha256::digest(token.expose()));
    scheme.eq_ignore_ascii_case(BEARER) && bool::from(digests.0.ct_eq(&digests.1))
}
