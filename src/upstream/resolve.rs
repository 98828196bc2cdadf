//! The targets of an upstream: the addresses of its servers. Host names are looked up periodically.
//!
//! Lookups run on the control runtime, never as part of a request. When a lookup fails, the name keeps its addresses. A
//! target keeps its state as long as lookups return its address.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;

use super::endpoint::{Address, Endpoint, ServerLocation};
use super::target::Target;

/// Timeout for one lookup.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of lookups while a name has no address.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Limit on the number of addresses used for one name.
const MAX_ADDRESSES: usize = 64;

/// The targets of an upstream.
#[derive(Debug)]
pub(super) struct Targets {
    /// The upstream's name, for the log.
    upstream: String,
    endpoints: Vec<Arc<Endpoint>>,
    list: RwLock<Arc<[Arc<Target>]>>,
    /// Grows with every change of the list, and begins at 1.
    generation: AtomicU64,
    max_connections: Option<usize>,
}

impl Targets {
    /// Creates targets for the endpoints with a fixed address. [`Self::look_up_all`] adds those with a host name.
    pub(super) fn new(upstream: &str, endpoints: Vec<Arc<Endpoint>>, max_connections: Option<usize>) -> Self {
        let fixed = endpoints.iter().filter_map(|endpoint| match &endpoint.location {
            ServerLocation::Fixed(address) => {
                Some(Arc::new(Target::new(endpoint, address.clone(), max_connections)))
            }
            ServerLocation::Name { .. } => None,
        });
        let list = RwLock::new(fixed.collect());
        let (upstream, generation) = (upstream.to_owned(), AtomicU64::new(1));
        Self { upstream, endpoints, list, generation, max_connections }
    }

    /// Returns the number of servers.
    pub(super) fn servers(&self) -> usize {
        self.endpoints.len()
    }

    /// Returns a number that changes whenever the list does. Takes no lock.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the current list.
    pub(super) fn current(&self) -> Arc<[Arc<Target>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the addresses of `endpoint`. Returns whether they have changed.
    fn set_addresses(&self, endpoint: &Arc<Endpoint>, addresses: &[SocketAddr]) -> bool {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let (before, mut after): (Vec<_>, Vec<_>) =
            list.iter().cloned().partition(|target| Arc::ptr_eq(&target.endpoint, endpoint));
        let mut changed = before.len() != addresses.len();
        for address in addresses {
            let address = Address::Tcp(*address);
            let kept = before.iter().find(|target| target.address == address).map(Arc::clone);
            changed |= kept.is_none();
            after
                .push(kept.unwrap_or_else(|| Arc::new(Target::new(endpoint, address, self.max_connections))));
        }
        if changed {
            *list = after.into();
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Looks up all names concurrently. `failing` has for each server whether its last lookup failed, so that only the
    /// first failure in a row is logged.
    pub(super) async fn look_up_all(&self, failing: &mut [bool]) {
        let lookups = self.endpoints.iter().zip(failing).map(|(endpoint, failing)| async {
            if let ServerLocation::Name { host, port } = &endpoint.location {
                *failing = self.look_up(endpoint, (host.as_str(), *port), *failing).await;
            }
        });
        join_all(lookups).await;
    }

    /// Looks up one name. Returns whether the lookup failed.
    async fn look_up(&self, endpoint: &Arc<Endpoint>, name: (&str, u16), was_failing: bool) -> bool {
        let upstream = &self.upstream;
        let addresses = match tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(name)).await {
            Ok(looked_up) => looked_up.map(distinct).map_err(|error| error.to_string()),
            Err(_) => Err(format!("no response within {}", humantime::format_duration(LOOKUP_TIMEOUT))),
        };
        let addresses = addresses.and_then(|addresses| match addresses.len() {
            0 => Err("it has no address".to_owned()),
            _ => Ok(addresses),
        });
        match addresses {
            Ok(addresses) => {
                let changed = self.set_addresses(endpoint, &addresses);
                if changed || was_failing {
                    let addresses = addresses.len();
                    tracing::info!(upstream, server = %endpoint.label, addresses, "a name was looked up");
                }
                false
            }
            Err(reason) => {
                if !was_failing {
                    tracing::warn!(upstream, server = %endpoint.label, reason, "a name cannot be looked up");
                }
                true
            }
        }
    }

    fn all_have_addresses(&self) -> bool {
        let targets = self.current();
        let has_address =
            |endpoint: &Arc<Endpoint>| targets.iter().any(|target| Arc::ptr_eq(&target.endpoint, endpoint));
        self.endpoints.iter().all(has_address)
    }
}

/// Looks up all names every `interval`, until the upstream is dropped.
pub(super) async fn run(targets: Weak<Targets>, interval: Duration, mut failing: Vec<bool>) {
    loop {
        let Some(all_have_addresses) = targets.upgrade().map(|targets| targets.all_have_addresses()) else {
            return;
        };
        let pause = if all_have_addresses { interval } else { RETRY_INTERVAL.min(interval) };
        tokio::time::sleep(pause).await;
        let Some(targets) = targets.upgrade() else { return };
        targets.look_up_all(&mut failing).await;
    }
}

/// Removes duplicates, and sorts the addresses so that their order is the same after each lookup.
fn distinct(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses
}
