//! Bytes that must never be printed: signing keys, session ids, cookie values. `Debug` shows that there is a secret and
//! how long it is, there is no `Display`, and reading one takes a method that can be searched for.

use std::fmt;

use subtle::ConstantTimeEq;

/// A secret byte string.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves. Never to be logged, shown or put into an error.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Compares without telling by time how much of the two agrees.
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
