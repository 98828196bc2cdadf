//! The state of an upstream for metrics and readiness, read from its counters on demand.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Upstream;
use super::target::{Target, TargetStatus};
use crate::config::UpstreamConfig;

/// The state of an upstream.
#[derive(Clone, Debug)]
pub struct UpstreamReport {
    /// Requests in the queue.
    pub queued: usize,
    /// The limit of the queue.
    pub queue_size: usize,
    /// Retries since the start.
    pub retries: u64,
    /// Retries that the budget did not allow.
    pub retries_denied: u64,
    /// Each address of each server.
    pub servers: Vec<ServerReport>,
}

/// The state of one address of a server. Counters start when the address is first looked up.
#[derive(Clone, Debug)]
pub struct ServerReport {
    /// The server as configured, with the address if it is configured by name.
    pub label: Arc<str>,
    /// Whether its health checks succeed; `true` without health checks.
    pub healthy: bool,
    /// Whether it is ejected after failed requests.
    pub ejected: bool,
    /// Whether it is ejected and a request to it has failed less than one ejection period ago.
    pub failing: bool,
    /// Requests in flight.
    pub in_flight: usize,
    /// Limit on requests in flight, if there is one.
    pub max_connections: Option<usize>,
    /// Open connections.
    pub connections: usize,
    /// Open connections minus requests in flight: the idle ones, if each carries one request at a time.
    pub idle: usize,
    /// Connections that were opened.
    pub connected: u64,
    /// Connections that could not be opened.
    pub connect_failures: u64,
    /// Number of ejections.
    pub ejections: u64,
    /// Number of health changes.
    pub health_changes: u64,
}

impl UpstreamReport {
    pub(super) fn new(upstream: &Upstream) -> Self {
        let servers = upstream.targets.current();
        let servers = servers.iter().map(|target| ServerReport::new(target, &upstream.config)).collect();
        Self {
            queued: upstream.queued.load(Relaxed),
            queue_size: upstream.config.queue.size,
            retries: upstream.retries.load(Relaxed),
            retries_denied: upstream.retries_denied.load(Relaxed),
            servers,
        }
    }

    /// Returns the reason why no server takes requests, or `None` if one does.
    pub fn unavailable(&self) -> Option<&'static str> {
        if self.servers.iter().any(|server| server.healthy && !server.failing) {
            None
        } else if self.servers.iter().any(|server| server.failing) {
            Some("every healthy server is ejected")
        } else {
            Some("no healthy server")
        }
    }

    /// Returns whether any server takes requests.
    pub fn is_available(&self) -> bool {
        self.unavailable().is_none()
    }
}

impl ServerReport {
    fn new(target: &Target, config: &UpstreamConfig) -> Self {
        let status = target.status();
        let (in_flight, connections) = (target.in_flight.load(Relaxed), target.connections.load(Relaxed));
        Self {
            label: Arc::clone(&target.label),
            healthy: status != TargetStatus::Down,
            ejected: status == TargetStatus::Ejected,
            failing: target.is_failing(config.ejection.as_ref()),
            in_flight,
            max_connections: config.max_connections,
            connections,
            idle: connections.saturating_sub(in_flight),
            connected: target.connected.load(Relaxed),
            connect_failures: target.connect_failures.load(Relaxed),
            ejections: target.ejections.load(Relaxed),
            health_changes: target.health_changes.load(Relaxed),
        }
    }
}
