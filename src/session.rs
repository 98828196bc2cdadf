//! Sessions: from the cookies of a request to a live session, and back to the cookies of the response.
//!
//! A [`Realm`] is one kind of session with all that it takes to resolve one: its format, its table, its cache. What it
//! answers keeps three things apart that must never be confused: there *is* a session, there is *none*, and it *cannot
//! be told*.

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

use cache::{Cache, Hit};
use flight::Flights;
use judge::{Life, Policy, SessionVerdict, judge};
use monitor::SessionMonitors;
use reference::Ref;
use set_cookie::CookieWriter;

pub use change::{Action, ChangeError, MutationOutcome, SessionMutation, UpdatedSession};
pub use create::{CreateError, CreatedSession, create};
pub use edit::Edit;
pub use mapped::{Mapped, MappingSlot, MappingTooLarge};
pub(crate) use monitor::{SessionMonitor, SessionStatus, Usage};
pub use reissue::{Reissued, Reissuing};
pub use set_cookie::Adopted;

/// How many sessions the cookies of a request may make us look up.
const MAX_COOKIES: usize = 4;
/// How many reads, and how many reissues, may be under way in a realm at a time.
const MAX_FLIGHTS: usize = 10_000;

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
    /// How many mappings each session read from now on has room for.
    mappings: AtomicUsize,
    cache: Cache,
    lookups: Arc<Flights<(Key, u64), Lookup>>,
    reissues: Arc<Flights<Key, Reissued>>,
    monitors: SessionMonitors,
    outage: lookup::Outage,
    turns: change::Turns,
    rotation_grace: Duration,
    control: tokio::runtime::Handle,
    tasks: TaskTracker,
    metrics: RealmMetrics,
    failures: lookup::Failures,
    clock: Clock,
}

/// A session as it was read: immutable, shared by all requests that use it.
pub struct Session {
    key: Key,
    reference: Ref,
    record: SessionRecord,
    size: usize,
    /// A moment before its row was read, or written.
    known_at: Instant,
    user: UserState,
    headers: SessionHeaders,
    mapped: mapped::Memory,
}

/// Whether a session has a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// A user is logged in.
    LoggedIn,
    /// Nobody is: the session of a visitor, such as a cart.
    Guest,
    /// The realm does not know which claim names the user.
    Unknown,
}

/// The headers that say which session this is, made once.
#[derive(Clone, Debug)]
pub struct SessionHeaders {
    /// `X-Session-Ref`
    pub reference: HeaderValue,
    /// `X-Session-Version`
    pub version: HeaderValue,
}

/// What the store had to say of a key.
#[derive(Clone, Debug)]
pub(crate) enum Lookup {
    /// A session, dead or alive.
    Found(Arc<Session>),
    /// No row, or one that is no session.
    Absent(Option<RowFault>),
    /// The store did not answer.
    Unavailable,
}

/// What the cookies of a request come to.
#[derive(Debug)]
pub enum Resolution {
    /// A live session.
    Active(Active),
    /// None, and why.
    Anonymous(Anonymous),
    /// The store did not answer, so it cannot be told.
    Unavailable,
    /// The store was not asked, and is not for so long: the client's address has named too many sessions that are none.
    Throttled(Duration),
}

/// A live session, as this request holds it.
#[derive(Debug)]
pub struct Active {
    /// The session.
    pub session: Arc<Session>,
    /// The id that the browser sent.
    pub id: SessionId,
    /// What it has left.
    pub life: Life,
    /// Which of the request's cookies named it.
    pub chosen: usize,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// The browser sent no cookie of this realm.
    NoCookie,
    /// It sent one that is not one of ours.
    Refused(CookieFault),
    /// There is no such row.
    Absent,
    /// There is a row that is not a session.
    NotASession(RowFault),
    /// Its idle deadline has passed.
    Idle,
    /// Its lifetime has passed.
    TooOld,
    /// Two cookies name two different live sessions, or too many name any.
    Ambiguous,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupSource {
    /// Nothing was looked up.
    Unasked,
    /// A fresh row in the cache.
    Hit,
    /// A remembered miss.
    Negative,
    /// The store.
    Miss,
    /// A row in the cache that could not be read again.
    Stale,
}

/// How much of what is bounded is in use: each with its bound.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    /// Cached sessions, large ones counting for several.
    pub sessions: (u64, u64),
    /// Remembered misses.
    pub misses: (u64, u64),
    /// Reads under way.
    pub lookups: (u64, u64),
    /// Reissues under way.
    pub reissues: (u64, u64),
}

impl Realm {
    /// A realm over `table`. Store operations run on `control` and are tracked by `tasks`; each session has room for
    /// `mappings` sets of injected headers.
    pub fn new(
        config: &RealmConfig,
        table: Table,
        metrics: RealmMetrics,
        control: &tokio::runtime::Handle,
        tasks: &TaskTracker,
        mappings: usize,
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
            mappings: AtomicUsize::new(mappings),
            cache: Cache::new(config.cache),
            lookups: Flights::new(MAX_FLIGHTS, control.clone(), tasks.clone()),
            reissues: Flights::new(MAX_FLIGHTS, control.clone(), tasks.clone()),
            monitors: SessionMonitors::default(),
            outage: lookup::Outage::new(Clock),
            turns: change::Turns::default(),
            rotation_grace: config.rotation_grace,
            control: control.clone(),
            tasks: tasks.clone(),
            metrics,
            failures: lookup::Failures::default(),
            clock: Clock,
        })
    }

    /// Gives sessions that are read from now on room for `mappings` sets of injected headers.
    pub fn make_room(&self, mappings: usize) {
        self.mappings.store(mappings, Ordering::Relaxed);
    }

    /// A session of this realm, whose row was so at `known_at` or later.
    fn session(&self, key: Key, record: SessionRecord, size: usize, known_at: Instant) -> Session {
        let user = match self.user.find(&record.claims) {
            Some(_) => UserState::LoggedIn,
            None if self.user.is_unknown() => UserState::Unknown,
            None => UserState::Guest,
        };
        Session::new(key, record, size, known_at, user, self.mappings.load(Ordering::Relaxed))
    }

    /// The claims that say who is logged in.
    pub fn user_claim(&self) -> &UserClaim {
        &self.user
    }

    /// Returns whether the user of `before`, if it had one, is the user of `after`.
    pub fn keeps_user(&self, before: &Claims, after: &Claims) -> bool {
        let user = self.user.find(before);
        user.is_none() || user == self.user.find(after)
    }

    /// The realm's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its cookie.
    pub fn cookie_name(&self) -> &str {
        self.cookie.name()
    }

    /// Whether upstreams see its cookie.
    pub fn forwards_cookie(&self) -> bool {
        self.forward_cookie
    }

    /// What happens when the store does not answer.
    pub fn on_store_error(&self) -> OnStoreError {
        self.on_store_error
    }

    /// Whether a cookie's value has the shape, and the signature, of one of this realm's.
    pub fn accepts(&self, value: &[u8]) -> bool {
        self.format.parse_cookie(value).is_ok()
    }

    /// How full what it keeps is.
    pub fn fill(&self) -> Fill {
        Fill {
            sessions: self.cache.sessions(),
            misses: self.cache.misses(),
            lookups: self.lookups.fill(),
            reissues: self.reissues.fill(),
        }
    }

    /// The table of its rows.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Resolves the cookies of the realm's name, in the order they came, and counts what they came to.
    ///
    /// `misses` counts the reads that found nothing against the client's address: made-up ids cost reads, which cost money.
    pub async fn resolve(
        self: &Arc<Self>,
        cookies: &[&[u8]],
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> (Resolution, LookupSource) {
        let (resolution, source) = self.tell(cookies, misses, now).await;
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

    /// Resolves the cookies of the realm's name.
    ///
    /// All are tried: who can set a cookie for a parent domain can put one in front of the user's own. If two name
    /// different live sessions, there is no telling which is the user's, so there is none; nor is there if more are
    /// named than are looked up, since the user's may be among the rest.
    async fn tell(
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
                // Whether there is another live session cannot be told, so neither can which is the user's.
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

    /// The row of `key` for a browser that has seen version `asked`: from the cache, or by a read that all concurrent
    /// requests share, unless too many of the client's came to nothing.
    async fn look_up(
        self: &Arc<Self>,
        key: &Key,
        asked: u64,
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> Result<(Lookup, LookupSource), Duration> {
        let stale = match self.cache.look(key, asked, now.mono) {
            Hit::Fresh(session) => return Ok((Lookup::Found(session), LookupSource::Hit)),
            Hit::Missing => return Ok((Lookup::Absent(None), LookupSource::Negative)),
            // There was such a session a moment ago, so its id is not made up.
            Hit::Stale(session, age) => self.may_use_stale(age).then_some(session),
            Hit::Nothing => {
                misses.check(now.mono)?;
                None
            }
        };
        // While the store is down, who has a row that will do does not wait to be told so again.
        if let Some(session) = &stale
            && self.outage.is_on(now.mono)
        {
            return Ok((Lookup::Found(Arc::clone(session)), LookupSource::Stale));
        }
        // Boxed: most requests do not get here, and all would be the larger for it.
        Ok(Box::pin(self.read_shared(key, asked, stale, misses, now)).await)
    }

    /// The same, by a read; `stale` is what will do if that fails.
    async fn read_shared(
        self: &Arc<Self>,
        key: &Key,
        asked: u64,
        stale: Option<Arc<Session>>,
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> (Lookup, LookupSource) {
        let realm = Arc::clone(self);
        let mut leads = false;
        let seat = self.lookups.join(&(key.clone(), asked), || {
            leads = true;
            let key = key.clone();
            async move { realm.read(&key, asked).await }
        });
        let lookup = match seat {
            Some(seat) => seat.arrive().await.unwrap_or(Lookup::Unavailable),
            None => Lookup::Unavailable,
        };
        // Those who share a read share its price, which the first one pays.
        if leads && matches!(lookup, Lookup::Absent(_)) {
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
        mappings: usize,
    ) -> Self {
        let reference = Ref::of(&key);
        let text = |text: String| HeaderValue::from_maybe_shared(bytes::Bytes::from(text));
        let headers = SessionHeaders {
            // Digits are always a header value.
            reference: text(reference.to_string()).unwrap_or(HeaderValue::from_static("")),
            version: text(record.version.to_string()).unwrap_or(HeaderValue::from_static("")),
        };
        let mapped = mapped::Memory::new(mappings);
        Self { key, reference, record, size, known_at, user, headers, mapped }
    }

    /// The key of its row.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Its public name.
    pub fn reference(&self) -> Ref {
        self.reference
    }

    /// What its row says.
    pub fn record(&self) -> &SessionRecord {
        &self.record
    }

    /// The headers that say which session this is.
    pub fn headers(&self) -> &SessionHeaders {
        &self.headers
    }

    /// Whether a user is logged in.
    pub fn user(&self) -> UserState {
        self.user
    }

    /// Roughly the bytes that its row takes.
    fn size(&self) -> usize {
        self.size
    }

    /// The headers of the mapping at `place`, made by `make` the first time they are asked for.
    pub fn mapped(&self, place: MappingSlot, make: impl Fn(&SessionRecord) -> Mapped) -> Cow<'_, Mapped> {
        self.mapped.at(place, || make(&self.record))
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
    /// The reason in one word, for logs and counts.
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
    /// The source in one word, for logs and counts; `None` if nothing was looked up.
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

/// Shows neither key nor claims.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("reference", &self.reference).finish_non_exhaustive()
    }
}
