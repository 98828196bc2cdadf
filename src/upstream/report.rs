//! How an upstream stands, for whoever watches it: read when asked for, from counts that are kept anyway.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use super::target::{Target, TargetStatus};

/// How an upstream stands.
#[derive(Clone, Debug)]
pub struct UpstreamReport {
    /// Requests that wait for room at a server.
    pub queued: usize,
    /// How many may.
    pub queue_size: usize,
    /// Requests that were sent again, since the start.
    pub retries: u64,
    /// Requests that were not, since the budget was spent.
    pub retries_denied: u64,
    /// Each address of each server.
    pub servers: Vec<ServerReport>,
}

/// How one address of a server stands. The counts are since it was first used.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// The server, with the address if it has a name.
    pub label: Arc<str>,
    /// Whether it answers its health checks, or has none.
    pub healthy: bool,
    /// Whether it is ejected.
    pub ejected: bool,
    /// Requests under way.
    pub in_flight: usize,
    /// How many there may be; none: any number.
    pub max_connections: Option<usize>,
    /// Open connections.
    pub connections: usize,
    /// Those of them that carry no request. None over HTTP/2, where one carries many.
    pub idle: usize,
    /// Connections that were opened.
    pub connected: u64,
    /// Connections that could not be.
    pub connect_failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// How often health checks changed their mind.
    pub health_changes: u64,
}

impl UpstreamReport {
    pub(super) fn of(upstream: &Upstream) -> Self {
        let most = upstream.config.max_connections;
        Self {
            queued: upstream.queued.load(Relaxed),
            queue_size: upstream.config.queue.size,
            retries: upstream.retries.load(Relaxed),
            retries_denied: upstream.retries_denied.load(Relaxed),
            servers: upstream.targets.current().iter().map(|target| ServerReport::of(target, most)).collect(),
        }
    }

    /// Whether any server takes requests.
    pub fn is_available(&self) -> bool {
        self.servers.iter().any(|server| server.healthy)
    }
}

impl ServerReport {
    fn of(target: &Target, max_connections: Option<usize>) -> Self {
        let standing = target.standing();
        let (in_flight, connections) = (target.in_flight.load(Relaxed), target.connections.load(Relaxed));
        Self {
            label: Arc::clone(&target.label),
            healthy: standing != TargetStatus::Down,
            ejected: standing == TargetStatus::Ejected,
            in_flight,
            max_connections,
            connections,
            idle: connections.saturating_sub(in_flight),
            connected: target.connected.load(Relaxed),
            connect_failures: target.connect_failures.load(Relaxed),
            ejections: target.ejections.load(Relaxed),
            health_changes: target.health_changes.load(Relaxed),
        }
    }
}
