//! A budget for HTTP/2 streams that clients reset. Opening and resetting a stream costs a client almost nothing, but
//! costs the gateway a request (rapid reset, CVE-2023-44487).
//!
//! Each such stream takes a token from the client's address, whichever connection it is on. An address may go
//! into debt. While it has no token, its new connections and those that have reset streams are paused: nothing is read
//! from them. If too many connections are paused, further ones are closed. Trusted proxies and Unix sockets have no
//! such limit, since they represent many clients.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connections::{Connections, PausedConnection};
use crate::rate::{Balance, Limiter};
use crate::time::Clock;

/// The reset budget of a connection's client.
#[derive(Debug)]
pub(super) struct ResetBudget {
    limiter: Option<(Arc<Limiter>, IpAddr)>,
    connections: Arc<Connections>,
}

impl ResetBudget {
    /// Returns the budget of the client at `address`. Without an address or a limiter, resets are only counted.
    pub(super) fn new(
        limiter: Option<&Arc<Limiter>>,
        address: Option<IpAddr>,
        connections: &Arc<Connections>,
    ) -> Self {
        Self { limiter: limiter.cloned().zip(address), connections: Arc::clone(connections) }
    }

    /// Takes a token for a stream that its client ended before the response was complete.
    pub(super) fn debit(&self) {
        self.connections.counters.resets.increment();
        self.take_tokens(1);
    }

    /// Counts a connection that is closed because of its client, and takes tokens for up to `resets` streams on it
    /// that were not debited.
    pub(super) fn close_abusive(&self, resets: usize) {
        self.connections.counters.abusive_connections.increment();
        self.take_tokens(u32::try_from(resets).unwrap_or(u32::MAX));
    }

    fn take_tokens(&self, tokens: u32) {
        if let Some((limiter, address)) = &self.limiter {
            limiter.debit(*address, tokens, Clock.mono());
        }
    }

    /// Returns the tokens that the client has.
    ///
    /// # Errors
    /// Returns the time until the client has a token, if it has none.
    pub(super) fn balance(&self) -> Result<Balance, Duration> {
        match &self.limiter {
            Some((limiter, address)) => limiter.balance(*address, Clock.mono()),
            None => Ok(Balance::All),
        }
    }

    /// Counts the connection as paused. Returns `None` if too many are paused, and the connection should be closed.
    pub(super) fn pause(&self) -> Option<PausedConnection> {
        self.connections.pause()
    }

    /// Waits until the client has a token. Returns `false` on timeout or if too many connections are paused. The
    /// connection should then be closed.
    pub(super) async fn wait_for_token(&self, timeout: Duration) -> bool {
        let Err(mut wait) = self.balance() else { return true };
        let paused = self.pause();
        let has_token = async {
            loop {
                tokio::time::sleep(wait).await;
                match self.balance() {
                    Ok(_) => break,
                    // Another connection of the address has taken it.
                    Err(more) => wait = more,
                }
            }
        };
        let is_allowed = paused.is_some() && tokio::time::timeout(timeout, has_token).await.is_ok();
        if !is_allowed {
            self.connections.counters.abusive_connections.increment();
        }
        is_allowed
    }
}
