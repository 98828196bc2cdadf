//! A session as it was read from its row or written to it.

use std::borrow::Cow;
use std::fmt;
use std::time::Instant;

use http::HeaderValue;

use super::mapped::{Mapped, MappingCache, MappingSlot};
use super::reference::Ref;
use crate::format::SessionRecord;
use crate::header_lines::HeaderLines;
use crate::headers::{SESSION_REF, SESSION_VERSION};
use crate::item::Key;

/// A session as it was read or written: immutable, and shared by all requests that use it.
pub struct Session {
    pub(super) key: Key,
    pub(super) reference: Ref,
    pub(super) record: SessionRecord,
    pub(super) size: usize,
    /// A time before its row was read or written.
    pub(super) known_at: Instant,
    user: UserState,
    headers: SessionHeaders,
    mapped: MappingCache,
}

/// Whether a session has a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// A user is logged in.
    LoggedIn,
    /// Nobody is logged in: the session of a visitor, such as for a cart.
    Guest,
    /// The realm does not configure which claim names the user.
    Unknown,
}

/// The headers that identify a session, built once.
#[derive(Clone, Debug)]
pub struct SessionHeaders {
    /// `X-Session-Ref`
    pub reference: HeaderValue,
    /// The lines `X-Session-Ref` and `X-Session-Version`.
    pub lines: HeaderLines,
}

impl Session {
    pub(super) fn new(
        key: Key,
        record: SessionRecord,
        size: usize,
        known_at: Instant,
        user: UserState,
        mapping_slots: usize,
    ) -> Self {
        let reference = Ref::from_key(&key);
        // Always valid: both are digits.
        let value = |text: String| {
            HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
        };
        let (reference_value, version) = (value(reference.to_string()), value(record.version.to_string()));
        let mut lines = HeaderLines::default();
        lines.push(&SESSION_REF, &reference_value);
        lines.push(&SESSION_VERSION, &version);
        lines.shrink();
        let headers = SessionHeaders { reference: reference_value, lines };
        let mapped = MappingCache::new(mapping_slots);
        Self { key, reference, record, size, known_at, user, headers, mapped }
    }

    /// Returns the key of the session's row.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the session's public identifier.
    pub fn reference(&self) -> Ref {
        self.reference
    }

    /// Returns the decoded row.
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// Returns the headers that identify the session.
    pub fn headers(&self) -> &SessionHeaders {
        &self.headers
    }

    /// Returns whether a user is logged in.
    pub fn user(&self) -> UserState {
        self.user
    }

    /// Returns the approximate size of the row in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns the headers of the mapping in `slot`, built by `build` on first use.
    pub fn mapped(&self, slot: MappingSlot, build: impl Fn(&SessionRecord) -> Mapped) -> Cow<'_, Mapped> {
        self.mapped.get_or_build(slot, || build(&self.record))
    }

    #[cfg(test)]
    pub(super) fn for_test(key: Key, version: u64, size: usize) -> Self {
        let at = crate::time::Timestamp::from_secs(0);
        let record = SessionRecord {
            claims: crate::claims::Claims::new(),
            version,
            issued: at,
            created: None,
            expires: at,
            retired: false,
            successor: None,
            predecessor: None,
            renewal: crate::format::Renewal::Realm,
            stored: crate::item::Item::new(),
        };
        Self::new(key, record, size, crate::time::Clock.mono(), UserState::Unknown, 0)
    }
}

/// Omits the key and the claims.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("reference", &self.reference).finish_non_exhaustive()
    }
}
