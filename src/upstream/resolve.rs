//! The targets of an upstream: the addresses that its servers are at, names looked up again and again.
//!
//! Lookups happen on the control runtime, never on a request's way. A name that cannot be looked up keeps the addresses
//! it had. A target that stays is the same one, with all that is known of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;

use super::Upstream;
use super::endpoint::{Address, Endpoint, ServerLocation};
use super::target::Target;

/// The limit of one lookup.
const LIMIT: Duration = Duration::from_secs(10);
/// How soon a name is looked up again that has never had an address.
const SOON: Duration = Duration::from_secs(1);
/// Addresses of one name that are used.
const MOST: usize = 64;

/// The present targets, and how often they have changed.
#[derive(Debug)]
pub(super) struct Targets {
    list: RwLock<Arc<[Arc<Target>]>>,
    /// From 1 on.
    generation: AtomicU64,
    max_connections: Option<usize>,
}

impl Targets {
    /// Those of `endpoints` that need no lookup.
    pub(super) fn new(endpoints: &[Arc<Endpoint>], max_connections: Option<usize>) -> Self {
        let fixed = endpoints.iter().filter_map(|endpoint| match &endpoint.place {
            ServerLocation::Fixed(address) => {
                Some(Arc::new(Target::new(endpoint, address.clone(), max_connections)))
            }
            ServerLocation::Name { .. } => None,
        });
        Self { list: RwLock::new(fixed.collect()), generation: AtomicU64::new(1), max_connections }
    }

    /// Tells one list from the next, without a lock.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The present list.
    pub(super) fn current(&self) -> Arc<[Arc<Target>]> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// `endpoint` is at `addresses` now. Whether that is news.
    fn place(&self, endpoint: &Arc<Endpoint>, addresses: &[SocketAddr]) -> bool {
        let mut list = self.list.write().unwrap_or_else(PoisonError::into_inner);
        let (before, mut after): (Vec<_>, Vec<_>) =
            list.iter().cloned().partition(|target| Arc::ptr_eq(&target.endpoint, endpoint));
        let mut news = before.len() != addresses.len();
        for address in addresses {
            let address = Address::Tcp(*address);
            let kept = before.iter().find(|target| target.address == address).map(Arc::clone);
            news |= kept.is_none();
            after
                .push(kept.unwrap_or_else(|| Arc::new(Target::new(endpoint, address, self.max_connections))));
        }
        if news {
            *list = after.into();
            self.generation.fetch_add(1, Ordering::Release);
        }
        news
    }
}

/// Looks every name up once, all at the same time. `failing` says of each server whether its name could not be looked up
/// the last time, so that this is said once.
pub(super) async fn once(upstream: &Upstream, failing: &mut [bool]) {
    let lookups = upstream.endpoints.iter().zip(failing).map(|(endpoint, failing)| async {
        if let ServerLocation::Name { host, port } = &endpoint.place {
            *failing = look_up(upstream, endpoint, (host.as_str(), *port), *failing).await;
        }
    });
    join_all(lookups).await;
}

/// Whether it failed.
async fn look_up(
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    name: (&str, u16),
    was_failing: bool,
) -> bool {
    let (upstream, targets) = (&upstream.config.name, &upstream.targets);
    let addresses = match tokio::time::timeout(LIMIT, tokio::net::lookup_host(name)).await {
        Ok(looked_up) => looked_up.map(distinct).map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(LIMIT))),
    };
    let addresses = addresses.and_then(|addresses| match addresses.len() {
        0 => Err("it has no address".to_owned()),
        _ => Ok(addresses),
    });
    match addresses {
        Ok(addresses) => {
            let is_news = targets.place(endpoint, &addresses);
            if is_news || was_failing {
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

/// Looks every name up for as long as the upstream lives.
pub(super) async fn keep_up(upstream: Weak<Upstream>, interval: Duration, mut failing: Vec<bool>) {
    loop {
        let Some(pause) = upstream.upgrade().map(|upstream| {
            let targets = upstream.targets.current();
            let has_address = |endpoint: &Arc<Endpoint>| {
                targets.iter().any(|target| Arc::ptr_eq(&target.endpoint, endpoint))
            };
            if upstream.endpoints.iter().all(has_address) { interval } else { SOON.min(interval) }
        }) else {
            return;
        };
        tokio::time::sleep(pause).await;
        let Some(upstream) = upstream.upgrade() else { return };
        once(&upstream, &mut failing).await;
    }
}

/// Each address once, in an order that does not change from one lookup to the next.
fn distinct(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST);
    addresses
}
