//! The targets of an upstream: the addresses that its servers are at, names looked up again and again.
//!
//! Lookups happen on the control runtime, never on a request's way. A name that cannot be looked up keeps the addresses
//! it had. A target that stays is the same one, with all that is known of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use super::Upstream;
use super::endpoint::{Address, Endpoint, Place};
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
            Place::Fixed(address) => Some(Arc::new(Target::new(endpoint, address.clone(), max_connections))),
            Place::Name { .. } => None,
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

/// Looks every name up once.
pub(super) async fn once(upstream: &Upstream, failing: &mut Vec<Arc<str>>) {
    for endpoint in &upstream.endpoints {
        let Place::Name { host, port } = &endpoint.place else { continue };
        let name = &upstream.config.name;
        let looked_up =
            match tokio::time::timeout(LIMIT, tokio::net::lookup_host((host.as_str(), *port))).await {
                Ok(Ok(addresses)) => Ok(distinct(addresses)),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {}", humantime::format_duration(LIMIT))),
            };
        let was_failing = failing.iter().any(|label| *label == endpoint.label);
        match looked_up {
            Ok(addresses) if !addresses.is_empty() => {
                failing.retain(|label| *label != endpoint.label);
                if upstream.targets.place(endpoint, &addresses) {
                    let addresses = addresses.len();
                    tracing::info!(upstream = %name, server = %endpoint.label, addresses, "a name was looked up");
                } else if was_failing {
                    tracing::info!(upstream = %name, server = %endpoint.label, "a name can be looked up again");
                }
            }
            Ok(_) | Err(_) if was_failing => {}
            failed => {
                let reason = failed.err().unwrap_or_else(|| "it has no address".to_owned());
                tracing::warn!(upstream = %name, server = %endpoint.label, reason, "a name cannot be looked up");
                failing.push(Arc::clone(&endpoint.label));
            }
        }
    }
}

/// Looks every name up for as long as the upstream lives.
pub(super) async fn keep_up(upstream: Weak<Upstream>, interval: Duration, mut failing: Vec<Arc<str>>) {
    let mut pause = if failing.is_empty() { interval } else { SOON.min(interval) };
    loop {
        tokio::time::sleep(pause).await;
        let Some(upstream) = upstream.upgrade() else { return };
        once(&upstream, &mut failing).await;
        let list = upstream.targets.current();
        let homeless =
            |endpoint: &Arc<Endpoint>| !list.iter().any(|target| Arc::ptr_eq(&target.endpoint, endpoint));
        pause = if upstream.endpoints.iter().any(homeless) { SOON.min(interval) } else { interval };
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
