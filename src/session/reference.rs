//! The public identifier of a session.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::item::Key;

/// The public identifier of a session in logs, headers and commands: 16 hexadecimal digits of a SHA-256 of its row's key.
/// The id cannot be derived from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ref(u64);

impl Ref {
    /// Returns the identifier of the session whose row has this key.
    pub fn from_key(key: &Key) -> Self {
        let digest =
            Sha256::new().chain_update(b"sessiongate-ref\0").chain_update(key.expose_bytes()).finalize();
        let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self(u64::from_be_bytes(*head))
    }

    /// Returns a hash for load balancing by session: uniformly distributed, and the same in every gateway.
    pub(crate) fn affinity(self) -> u64 {
        self.0
    }

    /// Parses 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
