//! Reading and writing of the attributes that the native and pyramid formats share, which are those of
//! pyramid-dynamodb-sessions: key, version, issue time and deadline.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::{
    Change, ChangeTimes, CookieFault, RowFault, SessionId, SessionRecord, SessionRef, TouchTimes, Update,
    WriteCondition,
};
use crate::claims::Claims;
use crate::item::{Attribute, Item, Key, Number};
use crate::time::Timestamp;

/// The payload.
pub(super) const DATA: &str = "dat";
/// The version: an integer that increases with every change.
pub(super) const VERSION: &str = "ver";
/// The last activity, in Unix seconds.
pub(super) const ISSUED: &str = "iss";
/// The idle deadline, in Unix seconds; also the attribute for DynamoDB's TTL.
pub(super) const EXPIRES: &str = "exp";

/// Returns the row's key: the SHA-256 of the id, so that read access to the table does not reveal session ids.
pub(super) fn key(id: &SessionId) -> Key {
    Key::binary(&Sha256::digest(id.expose()))
}

/// The form that [`parse_reference`] accepts.
pub(super) const REFERENCE: &str = "`ID/VERSION`, where ID is 43 to 128 characters of `A-Za-z0-9_-`";

/// Parses `id/version`.
///
/// An id comes from `secrets.token_urlsafe()`: 43 characters of base64url today. Up to 128 are accepted, in case a
/// later Python makes them longer. The version must be all digits: the library parses it as a `Decimal`, which accepts
/// `Infinity`.
pub(super) fn parse_reference(value: &[u8]) -> Result<SessionRef, CookieFault> {
    let slash = memchr::memchr(b'/', value).ok_or(CookieFault::Shape)?;
    let (id, version) = value.split_at_checked(slash).ok_or(CookieFault::Shape)?;
    // Checks every byte, since the compiler vectorizes a loop that does not end early.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() | (b == b'-') | (b == b'_');
    let plain = id.iter().fold(true, |plain, &b| plain & is_plain(b));
    if !plain || !(43..=128).contains(&id.len()) {
        return Err(CookieFault::Shape);
    }
    // 18 digits always fit into a `u64`.
    let digits = version.get(1..).filter(|digits| (1..=18).contains(&digits.len()));
    let version =
        digits.filter(|digits| digits.iter().all(u8::is_ascii_digit)).ok_or(CookieFault::Version)?;
    let version = version.iter().fold(0, |version, digit| version * 10 + u64::from(digit - b'0'));
    Ok(SessionRef { id: SessionId::new(id), version })
}

/// Formats `id/version`.
pub(super) fn write_reference(id: &SessionId, version: u64) -> String {
    format!("{}/{version}", String::from_utf8_lossy(id.expose()))
}

/// Reads the version, issue time and deadline of a row.
pub(super) fn times(item: &Item) -> Result<(u64, Timestamp, Timestamp), RowFault> {
    let version = number(item, VERSION)?.as_u64().ok_or_else(|| RowFault::Type(VERSION.into()))?;
    Ok((version, seconds(item, ISSUED)?, seconds(item, EXPIRES)?))
}

/// Reads a required attribute in Unix seconds.
pub(super) fn seconds(item: &Item, name: &str) -> Result<Timestamp, RowFault> {
    number(item, name)?.as_unix_seconds().ok_or_else(|| RowFault::Type(name.into()))
}

fn number<'i>(item: &'i Item, name: &str) -> Result<&'i Number, RowFault> {
    let attribute = item.get(name).ok_or_else(|| RowFault::Missing(name.into()))?;
    attribute.as_number().ok_or_else(|| RowFault::Type(name.into()))
}

/// Builds the row of `record`, with `data` as its payload.
pub(super) fn new_row(key_attribute: &str, key: &Key, record: &SessionRecord, data: Attribute) -> Item {
    Item::from([
        (key_attribute.to_owned(), key.to_attribute()),
        (DATA.to_owned(), data),
        (VERSION.to_owned(), Attribute::number(record.version)),
        (ISSUED.to_owned(), Attribute::number(record.issued.as_secs())),
        (EXPIRES.to_owned(), Attribute::number(record.expires.as_secs())),
    ])
}

/// Builds a reissue. It sets the two attributes that the library sets, but under conditions. The library's own write is
/// unconditional, so it can recreate a deleted row as a stub, on which the library then fails.
pub(super) fn touch(record: &SessionRecord, times: TouchTimes) -> Change {
    let touched = SessionRecord {
        issued: Timestamp::from_secs(times.now.as_secs()),
        expires: Timestamp::from_secs(times.expires.as_secs()),
        ..record.clone()
    };
    let update = Update {
        set: vec![
            (ISSUED.to_owned(), Attribute::number(touched.issued.as_secs())),
            (EXPIRES.to_owned(), Attribute::number(touched.expires.as_secs())),
        ],
        conditions: vec![
            WriteCondition::Exists,
            WriteCondition::Equals(VERSION.to_owned(), Attribute::number(record.version)),
            WriteCondition::Less(
                ISSUED.to_owned(),
                Attribute::Number(Number::from_seconds(times.due_before)),
            ),
            WriteCondition::AtLeast(EXPIRES.to_owned(), Attribute::Number(Number::from_seconds(times.now))),
        ],
    };
    Change { update, record: touched }
}

/// Returns the conditions that hold if the row is the one that was read: its version is the same.
pub(super) fn unchanged(record: &SessionRecord) -> Vec<WriteCondition> {
    vec![
        WriteCondition::Exists,
        WriteCondition::Equals(VERSION.to_owned(), Attribute::number(record.version)),
    ]
}

/// Builds a change of the claims. It sets the attributes that the library sets, increments the version, and has the
/// library's condition (`Expected ver`), which also prevents it from creating a row.
pub(super) fn change(record: &SessionRecord, claims: Claims, data: Attribute, times: ChangeTimes) -> Change {
    let changed = SessionRecord {
        claims,
        version: record.version.saturating_add(1),
        issued: Timestamp::from_secs(times.now.as_secs()),
        expires: Timestamp::from_secs(times.expires.as_secs()),
        ..record.clone()
    };
    let update = Update {
        set: vec![
            (DATA.to_owned(), data),
            (VERSION.to_owned(), Attribute::number(changed.version)),
            (ISSUED.to_owned(), Attribute::number(changed.issued.as_secs())),
            (EXPIRES.to_owned(), Attribute::number(changed.expires.as_secs())),
        ],
        conditions: unchanged(record),
    };
    Change { update, record: changed }
}

/// Generates a session id as `secrets.token_urlsafe()` does: 32 random bytes in base64url.
///
/// # Errors
/// Returns an error if the operating system cannot provide random bytes.
pub(super) fn new_id() -> Result<SessionId, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(SessionId::new(URL_SAFE_NO_PAD.encode(bytes)))
}
