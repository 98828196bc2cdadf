//! How a framework writes its rows and its cookie. A format is pure: bytes in, values out, no clock, no IO.
//!
//! The rule every format keeps: whatever is wrong with a cookie or a row is *no session* with a reason that can be
//! counted, never an error and never a panic.

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

/// One framework's way to write sessions. Implemented by each format, used through `Box<dyn Format>`.
pub trait Format: Send + Sync + fmt::Debug {
    /// The key attribute's name and type.
    fn key_schema(&self) -> KeySchema<'_>;

    /// The attribute that DynamoDB's TTL is to be enabled on, if the format has one in Unix seconds.
    fn ttl_attribute(&self) -> Option<&str>;

    /// Whether rows record when the session was created; without it an absolute lifetime cannot be enforced.
    fn records_creation(&self) -> bool;

    /// Makes an id for a new session.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    fn new_id(&self) -> Result<SessionId, getrandom::Error>;

    /// Reads a cookie's value. What does not have the shape, or the MAC, of one of ours costs no read.
    fn parse_cookie(&self, value: &[u8]) -> Result<SessionRef, CookieFault>;

    /// Says what the cookie's value looks like, for whoever has one of another shape.
    fn cookie_shape(&self) -> String;

    /// The value of the cookie for a session.
    fn cookie_value(&self, id: &SessionId, version: u64) -> String;

    /// The key of the session's row.
    fn key(&self, id: &SessionId) -> Key;

    /// Reads a row.
    fn decode(&self, item: &Item) -> Result<SessionRecord, RowFault>;

    /// The whole row of a new session.
    ///
    /// # Errors
    /// If the claims hold something that the format cannot write.
    fn encode(&self, key: &Key, record: &SessionRecord) -> Result<Item, EncodeFault>;

    /// The write that moves a session's idle deadline: `record` as it was read, the new issue time and deadline, and
    /// the issue time below which a row is due. It neither creates a row nor revives a dead one, and it is refused if
    /// the row has changed or another gateway was first.
    fn touch(&self, record: &SessionRecord, times: TouchTimes) -> Change;

    /// The write that gives a session other claims: `record` as it was read, and its activity and deadline from now on.
    /// It is refused if the row is not the one that was read any more.
    ///
    /// # Errors
    /// If the claims hold something that the format cannot write.
    fn change(
        &self,
        record: &SessionRecord,
        claims: Claims,
        times: ChangeTimes,
    ) -> Result<Change, EncodeFault>;

    /// What holds of the row as long as it is the one that was read.
    fn unchanged(&self, record: &SessionRecord) -> Vec<WriteCondition> {
        let equals =
            |(name, value): (&String, &Attribute)| WriteCondition::Equals(name.clone(), value.clone());
        std::iter::once(WriteCondition::Exists).chain(record.stored.iter().map(equals)).collect()
    }

    /// The write that retires the row of a session whose id was changed: it may be read until `until`, is neither reissued
    /// nor changed any more, and leads to the row `successor`. `None` if the format has no retired rows: then the old row
    /// is deleted with the change of the id.
    fn retire(&self, _record: &SessionRecord, _until: Timestamp, _successor: &Key) -> Option<Update> {
        None
    }

    /// Whether the rows of sessions whose id was changed stay, retired. Then a row that is not there has been deleted;
    /// otherwise its session may live on under another id.
    fn keeps_retired_rows(&self) -> bool {
        false
    }

    /// The conditions under which a row may be deleted to end its session, whatever else it says.
    fn not_retired(&self) -> Vec<WriteCondition> {
        vec![WriteCondition::Exists]
    }
}

/// The format of a realm.
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

/// What a cookie says: whose session, and which version of it the browser has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRef {
    /// The session's id.
    pub id: SessionId,
    /// The version that the browser has seen; 0 where a format's cookie has none.
    pub version: u64,
}

/// A session's id as the browser holds it. A secret: who knows it is the user.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId(Secret);

/// A decoded row.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionRecord {
    /// The session's data.
    pub claims: Claims,
    /// Grows with every change of the claims. Where a format counts none, it is the [`fingerprint`] of the payload: it
    /// changes with the payload, and that is all it does.
    pub version: u64,
    /// The last activity that was written down; never, where none is.
    pub issued: Timestamp,
    /// When the session was created, where the format records it.
    pub created: Option<Timestamp>,
    /// The idle deadline as the row has it; never, where it has none.
    pub expires: Timestamp,
    /// Whether it goes on under another id: it is still read, but neither reissued nor changed.
    pub retired: bool,
    /// The row that a retired one leads to. Rows that earlier versions retired lead nowhere.
    pub successor: Option<Box<Key>>,
    /// How far a reissue moves the deadline.
    pub renewal: Renewal,
    /// The attributes, as they were read, that the format's writes are conditional on; empty where the version is enough.
    pub stored: Item,
}

/// How far a reissue moves a session's idle deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// By the realm's `timeout`.
    Realm,
    /// By what the row itself says.
    Own {
        /// The session's own idle timeout.
        timeout: Duration,
        /// Its own absolute end; [`Timestamp::NEVER`] where it has none.
        end: Timestamp,
    },
    /// Not at all: the row has no deadline that a gateway may move, so it is never due.
    Never,
}

/// The times of a touch.
#[derive(Clone, Copy, Debug)]
pub struct TouchTimes {
    /// The moment of the touch: the new issue time; a row that has expired by then is refused.
    pub now: Timestamp,
    /// The new idle deadline.
    pub expires: Timestamp,
    /// A row issued at or after this moment is not due.
    pub due_before: Timestamp,
}

/// The times of a change.
#[derive(Clone, Copy, Debug)]
pub struct ChangeTimes {
    /// The moment of the change: the new issue time.
    pub now: Timestamp,
    /// The new idle deadline.
    pub expires: Timestamp,
}

/// A change that is ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The write.
    pub update: Update,
    /// What reading the row back would give.
    pub record: SessionRecord,
}

/// A conditional write of some attributes of an existing row.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// Attributes to set.
    pub set: Vec<(String, Attribute)>,
    /// All must hold. `Exists` is always among them.
    pub conditions: Vec<WriteCondition>,
}

/// One clause of a write's condition.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteCondition {
    /// The row is there.
    Exists,
    /// The row is not there.
    Absent,
    /// The row has no such attribute.
    Lacks(String),
    /// The attribute has this value.
    Equals(String, Attribute),
    /// The attribute is less than this number.
    Less(String, Attribute),
    /// The attribute is at least this number.
    AtLeast(String, Attribute),
}

/// A number that stands for a payload where a format counts no versions: 53 bits of its SHA-256, which every reader of
/// JSON takes for the number that it is.
pub fn fingerprint(payload: &[u8]) -> u64 {
    let digest = Sha256::digest(payload);
    let (head, _) = digest.split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*head) >> 11
}

/// Why a cookie is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CookieFault {
    /// It does not have the format's shape.
    #[error("the cookie does not have the format's shape")]
    Shape,
    /// Its version is not a whole number in range.
    #[error("the cookie's version is not a whole number")]
    Version,
    /// It is not signed with any of the keys.
    #[error("the cookie's signature does not match")]
    Signature,
}

/// Why a row is not a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowFault {
    /// An attribute that makes a session is missing.
    #[error("attribute `{0}` is missing")]
    Missing(String),
    /// An attribute has the wrong type, or a value out of range.
    #[error("attribute `{0}` has the wrong type or value")]
    Type(String),
    /// The payload does not decode.
    #[error("attribute `{0}` does not decode")]
    Payload(String),
    /// The payload is not signed with any of the keys.
    #[error("attribute `{0}` is not signed with any of the keys")]
    Signature(String),
    /// The payload is a pickle: reading one can run any code.
    #[error(
        "attribute `{0}` is a pickle, which is never read: set Django's SESSION_SERIALIZER to JSONSerializer"
    )]
    Pickle(String),
    /// The payload is empty: how frameworks mark a session that was logged out.
    #[error("the session is empty")]
    Empty,
}

/// Why claims cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeFault {
    /// Nested deeper than DynamoDB allows (32 levels).
    #[error("the claims are nested too deeply for DynamoDB")]
    TooDeep,
    /// A number that DynamoDB cannot hold.
    #[error("the claims hold a number that DynamoDB cannot hold")]
    Number,
    /// What would be written would not be read: empty, or larger or deeper than payloads may be, or with a claim of the
    /// framework's own that it does not write so.
    #[error("the claims are empty, too large, or hold what the framework does not write")]
    Unreadable,
    /// A write that the framework could not read back, or that would lose something of the row.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl SessionId {
    /// Takes over an id that was read from a cookie or made.
    pub fn new(text: impl AsRef<[u8]>) -> Self {
        Self(Secret::new(text.as_ref()))
    }

    /// The id's bytes. Never to be logged.
    pub fn expose(&self) -> &[u8] {
        self.0.expose()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}
