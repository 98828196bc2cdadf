//! Resolving the cookies of a request to a session, from the cache or by a read that concurrent requests share.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::cache::CacheResult;
use super::judge::{SessionVerdict, judge};
use super::realm::Realm;
use super::resolution::{Active, Anonymous, Lookup, LookupSource, Resolution};
use super::state::Session;
use crate::config::OnStoreError;
use crate::format::{SessionId, SessionRef};
use crate::item::Key;
use crate::rate::ClientLimiter;
use crate::time::Now;

/// Maximum number of sessions that are looked up for the cookies of one request.
const MAX_COOKIES: usize = 4;

impl Realm {
    /// Resolves the values of the request's session cookies, in their order, and counts the result.
    ///
    /// `misses` limits the reads that find no session, per client address, since made-up ids and versions cost reads.
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
        let mut source = LookupSource::NotLookedUp;
        let mut active: Option<Active> = None;
        let mut tried: SmallVec<[Key; 1]> = SmallVec::new();
        for (cookie_index, value) in cookies.iter().enumerate() {
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
            let (cookie_index, version) = self.newest_cookie(cookies, cookie_index, &id, version);
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
                    SessionVerdict::Live(life) => active = Some(Active { session, id, life, cookie_index }),
                },
            }
        }
        match active {
            Some(active) => (Resolution::Active(active), source),
            None => (Resolution::Anonymous(anonymous), source),
        }
    }

    /// Returns the index and the version of the cookie with `id` and the highest version, where the first one with this id
    /// has the index `first` and this `version`. After a change of `cookie.path` or `cookie.domain`, a browser sends a cookie
    /// that is no longer updated before the current one.
    fn newest_cookie(&self, cookies: &[&[u8]], first: usize, id: &SessionId, version: u64) -> (usize, u64) {
        let later = cookies.iter().enumerate().skip(first + 1);
        later.fold((first, version), |newest, (index, value)| match self.format.parse_cookie(value) {
            Ok(other) if other.id == *id && other.version > newest.1 => (index, other.version),
            _ => newest,
        })
    }

    /// Looks up `key` for a cookie with version `cookie_version`: in the cache, or by a read that concurrent requests
    /// share.
    ///
    /// # Errors
    /// Returns the wait until the client may look up an id that is not cached.
    async fn look_up(
        self: &Arc<Self>,
        key: &Key,
        cookie_version: u64,
        misses: ClientLimiter<'_>,
        now: Now,
    ) -> Result<(Lookup, LookupSource), Duration> {
        let (stale, misses) = match self.cache.get(key, cookie_version, now.mono) {
            CacheResult::Fresh(session) => return Ok((Lookup::Found(session), LookupSource::Hit)),
            CacheResult::Absent => return Ok((Lookup::Absent(None), LookupSource::Negative)),
            // The session existed recently, so its id is not made up.
            CacheResult::Stale(session, age) => (self.may_use_stale(age).then_some(session), None),
            CacheResult::Miss => (None, Some(misses)),
        };
        // During an outage, do not wait for another timeout if a stale row may be used.
        if let Some(session) = &stale
            && self.read_outage.is_active(now.mono)
        {
            return Ok((Lookup::Found(Arc::clone(session)), LookupSource::Stale));
        }
        // Boxed: most requests do not get here, and an inline future would enlarge that of every request.
        Box::pin(self.read_shared(key, cookie_version, stale, misses, now)).await
    }

    /// Looks up `key` by a shared read. If the store is unavailable, returns `stale`.
    ///
    /// A read takes a token from `misses` and returns it if it finds a session of the cookie's version, or if the store is
    /// unavailable. So the reads in progress are limited, too. A shared read takes one, from the first client.
    ///
    /// # Errors
    /// Returns the wait for a token if none is available.
    async fn read_shared(
        self: &Arc<Self>,
        key: &Key,
        cookie_version: u64,
        stale: Option<Arc<Session>>,
        misses: Option<ClientLimiter<'_>>,
        now: Now,
    ) -> Result<(Lookup, LookupSource), Duration> {
        let realm = Arc::clone(self);
        let flight = (key.clone(), cookie_version, self.cache.epoch(key));
        let waiter = self.lookups.try_join(&flight, || {
            let token = misses.map(|misses| misses.try_acquire(now.mono)).transpose()?;
            let key = key.clone();
            Ok::<_, Duration>(async move {
                let lookup = realm.read(&key, cookie_version).await;
                // Here, because a client that disconnects does not wait for the result.
                if let Some(token) = token.filter(|_| !is_miss(&lookup, cookie_version)) {
                    token.release();
                }
                lookup
            })
        })?;
        let lookup = match waiter {
            Some(waiter) => waiter.wait().await.unwrap_or(Lookup::Unavailable),
            None => Lookup::Unavailable,
        };
        Ok(match (lookup, stale) {
            (Lookup::Unavailable, Some(session)) => (Lookup::Found(session), LookupSource::Stale),
            (lookup, _) => (lookup, LookupSource::Miss),
        })
    }

    fn may_use_stale(&self, age: Duration) -> bool {
        matches!(self.on_store_error, OnStoreError::Stale(limit) if age < limit)
    }
}

/// Returns whether a lookup for a cookie with version `cookie_version` found no such session.
fn is_miss(lookup: &Lookup, cookie_version: u64) -> bool {
    match lookup {
        // A version that the session has not reached is made up, or the read was eventually consistent.
        Lookup::Found(session) => session.record.version < cookie_version,
        Lookup::Absent(_) => true,
        // The id may be a user's.
        Lookup::Unavailable => false,
    }
}
