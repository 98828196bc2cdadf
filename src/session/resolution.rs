//! The results of resolving the cookies of a request and of looking up a row.

use std::sync::Arc;
use std::time::Duration;

use super::judge::Life;
use super::state::Session;
use crate::format::{CookieFault, RowFault, SessionId};

/// The result of looking up a row.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    /// The row is a session, which may have expired.
    Found(Arc<Session>),
    /// There is no row, or it is not a valid session.
    Absent(Option<RowFault>),
    /// The store is unavailable.
    Unavailable,
}

/// The result of resolving the cookies of a request.
#[derive(Debug)]
pub enum Resolution {
    /// There is a live session.
    Active(Active),
    /// There is no session, for this reason.
    Anonymous(Anonymous),
    /// The store is unavailable, so it is unknown whether there is a session.
    Unavailable,
    /// The client's address has sent too many unknown session ids, so an id was not looked up. The client may retry
    /// after this time.
    Throttled(Duration),
}

/// The live session of a request.
#[derive(Debug)]
pub struct Active {
    /// The session.
    pub session: Arc<Session>,
    /// The id in the request's cookie.
    pub id: SessionId,
    /// When it expires, and whether it is due for a reissue.
    pub life: Life,
    /// The index of its cookie among the request's cookies of this realm.
    pub cookie_index: usize,
}

/// The reason why a request has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// The request has no cookie of this realm.
    NoCookie,
    /// The cookie is invalid.
    Refused(CookieFault),
    /// There is no such row, or the cache has a negative entry, which may also stand for an invalid row.
    Absent,
    /// The row is not a valid session.
    NotASession(RowFault),
    /// The session's idle deadline has passed.
    Idle,
    /// The session's absolute lifetime has passed, or its row does not record when it was created.
    TooOld,
    /// The cookies name different live sessions, or more sessions than are looked up.
    Ambiguous,
}

/// The source of a lookup's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupSource {
    /// Nothing was looked up.
    NotLookedUp,
    /// A fresh row in the cache.
    Hit,
    /// A negative cache entry.
    Negative,
    /// The store.
    Miss,
    /// An older row in the cache, since the store is unavailable.
    Stale,
}

impl Anonymous {
    /// Returns the label of the reason, for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCookie => "no-cookie",
            Self::Refused(CookieFault::Shape) => "cookie-shape",
            Self::Refused(CookieFault::Version) => "cookie-version",
            Self::Refused(CookieFault::Signature) => "cookie-signature",
            Self::Absent => "absent",
            Self::NotASession(_) => "not-a-session",
            Self::Idle => "idle",
            Self::TooOld => "too-old",
            Self::Ambiguous => "ambiguous",
        }
    }
}

impl LookupSource {
    /// Returns the label of the source, for logs and metrics, or `None` if nothing was looked up.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::NotLookedUp => None,
            Self::Hit => Some("hit"),
            Self::Negative => Some("negative"),
            Self::Miss => Some("miss"),
            Self::Stale => Some("stale"),
        }
    }
}
