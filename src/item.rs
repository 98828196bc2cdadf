//! DynamoDB items as plain values: attributes, numbers and keys. SDK types are used in `store` only, so that formats
//! and the expiry rules do not depend on the SDK.

use std::collections::BTreeMap;
use std::fmt;

use smallvec::SmallVec;

use crate::time::Timestamp;

/// A row: attribute name → value. Ordered, so that the same row is always serialized to the same bytes.
pub type Item = BTreeMap<String, Attribute>;

/// An attribute value of one of DynamoDB's types.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// `S`
    String(String),
    /// `N`
    Number(Number),
    /// `B`
    Binary(Vec<u8>),
    /// `BOOL`
    Bool(bool),
    /// `NULL`
    Null,
    /// `L`
    List(Vec<Attribute>),
    /// `M`
    Map(Item),
    /// `SS`
    StringSet(Vec<String>),
    /// `NS`
    NumberSet(Vec<Number>),
    /// `BS`
    BinarySet(Vec<Vec<u8>>),
}

/// A DynamoDB number: a decimal of up to 38 digits. It is kept as text, since neither `i64` nor `f64` represents every
/// such number, and numbers written by the app must be preserved exactly.
#[derive(Clone, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// Wraps the text of a number that DynamoDB sent, without validation.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Formats a timestamp as Unix seconds; a fraction is written only if it is not zero.
    pub fn from_seconds(timestamp: Timestamp) -> Self {
        let sign = if timestamp.as_millis() < 0 { "-" } else { "" };
        let millis = timestamp.as_millis().unsigned_abs();
        let (secs, fraction) = (millis / 1000, millis % 1000);
        Self(if fraction == 0 { format!("{sign}{secs}") } else { format!("{sign}{secs}.{fraction:03}") })
    }

    /// Returns the text, in the form that DynamoDB accepts.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value if it is an integer in range, in any spelling: `7`, `7.0` or `7E0`.
    pub fn as_u64(&self) -> Option<u64> {
        if let Ok(value) = self.0.parse() {
            return Some(value);
        }
        let value: f64 = self.0.parse().ok()?;
        // Above 2^53, `f64` does not represent every integer: reject rather than round.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
        (value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
    }

    /// Reads the value as Unix seconds, to the millisecond. An integer of up to 64 bits that is too large
    /// saturates. Returns `None` if any other number is too large.
    pub fn as_unix_seconds(&self) -> Option<Timestamp> {
        if let Ok(secs) = self.0.parse::<i64>() {
            return Some(Timestamp::from_secs(secs));
        }
        let secs: f64 = self.0.parse().ok()?;
        // 10^14 s is three million years: a larger fraction is an error, not a time.
        #[expect(clippy::cast_possible_truncation, reason = "range checked")]
        (secs.abs() < 1e14).then(|| Timestamp::from_millis((secs * 1000.0).round() as i64))
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self(value.to_string())
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self(value.to_string())
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Attribute {
    /// Creates a number attribute from an integer or a [`Number`].
    pub fn number(value: impl Into<Number>) -> Self {
        Self::Number(value.into())
    }

    /// Returns the number if this is one.
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// Returns the string if this is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Returns the bytes of a string or binary value.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Binary(bytes) = self { Some(bytes) } else { self.as_str().map(str::as_bytes) }
    }
}

/// The type of a table's key attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// `S`
    String,
    /// `B`
    Binary,
}

/// The value of a row's key. It is never truncated or hashed, so that two sessions cannot share a cache entry.
///
/// In some formats the key is the session id itself, a secret, so `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    kind: KeyType,
    bytes: SmallVec<[u8; 48]>,
}

impl Key {
    /// Creates a binary key.
    pub fn binary(bytes: &[u8]) -> Self {
        Self { kind: KeyType::Binary, bytes: SmallVec::from_slice(bytes) }
    }

    /// Creates a string key.
    pub fn string(text: &str) -> Self {
        Self { kind: KeyType::String, bytes: SmallVec::from_slice(text.as_bytes()) }
    }

    /// Returns the key's type.
    pub fn kind(&self) -> KeyType {
        self.kind
    }

    /// Returns the key's bytes, which must never be logged.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Converts the key to the attribute value of the row.
    pub fn to_attribute(&self) -> Attribute {
        match self.kind {
            KeyType::Binary => Attribute::Binary(self.bytes.to_vec()),
            KeyType::String => Attribute::String(String::from_utf8_lossy(&self.bytes).into_owned()),
        }
    }

    /// Converts an attribute value to a key. Returns `None` if it is neither a string nor binary.
    pub fn from_attribute(attribute: &Attribute) -> Option<Self> {
        if let Attribute::Binary(bytes) = attribute {
            Some(Self::binary(bytes))
        } else {
            attribute.as_str().map(Self::string)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {} bytes)", self.kind, self.bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_seconds_are_read_as_the_same_time() {
        for millis in [0, 1, 377, 2_182_231_000_377, -1, -2_182_231_000_377, 1_700_000_000_999] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(Number::from_seconds(time).as_unix_seconds(), Some(time), "{millis}");
        }
        for number in 0..100_000 {
            let time = Timestamp::from_millis(1_700_000_000_000 + number * 7);
            assert_eq!(Number::from_seconds(time).as_unix_seconds(), Some(time));
        }
    }
}
