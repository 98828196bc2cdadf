//! Limits on the number of client connections.
//!
//! 1. Each connection holds a permit until its socket is closed. If none is free, each listening socket's latest
//!    connection waits for one, and the other clients wait in the kernel's accept queue.
//! 2. A connection beyond the limit of its address is closed. An IPv6 address counts as its /64, which usually belongs to
//!    one customer. Trusted proxies and Unix sockets have no such limit, since they represent many clients.
//! 3. At most a quarter of the connections may be paused (see [`ResetBudget`](super::reset_budget::ResetBudget)), so
//!    that paused connections of hostile clients cannot hold all permits.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::counters::Counters;
use crate::config::{DEFAULT_CONNECTIONS, Limits};

/// File descriptors reserved for each worker: those of its runtime, and some for files that are read at run time.
const DESCRIPTORS_PER_WORKER: u64 = 8;
/// File descriptors reserved for the process: the log, connections to the store, the configuration's files.
const DESCRIPTORS_OF_PROCESS: u64 = 48;
/// File descriptors of each worker's socket of a listener: the worker's, and the listener's for the next reload.
const DESCRIPTORS_PER_SOCKET: u64 = 2;
/// Limit of the file descriptors reserved for connections to upstreams, of which there is one per client connection.
const MAX_UPSTREAM_DESCRIPTORS: u64 = 4096;
/// One connection out of this many may be paused.
const PAUSED_RATIO: usize = 4;

/// The client connections of a gateway.
#[derive(Debug)]
pub struct Connections {
    permits: Arc<Semaphore>,
    limit: usize,
    per_address: Option<AddressCounts>,
    paused: AtomicUsize,
    /// Counters of what happened to client connections.
    pub counters: Counters,
}

/// The number of open connections of each address.
#[derive(Debug)]
struct AddressCounts {
    limit: usize,
    counts: Mutex<HashMap<IpAddr, NonZeroUsize>>,
}

/// The permit of one connection; dropping it releases it.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _permit: Option<OwnedSemaphorePermit>,
    /// The address that the connection is counted for.
    address: Option<(Arc<Connections>, IpAddr)>,
}

/// Counts a connection as paused until this is dropped.
#[derive(Debug)]
pub(super) struct PausedConnection {
    connections: Arc<Connections>,
}

impl Connections {
    /// Takes the limits from the configuration, and lowers the number of connections if the limit of open files
    /// requires it. Logs a warning if the configured number was lowered, and an info message if it was the default.
    pub(super) fn new(limits: &Limits, workers: usize, listeners: usize) -> Self {
        let reserve = DESCRIPTORS_OF_PROCESS
            + DESCRIPTORS_PER_WORKER.saturating_mul(workers as u64)
            + DESCRIPTORS_PER_SOCKET.saturating_mul((workers * listeners) as u64);
        let allowed = raise_descriptor_limit().map_or(u64::MAX, |all| {
            let shared = all.saturating_sub(reserve);
            shared - (shared / 2).min(MAX_UPSTREAM_DESCRIPTORS)
        });
        let allowed = usize::try_from(allowed).unwrap_or(usize::MAX).max(1);
        let wanted = limits.connections.unwrap_or(DEFAULT_CONNECTIONS);
        let limit = wanted.min(allowed);
        match limits.connections {
            Some(configured) if limit < configured => tracing::warn!(
                connections = limit,
                configured,
                "the limit of open files (RLIMIT_NOFILE) allows for fewer connections than configured"
            ),
            None if limit < wanted => tracing::info!(
                connections = limit,
                "the number of connections is limited by the limit of open files (RLIMIT_NOFILE)"
            ),
            Some(_) | None => {}
        }
        let per_address =
            limits.connections_per_address.map(|limit| AddressCounts { limit, counts: Mutex::default() });
        let permits = Arc::new(Semaphore::new(limit));
        Self { permits, limit, per_address, paused: AtomicUsize::default(), counters: Counters::default() }
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        self.limit.saturating_sub(self.permits.available_permits())
    }

    /// Returns the limit on open connections.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Waits for a permit.
    pub(super) async fn acquire(&self) -> ConnectionPermit {
        // Fails only if the semaphore is closed, which never happens.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        ConnectionPermit { _permit: permit, address: None }
    }

    /// Returns a permit without waiting, even beyond the limit. For the connections that are still queued when a listener
    /// closes.
    pub(super) fn acquire_now(&self) -> ConnectionPermit {
        ConnectionPermit { _permit: Arc::clone(&self.permits).try_acquire_owned().ok(), address: None }
    }

    /// Counts a connection as paused. Returns `None` if too many are paused, and the connection should be closed.
    pub(super) fn pause(self: &Arc<Self>) -> Option<PausedConnection> {
        // Counted before the check, so that two connections cannot both take the last place.
        let paused = PausedConnection { connections: Arc::clone(self) };
        if self.paused.fetch_add(1, Ordering::Relaxed) >= (self.limit / PAUSED_RATIO).max(1) {
            return None;
        }
        self.counters.pauses.increment();
        Some(paused)
    }

    /// Decrements the count of `address`.
    fn release_address(&self, address: IpAddr) {
        let Some(per_address) = &self.per_address else { return };
        let mut counts = per_address.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(address) {
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
    /// Counts the connection for `address`. Returns `false` if the address has reached its limit.
    pub(super) fn count_for(&mut self, connections: &Arc<Connections>, address: IpAddr) -> bool {
        let Some(per_address) = &connections.per_address else { return true };
        let address = address_key(address);
        {
            let mut counts = per_address.counts.lock().unwrap_or_else(PoisonError::into_inner);
            match counts.entry(address) {
                Entry::Occupied(count) if count.get().get() >= per_address.limit => {
                    connections.counters.over_share.increment();
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
        self.address = Some((Arc::clone(connections), address));
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some((connections, address)) = self.address.take() {
            connections.release_address(address);
        }
    }
}

impl Drop for PausedConnection {
    fn drop(&mut self) {
        self.connections.paused.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the address that is counted: an IPv4 address, or the /64 of an IPv6 address.
fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Raises the limit of open files to the hard limit, and returns it; `None` if there is no limit.
fn raise_descriptor_limit() -> Option<u64> {
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

    fn connections(limit: usize, each: usize) -> Arc<Connections> {
        let per_address = Some(AddressCounts { limit: each, counts: Mutex::default() });
        let permits = Arc::new(Semaphore::new(limit));
        Arc::new(Connections {
            permits,
            limit,
            per_address,
            paused: AtomicUsize::default(),
            counters: Counters::default(),
        })
    }

    #[tokio::test]
    async fn dropped_permit_is_free_again() {
        let connections = connections(2, 1);
        let first = connections.acquire().await;
        let _second = connections.acquire().await;
        assert_eq!((connections.open(), connections.limit()), (2, 2));
        drop(first);
        let _third = connections.acquire().await;
        assert_eq!(connections.open(), 2);
    }

    #[test]
    fn a_quarter_of_the_connections_may_be_paused() {
        let connections = connections(9, 1);
        let first = connections.pause();
        let second = connections.pause();
        assert!(first.is_some() && second.is_some() && connections.pause().is_none());
        drop(first);
        assert!(connections.pause().is_some(), "a refused pause is not counted");
        assert_eq!(connections.counters.pauses.get(), 3);
    }

    #[tokio::test]
    async fn connections_of_an_address_or_ipv6_network_are_limited() {
        let connections = connections(10, 2);
        let mut permits = Vec::new();
        for (address, is_allowed) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.1", false),
            ("10.0.0.2", true),
            ("2001:db8::1", true),
            ("2001:db8::2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::1", true),
        ] {
            let mut permit = connections.acquire().await;
            assert_eq!(permit.count_for(&connections, address.parse().unwrap()), is_allowed, "{address}");
            permits.push(permit);
        }
        assert_eq!(connections.counters.over_share.get(), 2);
        drop(permits);
        assert!(
            connections.per_address.as_ref().unwrap().counts.lock().unwrap().is_empty(),
            "addresses without connections are removed"
        );
    }
}
