//! Bytes that must never be printed: signing keys, session ids, cookie values. `Debug` prints only the length,
//! `Display` is not implemented, and the bytes are reached only through [`Secret::expose`], which is easy to search
//! for.

use std::fmt;

use subtle::ConstantTimeEq;

/// A secret byte string.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Wraps `bytes`.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes, which must not be logged, displayed or put into an error.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Compares in constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}
