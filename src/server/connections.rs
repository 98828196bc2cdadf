//! How many client connections there are, and how many there may be.
//!
//! 1. Who comes when all places are taken waits: it is not accepted, and nothing spins meanwhile.
//! 2. An address that has its share is told by a closed connection. An IPv6 address counts as its /64, which is what one
//!    customer has. A trusted proxy is many clients, so it has no share, and neither has a unix socket.
//! 3. No more than a part of the places is taken by connections that are left unread, or those who earn that would take
//!    the places of all others.
//! 4. A place is taken for as long as the connection's socket is open, whatever becomes of the connection.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::Counters;
use crate::config::{Limits, USUAL_CONNECTIONS};

/// Descriptors that a worker has for itself: its runtime's, and some for files that are read while it runs.
const EACH_WORKER: u64 = 8;
/// Descriptors that the process has whatever it serves: its log, its store's connections, its configuration.
const PROCESS: u64 = 48;
/// Descriptors for connections to upstreams: one for each client's, but no more than can be busy at a time.
const UPSTREAMS: u64 = 4096;

/// Of so many places, one may be taken by a connection that is left unread.
const PAUSED: usize = 4;

/// The client connections of a gateway.
#[derive(Debug)]
pub struct Connections {
    places: Arc<Semaphore>,
    bound: usize,
    shares: Option<Shares>,
    paused: AtomicUsize,
    /// What became of those who arrived.
    pub counters: Counters,
}

/// How many connections each address has, where that is bounded. Not larger than there are connections.
#[derive(Debug)]
struct Shares {
    each: usize,
    taken: Mutex<HashMap<IpAddr, NonZeroUsize>>,
}

/// A place among the connections, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
    share: Option<(Arc<Connections>, IpAddr)>,
}

/// A connection that is left unread, until this is dropped.
#[derive(Debug)]
pub(super) struct PausedConnection {
    connections: Arc<Connections>,
}

impl Connections {
    /// As many as `limits` says, or as descriptors allow for; only who has said how many is warned of fewer.
    pub(super) fn new(limits: &Limits, workers: usize, listeners: usize) -> Self {
        let reserve = PROCESS + EACH_WORKER.saturating_mul(workers as u64) + (workers * listeners) as u64;
        let allowed = descriptors().map_or(u64::MAX, |all| {
            let shared = all.saturating_sub(reserve);
            shared - (shared / 2).min(UPSTREAMS)
        });
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).max(1);
        let wanted = limits.connections.unwrap_or(USUAL_CONNECTIONS);
        let bound = wanted.min(allowed);
        match limits.connections {
            Some(configured) if bound < configured => tracing::warn!(
                connections = bound,
                configured,
                "the limit of open files (RLIMIT_NOFILE) allows for fewer connections than are configured"
            ),
            None if bound < wanted => tracing::info!(
                connections = bound,
                "as many connections as the limit of open files (RLIMIT_NOFILE) allows for"
            ),
            Some(_) | None => {}
        }
        let shares = limits.connections_per_address.map(|each| Shares { each, taken: Mutex::default() });
        let places = Arc::new(Semaphore::new(bound));
        Self { places, bound, shares, paused: AtomicUsize::default(), counters: Counters::default() }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.bound.saturating_sub(self.places.available_permits())
    }

    /// How many there may be.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> ConnectionPermit {
        // The semaphore is never closed, and nothing would be lost without a permit but the count.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        ConnectionPermit { _permit: permit, share: None }
    }

    /// A place for whoever cannot wait, since the listener ends; if there is none, one more than there are.
    pub(super) fn enter_now(&self) -> ConnectionPermit {
        ConnectionPermit { _permit: Arc::clone(&self.places).try_acquire_owned().ok(), share: None }
    }

    /// Leaves a connection unread; none: so many are that it had better end.
    pub(super) fn pause(self: &Arc<Self>) -> Option<PausedConnection> {
        // Counted before it is judged, so that two cannot take the last one.
        let pause = PausedConnection { connections: Arc::clone(self) };
        if self.paused.fetch_add(1, Ordering::Relaxed) >= (self.bound / PAUSED).max(1) {
            return None;
        }
        self.counters.pauses.add();
        Some(pause)
    }

    /// Lets go of `address`'s share.
    fn leave(&self, address: IpAddr) {
        let Some(shares) = &self.shares else { return };
        let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(address) {
            match NonZeroUsize::new(count.get().get() - 1) {
                Some(rest) => {
                    count.insert(rest);
                }
                None => {
                    count.remove();
                }
            }
        }
    }
}

impl ConnectionPermit {
    /// Counts the place as one of `address`; false: it has its share already.
    pub(super) fn take_share(&mut self, connections: &Arc<Connections>, address: IpAddr) -> bool {
        let Some(shares) = &connections.shares else { return true };
        let address = subscriber(address);
        {
            let mut taken = shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
            match taken.entry(address) {
                Entry::Occupied(count) if count.get().get() >= shares.each => {
                    connections.counters.over_share.add();
                    return false;
                }
                Entry::Occupied(mut count) => {
                    let more = count.get().saturating_add(1);
                    count.insert(more);
                }
                Entry::Vacant(count) => {
                    count.insert(NonZeroUsize::MIN);
                }
            }
        }
        self.share = Some((Arc::clone(connections), address));
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some((connections, address)) = self.share.take() {
            connections.leave(address);
        }
    }
}

impl Drop for PausedConnection {
    fn drop(&mut self) {
        self.connections.paused.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one customer of a network is given: one IPv4 address, or an IPv6 /64.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// How many descriptors the process may have, after the limit has been raised as far as it goes; none: any number.
fn descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return limit.current;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            limit.current
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(bound: usize, each: usize) -> Arc<Connections> {
        let shares = Some(Shares { each, taken: Mutex::default() });
        let places = Arc::new(Semaphore::new(bound));
        Arc::new(Connections {
            places,
            bound,
            shares,
            paused: AtomicUsize::default(),
            counters: Counters::default(),
        })
    }

    #[tokio::test]
    async fn a_place_is_free_again_when_it_is_left() {
        let connections = connections(2, 1);
        let first = connections.enter().await;
        let _second = connections.enter().await;
        assert_eq!((connections.open(), connections.bound()), (2, 2));
        drop(first);
        let _third = connections.enter().await;
        assert_eq!(connections.open(), 2);
    }

    #[test]
    fn a_part_of_the_connections_may_be_left_unread() {
        let connections = connections(9, 1);
        let first = connections.pause();
        let second = connections.pause();
        assert!(first.is_some() && second.is_some() && connections.pause().is_none());
        drop(first);
        assert!(connections.pause().is_some(), "what was refused takes nothing");
        assert_eq!(connections.counters.pauses.get(), 3);
    }

    #[tokio::test]
    async fn an_address_has_its_share_and_a_network_of_ipv6_one_for_all() {
        let connections = connections(10, 2);
        let mut places = Vec::new();
        for (address, is_let_in) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.1", false),
            ("10.0.0.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::1", true),
        ] {
            let mut place = connections.enter().await;
            assert_eq!(place.take_share(&connections, address.parse().unwrap()), is_let_in, "{address}");
            places.push(place);
        }
        assert_eq!(connections.counters.over_share.get(), 2);
        drop(places);
        assert!(
            connections.shares.as_ref().unwrap().taken.lock().unwrap().is_empty(),
            "nothing is left behind"
        );
    }
}
