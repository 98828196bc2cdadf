//! A realm: one kind of session, with its format, table, cache and operations in progress.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use super::cache::{Cache, Epoch};
use super::change_queue::ChangeQueue;
use super::flight::SingleFlight;
use super::judge::Policy;
use super::monitor::SessionMonitors;
use super::outage::{FailureLog, Outage};
use super::resolution::Lookup;
use super::set_cookie::CookieWriter;
use super::state::{Session, UserState};
use crate::claims::{Claims, UserClaim};
use crate::config::{Consistency, OnStoreError, RealmConfig};
use crate::format::{self, Format, SessionRecord};
use crate::item::Key;
use crate::store::table::Table;
use crate::telemetry::metrics::RealmMetrics;
use crate::time::Clock;

/// Maximum number of concurrent reads of a realm for requests, and of concurrent reissues.
const MAX_OPERATIONS: usize = 10_000;

/// One kind of session.
pub struct Realm {
    pub(super) name: String,
    pub(super) format: Box<dyn Format>,
    pub(super) table: Table,
    pub(super) policy: Policy,
    pub(super) user: UserClaim,
    pub(super) consistency: Consistency,
    pub(super) on_store_error: OnStoreError,
    pub(super) cookie: CookieWriter,
    pub(super) forward_cookie: bool,
    /// The number of mapping slots of sessions that are read from now on.
    pub(super) mapping_slots: AtomicUsize,
    pub(super) cache: Cache,
    /// By key, cookie version, and the key's epoch: a request after a change or a log-out does not join a read that began
    /// before it.
    pub(super) lookups: Arc<SingleFlight<(Key, u64, Epoch), Lookup>>,
    pub(super) reissues: Arc<SingleFlight<Key, Reissued>>,
    pub(super) monitors: SessionMonitors,
    /// Outages of reads, during which stale rows may be used.
    pub(super) read_outage: Outage,
    /// Outages of reissues. Reads may still succeed, such as without the permission to write.
    pub(super) reissue_outage: Outage,
    pub(super) changes: ChangeQueue,
    pub(super) rotation_grace: Duration,
    pub(super) control: tokio::runtime::Handle,
    pub(super) tasks: TaskTracker,
    pub(super) metrics: RealmMetrics,
    pub(super) failures: FailureLog,
    pub(super) clock: Clock,
}

/// The outcome of a reissue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reissued {
    /// This gateway extended the deadline.
    Won,
    /// Another writer reissued or changed the session first.
    Lost,
    /// The session no longer exists.
    Gone,
    /// The store failed. The deadline may have been extended nevertheless; if not, a later request tries again.
    Failed,
}

/// How full a realm's bounded structures are. Each value is the current size and its limit.
#[derive(Clone, Copy, Debug)]
pub struct RealmUsage {
    /// Cached sessions; a large one counts as several.
    pub sessions: (u64, u64),
    /// Negative cache entries.
    pub negatives: (u64, u64),
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
            read_outage: Outage::new(Clock),
            reissue_outage: Outage::new(Clock),
            changes: ChangeQueue::default(),
            rotation_grace: config.rotation_grace,
            control: control.clone(),
            tasks: tasks.clone(),
            metrics,
            failures: FailureLog::default(),
            clock: Clock,
        })
    }

    /// Sets the number of mapping slots of sessions that are read from now on.
    pub fn set_mapping_slots(&self, count: usize) {
        self.mapping_slots.store(count, Ordering::Relaxed);
    }

    /// Creates a session of this realm, whose row was read or written at `known_at` or later.
    pub(super) fn session(&self, key: Key, record: SessionRecord, size: usize, known_at: Instant) -> Session {
        let user = match self.user.find(&record.claims) {
            Some(_) => UserState::LoggedIn,
            None if self.user.is_unset() => UserState::Unknown,
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

    /// Returns how full the realm's caches and single flights are.
    pub fn usage(&self) -> RealmUsage {
        RealmUsage {
            sessions: self.cache.sessions(),
            negatives: self.cache.negatives(),
            lookups: self.lookups.usage(),
            reissues: self.reissues.usage(),
        }
    }

    /// Returns the table of the realm's sessions.
    pub fn table(&self) -> &Table {
        &self.table
    }
}

impl Reissued {
    /// Returns the label of the outcome, for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Gone => "gone",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Debug for Realm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Realm").field("name", &self.name).finish_non_exhaustive()
    }
}
