//! Sessions: resolving the cookies of a request to a live session, changing it, and writing the cookies of the response.
//!
//! A [`Realm`] is one kind of session, with its format, table and cache. Its results keep three cases apart: there *is* a
//! session, there is *none*, and the store is *unavailable*, so that it is unknown.

pub mod cookie;
pub mod judge;
pub mod purge;
pub mod reference;
pub(crate) mod set_cookie;

mod cache;
mod change;
mod create;
pub(crate) mod csrf;
pub mod destroy;
mod edit;
pub(crate) mod flash;
mod flight;
mod lookup;
mod mapped;
mod monitor;
mod patch;
mod reissue;
mod response_cookie;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use smallvec::SmallVec;
use tokio_util::task::TaskTracker;

use crate::claims::{Claims, UserClaim};
use crate::config::{Consistency, OnStoreError, RealmConfig};
use crate::format::{self, CookieFault, Format, RowFault, SessionId, SessionRecord, SessionRef};
use crate::item::Key;
use crate::rate::ClientLimiter;
use crate::store::table::Table;
use crate::telemetry::metrics::RealmMetrics;
use crate::time::{Clock, Now};

use cache::{Cache, CacheResult};
use flight::SingleFlight;
use judge::{Life, Policy, SessionVerdict, judge};
use monitor::SessionMonitors;
use reference::Ref;
use set_cookie::CookieWriter;

pub use change::{Action, ChangeError, MutationOutcome, SessionMutation, UpdatedSession};
pub use create::{CreateError, CreatedSession, create};
pub use edit::Edit;
pub use mapped::{Mapped, MappingSlot, MappingTooLarge};
pub(crate) use monitor::{SessionMonitor, SessionStatus, Usage};
pub use reissue::{PendingReissue, Reissued};
pub use set_cookie::RewrittenCookie;

/// Maximum number of sessions that are looked up for the cookies of one request.
const MAX_COOKIES: usize = 4;
/// Maximum number of concurrent reads of a realm, and of concurrent reissues.
const MAX_OPERATIONS: usize = 10_000;

/// One kind of session.
pub struct Realm {
    name: String,
    format: Box<dyn Format>,
    table: Table,
    policy: Policy,
    user: UserClaim,
    consistency: Consistency,
    on_store_error: OnStoreError,
    cookie: CookieWriter,
    forward_cookie: bool,
    /// The number of mapping slots of sessions that are read from now on.
    mapping_slots: AtomicUsize,
    cache: Cache,
    lookups: Arc<SingleFlight<(Key, u64), Lookup>>,
    reissues: Arc<SingleFlight<Key, Reissued>>,
    monitors: SessionMonitors,
    outage: lookup::Outage,
    changes: change::ChangeQueue,
    rotation_grace: Duration,
    control: tokio::runtime::Handle,
    tasks: TaskTracker,
    metrics: RealmMetrics,
    failures: lookup::FailureLog,
    clock: Clock,
}

/// A session as it was read or written: immutable, and shared by all requests that use it.
pub struct Session {
    key: Key,
    reference: Ref,
    record: SessionRecord,
    size: usize,
    /// A time shortly before its row was read or written.
    known_at: Instant,
    user: UserState,
    headers: SessionHeaders,
    mapped: mapped::MappingCache,
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
    /// `X-Session-Version`
    pub version: HeaderValue,
}

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
    /// It is unknown, since the store is unavailable.
    Unavailable,
    /// Nothing was looked up, since the client's address has named too many unknown sessions. The client may retry after
    /// this time.
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
    pub chosen: usize,
}

/// The reason why a request has no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// The request has no cookie of this realm.
    NoCookie,
    /// The cookie is invalid.
    Refused(CookieFault),
    /// There is no such row.
    Absent,
    /// The row is not a valid session.
    NotASession(RowFault),
    /// The session's idle deadline has passed.
    Idle,
    /// The session's absolute lifetime has passed.
    TooOld,
    /// The cookies name different live sessions, or more sessions than are looked up.
    Ambiguous,
}

/// The source of a lookup's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupSource {
    /// Nothing was looked up.
    Unasked,
    /// A fresh row in the cache.
    Hit,
    /// A cached miss.
    Negative,
    /// The store.
    Miss,
    /// An older row in the cache, since the store is unavailable.
    Stale,
}

/// The use of a realm's bounded structures: each with its limit.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Cached sessions; a large one counts as several.
    pub sessions: (u64, u64),
    /// Cached misses.
    pub misses: (u64, u64),
    /// Reads in progress.
    pub lookups: (u64, u64),
    /// Reissues in progress.
    pub reissues: (u64, u64),
}

impl Realm {
    /// Creates a realm with sessions in `table`. Store operations run on `control` and are tracked by `tasks`. Each session
    /// has `mapping_slots` for injected headers.
    pub fn new(
        config: &RealmConfig,
        table: Table,
        metrics: RealmMetrics,
        control: &tokio::runtime::Handle,
        tasks: &TaskTracker,
        mapping_slots: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: config.name.clone(),
            format: format::open(config),
            table,
            policy: Policy::new(config),
            user: config.user.clone(),
            consistency: config.consistency,
            on_store_error: config.on_store_error,
            cookie: CookieWriter::new(&config.cookie),
            forward_cookie: config.forward_cookie,
            mapping_slots: AtomicUsize::new(mapping_slots),
            cache: Cache::new(config.cache),
            lookups: SingleFlight::new(MAX_OPERATIONS, control.clone(), tasks.clone()),
            reissues: SingleFlight::new(MAX_OPERATIONS, control.clone(), tasks.clone()),
            monitors: SessionMonitors::default(),
            outage: lookup::Outage::new(Clock),
            changes: change::ChangeQueue::default(),
            rotation_grace: config.rotation_grace,
            control: control.clone(),
            tasks: tasks.clone(),
            metrics,
            failures: lookup::FailureLog::default(),
            clock: Clock,
        })
    }

    /// Sets the number of mapping slots of sessions that are read from now on.
    pub fn set_mapping_slots(&self, count: usize) {
        self.mapping_slots.store(count, Ordering::Relaxed);
    }

    /// Creates a session of this realm, whose row was read or written at `known_at` or later.
    fn session(&self, key: Key, record: SessionRecord, size: usize, known_at: Instant) -> Session {
        let user = match self.user.find(&record.claims) {
            Some(_) => UserState::LoggedIn,
            None if self.user.is_unknown() => UserState::Unknown,
            None => UserState::Guest,
        };
        Session::new(key, record, size, known_at, user, self.mapping_slots.load(Ordering::Relaxed))
    }

    /// Returns the claim that identifies the logged-in user.
    pub fn user_claim(&self) -> &UserClaim {
        &self.user
    }

    /// Returns whether the user of `before`, if it had one, is the user of `after`.
    pub fn keeps_user(&self, before: &Claims, after: &Claims) -> bool {
        let user = self.user.find(before);
        user.is_none() || user == self.user.find(after)
    }

    /// Returns the realm's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name of the session cookie.
    pub fn cookie_name(&self) -> &str {
        self.cookie.name()
    }

    /// Returns whether the session cookie is forwarded to upstreams.
    pub fn forwards_cookie(&self) -> bool {
        self.forward_cookie
    }

    /// Returns the policy for requests while the store is unavailable.
    pub fn on_store_error(&self) -> OnStoreError {
        self.on_store_error
    }

    /// Returns whether a cookie's value has a valid form and signature. Does not look it up.
    pub fn accepts(&self, value: &[u8]) -> bool {
        self.format.parse_cookie(value).is_ok()
    }

    /// Returns the use of the realm's caches and of its operations in progress.
    pub fn fill(&self) -> Fill {
        Fill {
            sessions: self.cache.sessions(),
            misses: self.cache.misses(),
            lookups: self.lookups.fill(),
            reissues: self.reissues.fill(),
        }
    }

    /// Returns the table of the realm's sessions.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Resolves the values of the request's session cookies, in their order, and counts the result.
    ///
    /// `misses` limits the reads that find no session, per client address, since made-up ids cost reads.
    pub async fn resolve(
        self: &Arc<Self>,
        cookies: &[&[u8]],
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> (Resolution, LookupSource) {
        let (resolution, source) = self.resolve_uncounted(cookies, misses, now).await;
        self.metrics.resolutions.count(match &resolution {
            Resolution::Active(_) => "active",
            Resolution::Anonymous(why) => why.label(),
            Resolution::Unavailable => "unavailable",
            Resolution::Throttled(_) => "throttled",
        });
        if let Some(label) = source.label() {
            self.metrics.cache.count(label);
        }
        (resolution, source)
    }

    /// Resolves the values of the request's session cookies.
    ///
    /// All are tried, since another site of the same parent domain can set a cookie that browsers send before the user's
    /// own. If the cookies name different live sessions, or more than are looked up, it is unknown which one is the user's,
    /// so the result is [`Anonymous::Ambiguous`].
    async fn resolve_uncounted(
        self: &Arc<Self>,
        cookies: &[&[u8]],
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> (Resolution, LookupSource) {
        let mut anonymous = Anonymous::NoCookie;
        let mut source = LookupSource::Unasked;
        let mut active: Option<Active> = None;
        let mut tried: SmallVec<[Key; 1]> = SmallVec::new();
        for (chosen, value) in cookies.iter().enumerate() {
            let SessionRef { id, version } = match self.format.parse_cookie(value) {
                Ok(reference) => reference,
                Err(fault) => {
                    anonymous = Anonymous::Refused(fault);
                    continue;
                }
            };
            let key = self.format.key(&id);
            if tried.contains(&key) {
                continue;
            }
            if tried.len() == MAX_COOKIES {
                return (Resolution::Anonymous(Anonymous::Ambiguous), source);
            }
            let (lookup, from) = match self.look_up(&key, version, misses, now).await {
                Ok(looked_up) => looked_up,
                Err(wait) => return (Resolution::Throttled(wait), source),
            };
            tried.push(key);
            source = from;
            match lookup {
                // It is unknown whether this session is live, so it is unknown which one is the user's.
                Lookup::Unavailable => return (Resolution::Unavailable, source),
                Lookup::Absent(None) => anonymous = Anonymous::Absent,
                Lookup::Absent(Some(fault)) => anonymous = Anonymous::NotASession(fault),
                Lookup::Found(session) => match judge(&self.policy, &session.record, now.wall) {
                    SessionVerdict::Idle => anonymous = Anonymous::Idle,
                    SessionVerdict::TooOld => anonymous = Anonymous::TooOld,
                    SessionVerdict::Live(_) if active.is_some() => {
                        return (Resolution::Anonymous(Anonymous::Ambiguous), source);
                    }
                    SessionVerdict::Live(life) => active = Some(Active { session, id, life, chosen }),
                },
            }
        }
        match active {
            Some(active) => (Resolution::Active(active), source),
            None => (Resolution::Anonymous(anonymous), source),
        }
    }

    /// Looks up `key` for a browser that has seen version `asked`: in the cache, or by a read that concurrent requests
    /// share.
    ///
    /// # Errors
    /// Returns the wait until the client may look up an id that is not cached.
    async fn look_up(
        self: &Arc<Self>,
        key: &Key,
        asked: u64,
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> Result<(Lookup, LookupSource), Duration> {
        let stale = match self.cache.get(key, asked, now.mono) {
            CacheResult::Fresh(session) => return Ok((Lookup::Found(session), LookupSource::Hit)),
            CacheResult::Absent => return Ok((Lookup::Absent(None), LookupSource::Negative)),
            // The session existed recently, so its id is not made up.
            CacheResult::Stale(session, age) => self.may_use_stale(age).then_some(session),
            CacheResult::Miss => {
                misses.check(now.mono)?;
                None
            }
        };
        // During an outage, do not wait for another timeout if a stale row may be used.
        if let Some(session) = &stale
            && self.outage.is_active(now.mono)
        {
            return Ok((Lookup::Found(Arc::clone(session)), LookupSource::Stale));
        }
        // Boxed, since most requests do not get here, and the future of every request would be larger.
        Ok(Box::pin(self.read_shared(key, asked, stale, misses, now)).await)
    }

    /// Looks up `key` by a shared read. If the store is unavailable, returns `stale`.
    async fn read_shared(
        self: &Arc<Self>,
        key: &Key,
        asked: u64,
        stale: Option<Arc<Session>>,
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> (Lookup, LookupSource) {
        let realm = Arc::clone(self);
        let mut is_first = false;
        let waiter = self.lookups.join(&(key.clone(), asked), || {
            is_first = true;
            let key = key.clone();
            async move { realm.read(&key, asked).await }
        });
        let lookup = match waiter {
            Some(waiter) => waiter.wait().await.unwrap_or(Lookup::Unavailable),
            None => Lookup::Unavailable,
        };
        // A shared read counts once, against the first client.
        if is_first && matches!(lookup, Lookup::Absent(_)) {
            misses.record(now.mono);
        }
        match (lookup, stale) {
            (Lookup::Unavailable, Some(session)) => (Lookup::Found(session), LookupSource::Stale),
            (lookup, _) => (lookup, LookupSource::Miss),
        }
    }

    fn may_use_stale(&self, age: Duration) -> bool {
        matches!(self.on_store_error, OnStoreError::Stale(limit) if age < limit)
    }
}

impl Session {
    fn new(
        key: Key,
        record: SessionRecord,
        size: usize,
        known_at: Instant,
        user: UserState,
        mapping_slots: usize,
    ) -> Self {
        let reference = Ref::of(&key);
        let text = |text: String| HeaderValue::from_maybe_shared(bytes::Bytes::from(text));
        let headers = SessionHeaders {
            // Always valid: both are digits.
            reference: text(reference.to_string()).unwrap_or(HeaderValue::from_static("")),
            version: text(record.version.to_string()).unwrap_or(HeaderValue::from_static("")),
        };
        let mapped = mapped::MappingCache::new(mapping_slots);
        Self { key, reference, record, size, known_at, user, headers, mapped }
    }

    /// Returns the key of the session's row.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the session's public name.
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
    fn size(&self) -> usize {
        self.size
    }

    /// Returns the headers of the mapping in `slot`, built by `build` on first use.
    pub fn mapped(&self, slot: MappingSlot, build: impl Fn(&SessionRecord) -> Mapped) -> Cow<'_, Mapped> {
        self.mapped.get_or_build(slot, || build(&self.record))
    }

    #[cfg(test)]
    fn for_test(key: Key, version: u64, size: usize) -> Self {
        let at = crate::time::Timestamp::from_secs(0);
        let record = SessionRecord {
            claims: Claims::new(),
            version,
            issued: at,
            created: None,
            expires: at,
            retired: false,
            successor: None,
            predecessor: None,
            renewal: format::Renewal::Realm,
            stored: crate::item::Item::new(),
        };
        Self::new(key, record, size, Clock.mono(), UserState::Unknown, 0)
    }
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
            Self::Unasked => None,
            Self::Hit => Some("hit"),
            Self::Negative => Some("negative"),
            Self::Miss => Some("miss"),
            Self::Stale => Some("stale"),
        }
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Omits the key and the claims.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("reference", &self.reference).finish_non_exhaustive()
    }
}
