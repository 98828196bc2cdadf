//! A cache of rows that were read recently, and of keys that have no session (negative entries).
//!
//! 1. Entries are found by the row's whole key, so a hash collision never mixes two sessions.
//! 2. An entry is valid for cookies up to a version. A browser that has seen a newer version never gets the older row.
//! 3. Negative entries are cached separately, so that made-up ids cannot evict sessions.
//! 4. A row that was read before an invalidation is not inserted after it.
//! 5. A cached session may have expired: callers check expiry on every use.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache as Map, DefaultLifecycle};
use quick_cache::{UnitWeighter, Weighter};

use super::state::Session;
use crate::config::CacheConfig;
use crate::item::Key;

/// A realm's cache.
#[derive(Debug)]
pub(crate) struct Cache {
    sessions: Map<Key, SessionEntry, BySize, RandomState>,
    negatives: Map<Key, NegativeEntry, UnitWeighter, RandomState>,
    ttl: Duration,
    epochs: [AtomicU64; 64],
    hasher: RandomState,
}

/// A row that was read.
#[derive(Clone, Debug)]
struct SessionEntry {
    session: Arc<Session>,
    read_at: Instant,
    /// The highest cookie version that this entry is valid for.
    max_version: u64,
}

/// A key without a row, or whose row is not a valid session.
#[derive(Clone, Copy, Debug)]
struct NegativeEntry {
    read_at: Instant,
    /// The highest cookie version that this entry is valid for.
    max_version: u64,
}

/// The result of a cache lookup.
#[derive(Clone, Debug)]
pub(crate) enum CacheResult {
    /// A row that may be used.
    Fresh(Arc<Session>),
    /// A row whose ttl ended this long ago. It admits a request only if the store is unavailable and the realm allows
    /// it. A change may be computed from it, since the write is conditional on the row.
    Stale(Arc<Session>, Duration),
    /// A negative entry: there is no such session.
    Absent,
    /// The cache has no entry.
    Miss,
}

/// A key's counter of invalidations before a read. The row is inserted only if the counter is the same afterwards.
/// Several keys share one of the 64 counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Epoch(u64);

/// A session has a weight of one for each of this many bytes, rounded up. The capacity limits the total weight, and so
/// the memory for large sessions.
const UNIT: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct BySize;

impl Weighter<Key, SessionEntry> for BySize {
    fn weight(&self, _: &Key, entry: &SessionEntry) -> u64 {
        entry.session.size().div_ceil(UNIT).max(1) as u64
    }
}

impl Cache {
    /// Creates an empty cache for `config.capacity` sessions and a tenth as many negative entries, but at least 100.
    pub(crate) fn new(config: CacheConfig) -> Self {
        let (capacity, negatives) = (config.capacity, (config.capacity / 10).max(100));
        // Do not allocate the whole capacity in advance.
        let estimate = capacity.min(1024);
        let hasher = RandomState::default();
        Self {
            sessions: Map::with(
                estimate,
                capacity as u64,
                BySize,
                hasher.clone(),
                DefaultLifecycle::default(),
            ),
            negatives: Map::with(
                estimate,
                negatives as u64,
                UnitWeighter,
                hasher.clone(),
                DefaultLifecycle::default(),
            ),
            ttl: config.ttl,
            epochs: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher,
        }
    }

    /// Looks up `key` for a cookie with version `cookie_version`.
    pub(crate) fn get(&self, key: &Key, cookie_version: u64, now: Instant) -> CacheResult {
        if self.ttl.is_zero() {
            return CacheResult::Miss;
        }
        if let Some(entry) = self.sessions.get(key).filter(|entry| cookie_version <= entry.max_version) {
            let age = now.saturating_duration_since(entry.read_at);
            return if age < self.ttl {
                CacheResult::Fresh(entry.session)
            } else {
                CacheResult::Stale(entry.session, age - self.ttl)
            };
        }
        match self.negatives.get(key) {
            Some(entry)
                if cookie_version <= entry.max_version
                    && now.saturating_duration_since(entry.read_at) < self.ttl =>
            {
                CacheResult::Absent
            }
            _ => CacheResult::Miss,
        }
    }

    /// Returns the cached row of `key`, even a stale one, and the time when it was read.
    pub(crate) fn latest(&self, key: &Key) -> Option<(Arc<Session>, Instant)> {
        self.sessions.get(key).map(|entry| (entry.session, entry.read_at))
    }

    /// Returns the epoch of `key`. Must be called before the row is read.
    pub(crate) fn epoch(&self, key: &Key) -> Epoch {
        Epoch(self.epoch_of(key).load(Ordering::Acquire))
    }

    /// Inserts a row that was read at `read_at`, valid for cookies up to version `max_version`.
    pub(crate) fn insert(&self, session: &Arc<Session>, max_version: u64, read_at: Instant, epoch: Epoch) {
        let key = session.key();
        // Checked first, so that an outdated row does not replace a newer one.
        if self.ttl.is_zero() || self.epoch(key).0 != epoch.0 {
            return;
        }
        // A slow read of a lagging replica must not replace a newer row.
        let is_newer = |cached: &SessionEntry| {
            cached.read_at >= read_at && cached.session.record().version > session.record().version
        };
        if self.sessions.get(key).is_some_and(|cached| is_newer(&cached)) {
            return;
        }
        self.negatives.remove(key);
        self.sessions
            .insert(key.clone(), SessionEntry { session: Arc::clone(session), read_at, max_version });
        // A concurrent invalidation either changed the epoch by now, or removes the entry afterwards.
        if self.epoch(key).0 != epoch.0 {
            self.sessions.remove(key);
        }
    }

    /// Inserts a negative entry: `key` has no session.
    pub(crate) fn insert_negative(&self, key: &Key, max_version: u64, read_at: Instant, epoch: Epoch) {
        if self.ttl.is_zero() || self.epoch(key).0 != epoch.0 {
            return;
        }
        self.sessions.remove(key);
        self.negatives.insert(key.clone(), NegativeEntry { read_at, max_version });
        if self.epoch(key).0 != epoch.0 {
            self.negatives.remove(key);
        }
    }

    /// Removes the entry of `key`, whose row has changed.
    pub(crate) fn invalidate(&self, key: &Key) {
        self.epoch_of(key).fetch_add(1, Ordering::AcqRel);
        self.sessions.remove(key);
        self.negatives.remove(key);
    }

    /// Returns the weight of the cached sessions, and its limit.
    pub(crate) fn sessions(&self) -> (u64, u64) {
        (self.sessions.weight(), self.sessions.capacity())
    }

    /// Returns the number of negative entries, and its limit.
    pub(crate) fn negatives(&self) -> (u64, u64) {
        (self.negatives.weight(), self.negatives.capacity())
    }

    fn epoch_of(&self, key: &Key) -> &AtomicU64 {
        let [first, ..] = &self.epochs;
        let at = usize::try_from(self.hasher.hash_one(key) % 64).unwrap_or(0);
        self.epochs.get(at).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Clock;

    const TTL: Duration = Duration::from_secs(2);

    fn cache(capacity: usize) -> Cache {
        Cache::new(CacheConfig { ttl: TTL, capacity })
    }

    fn session(key: &str, size: usize) -> Arc<Session> {
        Arc::new(Session::for_test(Key::string(key), 3, size))
    }

    #[test]
    fn entry_is_fresh_until_its_ttl_and_up_to_its_version() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        cache.insert(&session("a", 1), 3, now, cache.epoch(&key));
        assert!(matches!(cache.get(&key, 3, now), CacheResult::Fresh(_)));
        assert!(matches!(cache.get(&key, 4, now), CacheResult::Miss), "the browser has seen a newer version");
        assert!(matches!(cache.get(&key, 1, now + TTL), CacheResult::Stale(_, age) if age.is_zero()));
        assert!(
            matches!(cache.get(&Key::binary(b"a"), 1, now), CacheResult::Miss),
            "a key of another type is another key"
        );
    }

    #[test]
    fn negative_entry_is_kept_until_its_ttl_or_an_invalidation() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        cache.insert_negative(&key, 3, now, cache.epoch(&key));
        assert!(matches!(cache.get(&key, 3, now), CacheResult::Absent));
        assert!(matches!(cache.get(&key, 4, now), CacheResult::Miss));
        assert!(matches!(cache.get(&key, 3, now + TTL), CacheResult::Miss));
        cache.insert(&session("a", 1), 3, now, cache.epoch(&key));
        assert!(matches!(cache.get(&key, 3, now), CacheResult::Fresh(_)));
        cache.invalidate(&key);
        assert!(matches!(cache.get(&key, 3, now), CacheResult::Miss));
    }

    #[test]
    fn row_read_before_an_invalidation_is_not_inserted_after_it() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        let before = cache.epoch(&key);
        cache.invalidate(&key);
        cache.insert(&session("a", 1), 3, now, before);
        assert!(matches!(cache.get(&key, 3, now), CacheResult::Miss));
        cache.insert_negative(&key, 3, now, before);
        assert!(matches!(cache.get(&key, 3, now), CacheResult::Miss));
        cache.insert(&session("a", 1), 3, now, cache.epoch(&key));
        cache.insert(&session("a", 1), 3, now + TTL, before);
        cache.insert_negative(&key, 3, now, before);
        assert!(
            matches!(cache.get(&key, 3, now), CacheResult::Fresh(_)),
            "nor does it replace a newer entry"
        );
    }

    #[test]
    fn slow_read_does_not_replace_a_newer_row() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        let version = |version| Arc::new(Session::for_test(key.clone(), version, 1));
        let cached_version = |cache: &Cache| match cache.get(&key, 1, now) {
            CacheResult::Fresh(session) => session.record().version,
            CacheResult::Stale(..) | CacheResult::Absent | CacheResult::Miss => 0,
        };
        cache.insert(&version(3), 3, now, cache.epoch(&key));
        cache.insert(&version(2), 2, now - TTL / 2, cache.epoch(&key));
        assert_eq!(cached_version(&cache), 3, "the older version was read earlier");
        cache.insert(&version(1), 1, now + TTL / 2, cache.epoch(&key));
        assert_eq!(cached_version(&cache), 1, "the row was recreated");
    }

    #[test]
    fn made_up_ids_evict_no_session_and_large_sessions_count_for_more() {
        let (cache, now) = (cache(1000), Clock.mono());
        cache.insert(&session("a", 1), 3, now, cache.epoch(&Key::string("a")));
        for id in 0..100_000 {
            let key = Key::string(&format!("made up {id}"));
            cache.insert_negative(&key, 3, now, cache.epoch(&key));
        }
        assert!(matches!(cache.get(&Key::string("a"), 3, now), CacheResult::Fresh(_)));
        assert!(cache.negatives.len() <= 200, "each shard rounds its capacity up");
        for id in 0..100 {
            let name = format!("large {id}");
            cache.insert(&session(&name, 400 * 1024), 3, now, cache.epoch(&Key::string(&name)));
        }
        assert!(cache.sessions.weight() <= 1000);
    }

    #[test]
    fn ttl_of_zero_disables_the_cache() {
        let (cache, now, key) =
            (Cache::new(CacheConfig { ttl: Duration::ZERO, capacity: 10 }), Clock.mono(), Key::string("a"));
        cache.insert(&session("a", 1), 3, now, cache.epoch(&key));
        assert!(matches!(cache.get(&key, 0, now), CacheResult::Miss));
    }
}
