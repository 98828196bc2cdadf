//! What clients pay for streams of HTTP/2 that they give up: to open one and reset it at once costs them next to
//! nothing, and the gateway a request (CVE-2023-44487).
//!
//! Each such stream takes a token of its client's address, whichever connection it came by; whoever has none left is not
//! read until there is one again, and what it took beyond that comes off first. If too many have to be left unread, the
//! rest of them end. A trusted proxy is many clients, and has
//! no limit; neither has whoever came by a unix socket.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::connections::{Connections, PausedConnection};
use crate::rate::{Balance, Limiter};
use crate::time::Clock;

/// One client's.
#[derive(Debug)]
pub(super) struct ResetBudget {
    payer: Option<(Arc<Limiter>, IpAddr)>,
    connections: Arc<Connections>,
}

impl ResetBudget {
    /// Of whoever is at `address`; without one, or without a limiter, what is given up is counted and nothing else.
    pub(super) fn new(
        limiter: Option<&Arc<Limiter>>,
        address: Option<IpAddr>,
        connections: &Arc<Connections>,
    ) -> Self {
        Self { payer: limiter.cloned().zip(address), connections: Arc::clone(connections) }
    }

    /// A stream ended before its response.
    pub(super) fn debit(&self) {
        self.connections.counters.resets.add();
        self.take(1);
    }

    /// A connection is ended for what its client did, and up to `resets` streams with it that were not charged.
    pub(super) fn end(&self, resets: usize) {
        self.connections.counters.ended.add();
        self.take(u32::try_from(resets).unwrap_or(u32::MAX));
    }

    fn take(&self, tokens: u32) {
        if let Some((limiter, address)) = &self.payer {
            limiter.debit(*address, tokens, Clock.mono());
        }
    }

    /// What the client can pay.
    ///
    /// # Errors
    /// How long it takes until that is anything.
    pub(super) fn balance(&self) -> Result<Balance, Duration> {
        match &self.payer {
            Some((limiter, address)) => limiter.balance(*address, Clock.mono()),
            None => Ok(Balance::All),
        }
    }

    /// Leaves a connection unread; none: it is to end.
    pub(super) fn pause(&self) -> Option<PausedConnection> {
        self.connections.pause()
    }

    /// Waits until the client can pay for anything; false: it cannot, and the connection is to end.
    pub(super) async fn settle(&self, limit: Duration) -> bool {
        let Err(mut wait) = self.balance() else { return true };
        let pause = self.pause();
        let paid = async {
            loop {
                tokio::time::sleep(wait).await;
                match self.balance() {
                    Ok(_) => break,
                    // Others of the address were faster.
                    Err(more) => wait = more,
                }
            }
        };
        let is_settled = pause.is_some() && tokio::time::timeout(limit, paid).await.is_ok();
        if !is_settled {
            self.connections.counters.ended.add();
        }
        is_settled
    }
}
