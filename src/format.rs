//! Session formats: how each framework writes its rows and its cookie. Formats are pure: no clock, no IO.
//!
//! A cookie or row that is invalid in any way is never an error and never a panic: it counts as *no session*, with a
//! reason for the metrics.

mod decode;
pub mod django;
mod iso8601;
mod js_json;
pub mod layout;
mod map;
pub mod native;
pub mod pyramid;
mod python_json;
mod row;

use std::fmt;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::claims::Claims;
use crate::config::{FormatKind, RealmConfig};
use crate::item::{Attribute, Item, Key, KeyType};
use crate::secret::Secret;
use crate::time::Timestamp;

/// A session format, used as `Box<dyn Format>`. The formats declared in the configuration share one implementation,
/// [`layout::Layout`].
pub trait Format: Send + Sync + fmt::Debug {
    /// Returns the name and type of the key attribute.
    fn key_schema(&self) -> KeySchema<'_>;

    /// Returns the attribute for DynamoDB's TTL, if the format stores the deadline in Unix seconds.
    fn ttl_attribute(&self) -> Option<&str>;

    /// Returns whether rows record when the session was created, which an absolute lifetime requires.
    fn records_creation(&self) -> bool;

    /// Generates the id of a new session.
    ///
    /// # Errors
    /// Returns an error if the operating system cannot provide random bytes.
    fn new_id(&self) -> Result<SessionId, getrandom::Error>;

    /// Parses a cookie's value.
    ///
    /// # Errors
    /// Returns [`CookieFault`] if the value is malformed or its MAC does not match. Such a cookie costs no read.
    fn parse_cookie(&self, value: &[u8]) -> Result<SessionRef, CookieFault>;

    /// Describes the form of a valid cookie value, for error messages.
    fn cookie_shape(&self) -> String;

    /// Returns the cookie's value for a session.
    fn cookie_value(&self, id: &SessionId, version: u64) -> String;

    /// Returns the key of a session's row.
    fn key(&self, id: &SessionId) -> Key;

    /// Decodes a row.
    ///
    /// # Errors
    /// Returns [`RowFault`] if the row is not a valid session.
    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault>;

    /// Encodes the row of a new session, or of a session with a new id: then, `record.stored` is from its old row, and what
    /// it has besides the claims is kept.
    ///
    /// # Errors
    /// Returns [`EncodeFault`] if the format cannot represent the claims.
    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault>;

    /// Returns the write that reissues a session, given the `record` that was read. It never creates a row, and fails
    /// if the row has changed, has expired, or has been reissued by another gateway.
    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change;

    /// Returns the write that replaces a session's claims, given the `record` that was read. It fails if the row has
    /// changed since.
    ///
    /// # Errors
    /// Returns [`EncodeFault`] if the format cannot represent the claims.
    fn change(
        &self,
        record: &SessionRecord,
        claims: Claims,
        times: ChangeTimes,
    ) -> Result<Change, EncodeFault>;

    /// Returns the conditions that hold as long as the row is the one that was read.
    fn unchanged(&self, record: &SessionRecord) -> Vec<WriteCondition> {
        let equals =
            |(name, value): (&String, &Attribute)| WriteCondition::Equals(name.clone(), value.clone());
        std::iter::once(WriteCondition::Exists).chain(record.stored.iter().map(equals)).collect()
    }

    /// Returns the write that retires the old row after a change of the session's id: until `until` it can be read, but
    /// not reissued or changed, and it refers to the row `successor`. Returns `None` if the format has no retired rows;
    /// then the old row is deleted.
    fn retire(&self, _record: &SessionRecord, _until: Timestamp, _successor: &Key) -> Option<Update> {
        None
    }

    /// Returns whether, after a change of the session's id, the old row stays in the table, retired, until it expires.
    /// If so, a session whose row is missing was deleted. If not, it may continue under another id.
    fn keeps_retired_rows(&self) -> bool {
        false
    }

    /// Returns the conditions under which a row may be deleted to end its session, even if it has changed since it was
    /// read.
    fn not_retired(&self) -> Vec<WriteCondition> {
        vec![WriteCondition::Exists]
    }
}

/// Parses a JSON object, with the limits of payloads. Returns `None` if it is invalid, nested too deeply, has too many
/// values, or contains an integer beyond 64 bits, which would be rounded.
pub(crate) fn parse_claims(json: &[u8]) -> Option<Claims> {
    decode::json::object(json)
}

/// Creates the format of a realm.
pub fn open(realm: &RealmConfig) -> Box<dyn Format> {
    match &realm.format {
        FormatKind::Native => {
            Box::new(native::Native::new(&realm.key_attribute, &realm.cookie.name, realm.keys.clone()))
        }
        FormatKind::Pyramid => Box::new(pyramid::Pyramid::new(&realm.key_attribute)),
        FormatKind::Django => Box::new(django::Django::new(
            &realm.key_attribute,
            realm.keys.as_ref(),
            realm.timeout,
            realm.enforce_age,
        )),
        FormatKind::Layout(layout) => Box::new(layout::Layout::new(realm, layout)),
    }
}

/// A table's key attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySchema<'a> {
    /// Its name.
    pub attribute: &'a str,
    /// Its type.
    pub kind: KeyType,
}

/// The contents of a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// The session's id.
    pub id: SessionId,
    /// The version of the session that the browser has seen; 0 if the format's cookie has none.
    pub version: u64,
}

/// A session id. It is a secret: anyone who knows it can use the session.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId(Secret);

/// A decoded row.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// The session's data.
    pub claims: Claims,
    /// Increases with every change of the claims. In formats without versions it is the [`fingerprint`] of the payload,
    /// which changes with the payload but does not increase.
    pub version: u64,
    /// Time of the last activity, as recorded or as computed from the deadline. If a row has neither, formats set the
    /// time of creation, zero or [`Timestamp::NEVER`].
    pub issued: Timestamp,
    /// Time of creation, if the format records it.
    pub created: Option<Timestamp>,
    /// The idle deadline of the row; [`Timestamp::NEVER`] if it has none.
    pub expires: Timestamp,
    /// Whether the session continues under another id: this row can be read, but not reissued or changed.
    pub retired: bool,
    /// The row in which a retired session continues. Rows retired by earlier versions of the gateway have none.
    pub successor: Option<Box<Key>>,
    /// The retired row of the id that the session had before this one.
    pub predecessor: Option<Box<Key>>,
    /// How far a reissue moves the deadline.
    pub renewal: Renewal,
    /// The attributes that the format's writes are conditional on or keep, as they were read. Empty if the version
    /// suffices.
    pub stored: Item,
}

/// How far a reissue moves a session's idle deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// By the realm's `timeout`.
    Realm,
    /// By the timeout stored in the row.
    Own {
        /// The session's own idle timeout.
        timeout: Duration,
        /// The session's own absolute deadline; [`Timestamp::NEVER`] if it has none.
        end: Timestamp,
    },
    /// The gateway must not move the row's deadline, so the session is never due for a reissue.
    Never,
}

/// The times of a touch.
#[derive(Clone, Copy, Debug)]
pub struct TouchTimes {
    /// The current time, which becomes the issue time. The write fails if the row has expired by then.
    pub now: Timestamp,
    /// The new idle deadline.
    pub expires: Timestamp,
    /// The write fails if the row was issued at or after this time: it is not due for a reissue.
    pub due_before: Timestamp,
}

/// The times of a change.
#[derive(Clone, Copy, Debug)]
pub struct ChangeTimes {
    /// The current time, which becomes the issue time.
    pub now: Timestamp,
    /// The new idle deadline.
    pub expires: Timestamp,
}

/// A write, with its expected result.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The write.
    pub update: Update,
    /// The record that the row decodes to after the write.
    pub record: SessionRecord,
}

/// A conditional update of an existing row.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Attributes to set.
    pub set: Vec<(String, Attribute)>,
    /// Conditions, all of which must hold. [`WriteCondition::Exists`] is always one of them.
    pub conditions: Vec<WriteCondition>,
}

/// A condition of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteCondition {
    /// The row exists.
    Exists,
    /// The row does not exist.
    Absent,
    /// The row does not have this attribute.
    Lacks(String),
    /// The attribute has this value.
    Equals(String, Attribute),
    /// The attribute is less than this number.
    Less(String, Attribute),
    /// The attribute is at least this number.
    AtLeast(String, Attribute),
}

/// Hashes a payload, for formats without versions: 53 bits of its SHA-256, which JSON parsers represent exactly.
pub fn fingerprint(payload: &[u8]) -> u64 {
    let digest = Sha256::digest(payload);
    let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*head) >> 11
}

/// The reason why a cookie is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieFault {
    /// The value does not have the form that the format requires.
    #[error("the cookie does not have the expected form")]
    Shape,
    /// The version is not an integer in range.
    #[error("the cookie's version is not a valid number")]
    Version,
    /// The MAC does not match any key.
    #[error("the cookie's signature does not match")]
    Signature,
}

/// The reason why a row is not a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// A required attribute is missing.
    #[error("attribute `{0}` is missing")]
    Missing(String),
    /// An attribute has the wrong type, or its value is out of range.
    #[error("attribute `{0}` has the wrong type or value")]
    Type(String),
    /// The payload cannot be decoded.
    #[error("attribute `{0}` cannot be decoded")]
    Payload(String),
    /// The payload's MAC does not match any key.
    #[error("the signature of attribute `{0}` does not match any key")]
    Signature(String),
    /// The payload is a pickle, which can execute any code when it is read.
    #[error(
        "attribute `{0}` is a pickle, which is never read: set Django's SESSION_SERIALIZER to JSONSerializer"
    )]
    Pickle(String),
    /// The payload is empty, which is how frameworks mark a session that was logged out.
    #[error("the session is empty")]
    Empty,
}

/// The reason why claims cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeFault {
    /// The claims are nested deeper than DynamoDB (32 levels) or a MessagePack payload allows.
    #[error("the claims are nested too deeply")]
    TooDeep,
    /// The claims contain a number out of DynamoDB's range, or one that would be read back as an integer beyond 64 bits.
    #[error("the claims contain a number that cannot be stored and read back")]
    Number,
    /// The row could not be read back: the claims are empty, exceed the limits on payloads, or contain an invalid value
    /// for a claim that the framework defines.
    #[error("the claims are empty, too large, nested too deeply, or not valid for the framework")]
    Unreadable,
    /// The framework could not read the row back, or the write would lose some of its data.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl SessionId {
    /// Wraps an id.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        Self(Secret::new(text.as_ref()))
    }

    /// Returns the id's bytes, which must never be logged.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}
