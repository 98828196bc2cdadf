//! The rows that were read a moment ago, and the ids that were found to name nothing.
//!
//! 1. A key is the whole key of the row; no two sessions can meet in a hash.
//! 2. An entry answers for cookies up to a version. A browser that has seen a newer one is never given an older row.
//! 3. Misses have a room of their own, so that made-up ids cannot push sessions out.
//! 4. What was read before an invalidation is not remembered after it.
//! 5. Being here proves nothing about being alive: expiry is judged at every use.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use quick_cache::sync::{Cache as Map, DefaultLifecycle};
use quick_cache::{UnitWeighter, Weighter};

use super::Session;
use crate::config::CacheConfig;
use crate::item::Key;

/// A realm's cache.
#[derive(Debug)]
pub(crate) struct Cache {
    found: Map<Key, Found, BySize, RandomState>,
    missing: Map<Key, Missing, UnitWeighter, RandomState>,
    ttl: Duration,
    epochs: [AtomicU64; 64],
    hasher: RandomState,
}

/// A row that was read.
#[derive(Clone, Debug)]
struct Found {
    session: Arc<Session>,
    read_at: Instant,
    answers: u64,
}

/// A row that is not there, or is no session.
#[derive(Clone, Copy, Debug)]
struct Missing {
    read_at: Instant,
    answers: u64,
}

/// What the cache knows.
#[derive(Clone, Debug)]
pub(crate) enum Hit {
    /// A row that may be used.
    Fresh(Arc<Session>),
    /// A row that must be read again; of this age, to be used only if that fails and the realm says so.
    Stale(Arc<Session>, Duration),
    /// Lately there was no such session.
    Missing,
    /// Nothing.
    Nothing,
}

/// A moment in a key's history; what is read after it was taken may be remembered if no invalidation came since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(u64);

/// One unit of capacity is a session of up to this size, which bounds the memory that large sessions can take.
const UNIT: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct BySize;

impl Weighter<Key, Found> for BySize {
    fn weight(&self, _: &Key, found: &Found) -> u64 {
        found.session.size().div_ceil(UNIT).max(1) as u64
    }
}

impl Cache {
    /// An empty cache of `config.capacity` sessions, and a tenth of that in misses.
    pub(crate) fn new(config: CacheConfig) -> Self {
        let (capacity, misses) = (config.capacity, (config.capacity / 10).max(100));
        // Nothing is reserved up front for sessions that may never come.
        let estimate = capacity.min(1024);
        let hasher = RandomState::default();
        Self {
            found: Map::with(estimate, capacity as u64, BySize, hasher.clone(), DefaultLifecycle::default()),
            missing: Map::with(
                estimate,
                misses as u64,
                UnitWeighter,
                hasher.clone(),
                DefaultLifecycle::default(),
            ),
            ttl: config.ttl,
            epochs: std::array::from_fn(|_| AtomicU64::new(0)),
            hasher,
        }
    }

    /// What is known of `key` for a browser that has seen version `asked`.
    pub(crate) fn look(&self, key: &Key, asked: u64, now: Instant) -> Hit {
        if self.ttl.is_zero() {
            return Hit::Nothing;
        }
        if let Some(found) = self.found.get(key).filter(|found| asked <= found.answers) {
            let age = now.saturating_duration_since(found.read_at);
            return if age < self.ttl {
                Hit::Fresh(found.session)
            } else {
                Hit::Stale(found.session, age - self.ttl)
            };
        }
        match self.missing.get(key) {
            Some(missing)
                if asked <= missing.answers && now.saturating_duration_since(missing.read_at) < self.ttl =>
            {
                Hit::Missing
            }
            _ => Hit::Nothing,
        }
    }

    /// The row of `key` and when it was read, however long ago.
    pub(crate) fn last(&self, key: &Key) -> Option<(Arc<Session>, Instant)> {
        self.found.get(key).map(|found| (found.session, found.read_at))
    }

    /// Where `key`'s history stands; to be taken before the row is read.
    pub(crate) fn epoch(&self, key: &Key) -> Epoch {
        Epoch(self.epoch_of(key).load(Ordering::Acquire))
    }

    /// Remembers what was read at `read_at` of a key, good for cookies up to version `answers`.
    pub(crate) fn remember(&self, session: &Arc<Session>, answers: u64, read_at: Instant, epoch: Epoch) {
        let key = session.key();
        // What comes too late must not push out what was read since.
        if self.ttl.is_zero() || self.epoch(key).0 != epoch.0 {
            return;
        }
        // A slow read of a replica that lags behind must not undo a newer one.
        let newer = |known: &Found| {
            known.read_at >= read_at && known.session.record().version > session.record().version
        };
        if self.found.get(key).is_some_and(|known| newer(&known)) {
            return;
        }
        self.missing.remove(key);
        self.found.insert(key.clone(), Found { session: Arc::clone(session), read_at, answers });
        // An invalidation either came before the insert and shows here, or comes after it and removes it.
        if self.epoch(key).0 != epoch.0 {
            self.found.remove(key);
        }
    }

    /// Remembers that `key` names no session.
    pub(crate) fn remember_missing(&self, key: &Key, answers: u64, read_at: Instant, epoch: Epoch) {
        if self.ttl.is_zero() || self.epoch(key).0 != epoch.0 {
            return;
        }
        self.found.remove(key);
        self.missing.insert(key.clone(), Missing { read_at, answers });
        if self.epoch(key).0 != epoch.0 {
            self.missing.remove(key);
        }
    }

    /// Forgets `key`: somebody changed its row.
    pub(crate) fn forget(&self, key: &Key) {
        self.epoch_of(key).fetch_add(1, Ordering::AcqRel);
        self.found.remove(key);
        self.missing.remove(key);
    }

    /// How many sessions are kept, and the bound.
    pub(crate) fn sessions(&self) -> (u64, u64) {
        (self.found.weight(), self.found.capacity())
    }

    /// How many misses are kept, and the bound.
    pub(crate) fn misses(&self) -> (u64, u64) {
        (self.missing.weight(), self.missing.capacity())
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
    fn an_entry_is_fresh_for_its_ttl_and_for_the_versions_it_answers() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        cache.remember(&session("a", 1), 3, now, cache.epoch(&key));
        assert!(matches!(cache.look(&key, 3, now), Hit::Fresh(_)));
        assert!(matches!(cache.look(&key, 4, now), Hit::Nothing), "the browser has seen a newer one");
        assert!(matches!(cache.look(&key, 1, now + TTL), Hit::Stale(_, age) if age.is_zero()));
        assert!(
            matches!(cache.look(&Key::binary(b"a"), 1, now), Hit::Nothing),
            "another type is another key"
        );
    }

    #[test]
    fn a_miss_is_remembered_and_forgotten() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        cache.remember_missing(&key, 3, now, cache.epoch(&key));
        assert!(matches!(cache.look(&key, 3, now), Hit::Missing));
        assert!(matches!(cache.look(&key, 4, now), Hit::Nothing));
        assert!(matches!(cache.look(&key, 3, now + TTL), Hit::Nothing));
        cache.remember(&session("a", 1), 3, now, cache.epoch(&key));
        assert!(matches!(cache.look(&key, 3, now), Hit::Fresh(_)));
        cache.forget(&key);
        assert!(matches!(cache.look(&key, 3, now), Hit::Nothing));
    }

    #[test]
    fn what_was_read_before_an_invalidation_is_not_remembered_after_it() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        let before = cache.epoch(&key);
        cache.forget(&key);
        cache.remember(&session("a", 1), 3, now, before);
        assert!(matches!(cache.look(&key, 3, now), Hit::Nothing));
        cache.remember_missing(&key, 3, now, before);
        assert!(matches!(cache.look(&key, 3, now), Hit::Nothing));
        cache.remember(&session("a", 1), 3, now, cache.epoch(&key));
        cache.remember(&session("a", 1), 3, now + TTL, before);
        cache.remember_missing(&key, 3, now, before);
        assert!(
            matches!(cache.look(&key, 3, now), Hit::Fresh(_)),
            "nor does it push out what was read since"
        );
    }

    #[test]
    fn a_slow_read_does_not_undo_a_newer_one() {
        let (cache, now, key) = (cache(10), Clock.mono(), Key::string("a"));
        let version = |version| Arc::new(Session::for_test(key.clone(), version, 1));
        let holds = |cache: &Cache| match cache.look(&key, 1, now) {
            Hit::Fresh(session) => session.record().version,
            Hit::Stale(..) | Hit::Missing | Hit::Nothing => 0,
        };
        cache.remember(&version(3), 3, now, cache.epoch(&key));
        cache.remember(&version(2), 2, now - TTL / 2, cache.epoch(&key));
        assert_eq!(holds(&cache), 3, "it was read before");
        cache.remember(&version(1), 1, now + TTL / 2, cache.epoch(&key));
        assert_eq!(holds(&cache), 1, "the row was made anew");
    }

    #[test]
    fn made_up_ids_push_no_session_out_and_large_sessions_count_for_more() {
        let (cache, now) = (cache(1000), Clock.mono());
        cache.remember(&session("a", 1), 3, now, cache.epoch(&Key::string("a")));
        for id in 0..100_000 {
            let key = Key::string(&format!("made up {id}"));
            cache.remember_missing(&key, 3, now, cache.epoch(&key));
        }
        assert!(matches!(cache.look(&Key::string("a"), 3, now), Hit::Fresh(_)));
        assert!(cache.missing.len() <= 200, "shards round up");
        for id in 0..100 {
            let name = format!("large {id}");
            cache.remember(&session(&name, 400 * 1024), 3, now, cache.epoch(&Key::string(&name)));
        }
        assert!(cache.found.weight() <= 1000);
    }

    #[test]
    fn a_ttl_of_zero_turns_it_off() {
        let (cache, now, key) =
            (Cache::new(CacheConfig { ttl: Duration::ZERO, capacity: 10 }), Clock.mono(), Key::string("a"));
        cache.remember(&session("a", 1), 3, now, cache.epoch(&key));
        assert!(matches!(cache.look(&key, 0, now), Hit::Nothing));
    }
}
