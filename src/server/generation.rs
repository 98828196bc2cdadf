//! A configuration, prepared for the workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::assemble::Assembled;
use super::listener::Listener;
use crate::config::Config;
use crate::proxy::Gateway;

/// A configuration, prepared for the workers.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) gateway: Arc<Gateway>,
    pub(super) listeners: Vec<Arc<Listener>>,
    /// Timeout for connections to end when the gateway drains.
    pub(super) drain: Duration,
    /// Each worker adds a permit when it has switched to this generation.
    pub(super) switched: Semaphore,
}

impl Generation {
    pub(super) fn new(config: &Config, assembled: &Assembled, listeners: &[Arc<Listener>]) -> Self {
        Self {
            gateway: Arc::clone(&assembled.gateway),
            listeners: listeners.to_vec(),
            drain: config.server.drain,
            switched: Semaphore::new(0),
        }
    }

    /// Returns the same generation without listeners: the last generation of a server that ends.
    pub(super) fn without_listeners(&self) -> Self {
        Self {
            gateway: Arc::clone(&self.gateway),
            listeners: Vec::new(),
            drain: self.drain,
            switched: Semaphore::new(0),
        }
    }
}
