//! A DynamoDB item as a value: attributes, decimal numbers, and the key of a row. No SDK type leaves `store`, so that
//! formats and judgements stay pure.

use std::collections::BTreeMap;
use std::fmt;

use smallvec::SmallVec;

use crate::time::Timestamp;

/// A row: attribute name → value. Ordered, so that what we write is the same bytes every time.
pub type Item = BTreeMap<String, Attribute>;

/// One attribute value, as DynamoDB types it.
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

/// A DynamoDB number: a decimal of up to 38 digits, kept as the text it came as, since frameworks write fractions that
/// neither `i64` nor `f64` holds and a number that is not ours must survive unchanged.
#[derive(Clone, PartialEq, Eq)]
pub struct Number(String);

impl Number {
    /// Takes over the text of a number that DynamoDB sent.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A moment as Unix seconds, with a fraction only where there is one.
    pub fn from_seconds(moment: Timestamp) -> Self {
        let (sign, millis) =
            (if moment.as_millis() < 0 { "-" } else { "" }, moment.as_millis().unsigned_abs());
        let (secs, fraction) = (millis / 1000, millis % 1000);
        Self(if fraction == 0 { format!("{sign}{secs}") } else { format!("{sign}{secs}.{fraction:03}") })
    }

    /// The text, as DynamoDB takes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value, if it is a whole number that fits: `7`, `7.0` and `7E0` are.
    pub fn as_u64(&self) -> Option<u64> {
        if let Ok(value) = self.0.parse() {
            return Some(value);
        }
        let value: f64 = self.0.parse().ok()?;
        // Beyond 2^53 a float no longer names one whole number, so such a spelling is refused rather than rounded.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
        (value.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
    }

    /// The value as Unix seconds, with any fraction kept to the millisecond.
    pub fn as_unix_seconds(&self) -> Option<Timestamp> {
        if let Ok(secs) = self.0.parse::<i64>() {
            return Some(Timestamp::from_secs(secs));
        }
        let secs: f64 = self.0.parse().ok()?;
        // ±10^14 s is three million years: beyond it the row is wrong, not far away.
        #[expect(clippy::cast_possible_truncation, reason = "range checked")]
        (secs.abs() < 1e14).then(|| Timestamp::from_millis((secs * 1000.0) as i64))
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
    /// A whole number.
    pub fn number(value: impl Into<Number>) -> Self {
        Self::Number(value.into())
    }

    /// The number, if this is one.
    pub fn as_number(&self) -> Option<&Number> {
        if let Self::Number(number) = self { Some(number) } else { None }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
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

/// The value of a row's key: the whole of it, since two sessions must never share a cache entry.
///
/// For formats whose key is the session id itself this is a secret, so `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Key {
    kind: KeyType,
    bytes: SmallVec<[u8; 48]>,
}

impl Key {
    /// A binary key.
    pub fn binary(bytes: &[u8]) -> Self {
        Self { kind: KeyType::Binary, bytes: SmallVec::from_slice(bytes) }
    }

    /// A string key.
    pub fn string(text: &str) -> Self {
        Self { kind: KeyType::String, bytes: SmallVec::from_slice(text.as_bytes()) }
    }

    /// The key's type.
    pub fn kind(&self) -> KeyType {
        self.kind
    }

    /// The key's bytes. Never to be logged.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key as the attribute value that names the row.
    pub fn to_attribute(&self) -> Attribute {
        match self.kind {
            KeyType::Binary => Attribute::Binary(self.bytes.to_vec()),
            KeyType::String => Attribute::String(String::from_utf8_lossy(&self.bytes).into_owned()),
        }
    }

    /// The key that `attribute` names, if it is of a key's type.
    pub fn from_attribute(attribute: &Attribute) -> Option<Self> {
        match attribute {
            Attribute::String(text) => Some(Self::string(text)),
            Attribute::Binary(bytes) => Some(Self::binary(bytes)),
            Attribute::Number(_)
            | Attribute::Bool(_)
            | Attribute::Null
            | Attribute::List(_)
            | Attribute::Map(_)
            | Attribute::StringSet(_)
            | Attribute::NumberSet(_)
            | Attribute::BinarySet(_) => None,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {} bytes)", self.kind, self.bytes.len())
    }
}
