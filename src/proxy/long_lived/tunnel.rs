//! Tunnels, from the 101 response to their end.
//!
//! A tunnel ends when either side closes it, at its idle timeout or maximum age, when its session ends, and when the
//! gateway drains. Except when a side closes it, the gateway sends a Close frame to both sides. A frame that is being
//! sent to the client is completed first, within a timeout. A side whose stream is in the middle of a frame, or has
//! invalid frames, is disconnected without a Close frame.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{oneshot, watch};

use super::binding::{ActiveBinding, EndReason, SessionBinding, session_end_or_drain};
use super::frames::Close;
use super::relay::{FailedSide, Pipe, Scratch, Side};
use super::upgrade::UpgradedIo;
use crate::proxy::log::LogEntry;
use crate::session::Usage;
use crate::time::Clock;
use crate::upstream::Lease;

/// Timeout for the client's connection to become a tunnel, which includes writing the head of the 101 response.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for completing the current frame, and then for the client to reply to the Close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle timeout after one side has closed its direction.
const HALF_CLOSED_TIMEOUT: Duration = Duration::from_secs(30);

/// A tunnel that both sides have accepted.
#[derive(Debug)]
pub(in crate::proxy) struct Tunnel {
    /// The client's end.
    pub(super) client: oneshot::Receiver<UpgradedIo>,
    /// The upstream's end. Its connection never returns to the pool.
    pub(super) upstream: Lease,
    pub(super) binding: Option<SessionBinding>,
    pub(super) limits: TunnelLimits,
}

/// Limits on the duration of a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct TunnelLimits {
    /// Timeout for a byte in either direction.
    pub(super) idle_timeout: Duration,
    /// Limit on the total duration.
    pub(super) max_age: Duration,
}

/// Counts the tunnels of all workers.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: AtomicUsize,
    closed: [AtomicU64; Cause::ALL.len()],
}

/// The reason why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Client,
    Upstream,
    /// The client's connection ended, or did not become a tunnel within [`UPGRADE_TIMEOUT`].
    Unopened,
    Idle,
    Age,
    Session,
    LoggedOut,
    Forbidden,
    Draining,
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::Client,
        Self::Upstream,
        Self::Unopened,
        Self::Idle,
        Self::Age,
        Self::Session,
        Self::LoggedOut,
        Self::Forbidden,
        Self::Draining,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Unopened => "unopened",
            Self::Idle => "idle",
            Self::Age => "max-age",
            Self::Session => EndReason::SessionEnded.label(),
            Self::LoggedOut => EndReason::LoggedOut.label(),
            Self::Forbidden => EndReason::Forbidden.label(),
            Self::Draining => EndReason::Draining.label(),
        }
    }

    /// Returns the Close frame that both sides are sent, if the gateway ends the tunnel.
    fn close(self) -> Option<Close> {
        match self {
            Self::Client | Self::Upstream | Self::Unopened => None,
            Self::Idle => Some(Close::GoingAway("silent for too long")),
            Self::Age => Some(Close::GoingAway("open for too long")),
            Self::Draining => Some(Close::GoingAway("the service is restarting")),
            Self::Session => Some(Close::PolicyViolation("the session has ended")),
            Self::LoggedOut => Some(Close::PolicyViolation("the user has logged out")),
            Self::Forbidden => Some(Close::PolicyViolation("no longer allowed")),
        }
    }
}

impl From<EndReason> for Cause {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::SessionEnded => Self::Session,
            EndReason::LoggedOut => Self::LoggedOut,
            EndReason::Forbidden => Self::Forbidden,
            EndReason::Draining => Self::Draining,
        }
    }
}

impl Tunnels {
    /// Returns the number of open tunnels.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns the number of closed tunnels by cause.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::ALL
            .iter()
            .zip(&self.closed)
            .map(|(cause, count)| (cause.label(), count.load(Ordering::Relaxed)))
    }

    fn count(&self, cause: Cause) {
        let index = Cause::ALL.iter().position(|other| *other == cause);
        if let Some(count) = index.and_then(|index| self.closed.get(index)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts a tunnel as open until dropped.
struct OpenCount<'t>(&'t Tunnels);

impl<'t> OpenCount<'t> {
    fn new(tunnels: &'t Tunnels) -> Self {
        tunnels.open.fetch_add(1, Ordering::Relaxed);
        Self(tunnels)
    }
}

impl Drop for OpenCount<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tunnel {
    /// Serves the tunnel until it ends, and writes its line of the access log.
    pub(in crate::proxy) async fn serve(
        self,
        scratch: Rc<Scratch>,
        stopped: watch::Receiver<bool>,
        tunnels: &Tunnels,
        record: Option<Box<LogEntry>>,
    ) {
        let Self { client, upstream, binding, limits } = self;
        let _open = OpenCount::new(tunnels);
        let mut moved = Moved::default();
        let cause = match (tokio::time::timeout(UPGRADE_TIMEOUT, client).await, upstream.tunnel()) {
            (Ok(Ok(UpgradedIo { stream: client, hold: _hold })), Some(upstream)) => {
                let binding = binding.and_then(SessionBinding::activate);
                let usage = binding.as_ref().map(ActiveBinding::usage);
                let end = pin!(session_end_or_drain(binding, stopped));
                let mut relay = Relay::new(client, Box::pin(upstream), scratch);
                let cause = relay.run(end, usage, limits).await;
                if let Some(close) = cause.close() {
                    relay.close(close).await;
                }
                moved = Moved { received: relay.up.moved(), sent: relay.down.moved() };
                cause
            }
            (Ok(_) | Err(_), _) => Cause::Unopened,
        };
        drop(upstream);
        tunnels.count(cause);
        if let Some(mut record) = record {
            record.set_received(moved.received);
            record.set_closed(cause.label());
            record.write(moved.sent, cause == Cause::Client || cause == Cause::Upstream);
        }
    }
}

/// Number of bytes in each direction.
#[derive(Clone, Copy, Default)]
struct Moved {
    received: u64,
    sent: u64,
}

/// An open tunnel.
struct Relay {
    client: Side,
    upstream: Side,
    /// From the client to the upstream.
    up: Pipe,
    /// From the upstream to the client.
    down: Pipe,
    scratch: Rc<Scratch>,
}

impl Relay {
    fn new(client: Side, upstream: Side, scratch: Rc<Scratch>) -> Self {
        let (up, down) = (Pipe::default(), Pipe::default());
        Self { client, upstream, up, down, scratch }
    }

    /// Relays bytes until the tunnel must end, and returns the cause.
    async fn run(
        &mut self,
        mut end_reason: std::pin::Pin<&mut impl Future<Output = EndReason>>,
        usage: Option<Usage>,
        limits: TunnelLimits,
    ) -> Cause {
        let mut idle_since = Clock.mono();
        let end = idle_since + limits.max_age;
        let mut timer = pin!(tokio::time::sleep_until(next_timeout(idle_since, limits.idle_timeout, end)));
        let mut first = None;
        std::future::poll_fn(|cx| {
            let before = self.moved();
            let (up, down) = (
                self.up.poll(cx, &mut self.client, &mut self.upstream, &self.scratch),
                self.down.poll(cx, &mut self.upstream, &mut self.client, &self.scratch),
            );
            match (up, down) {
                (Poll::Ready(Err(FailedSide::From)), _) | (_, Poll::Ready(Err(FailedSide::To))) => {
                    return Poll::Ready(Cause::Client);
                }
                (Poll::Ready(Err(FailedSide::To)), _) | (_, Poll::Ready(Err(FailedSide::From))) => {
                    return Poll::Ready(Cause::Upstream);
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => {
                    return Poll::Ready(first.unwrap_or(Cause::Upstream));
                }
                (Poll::Ready(Ok(())), Poll::Pending) => first = first.or(Some(Cause::Client)),
                (Poll::Pending, Poll::Ready(Ok(()))) => first = first.or(Some(Cause::Upstream)),
                (Poll::Pending, Poll::Pending) => {}
            }
            if let Some(usage) = usage.as_ref().filter(|_| self.up.take_data()) {
                usage.record();
            }
            if self.moved() != before {
                idle_since = Clock.mono();
            }
            // A later timeout resets the timer only when the timer fires, since there is usually traffic before that.
            // An earlier timeout, of a half-closed tunnel, resets it at once.
            let is_half_closed = self.up.is_ended() || self.down.is_ended();
            let idle_timeout = if is_half_closed {
                limits.idle_timeout.min(HALF_CLOSED_TIMEOUT)
            } else {
                limits.idle_timeout
            };
            let due = next_timeout(idle_since, idle_timeout, end);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            while timer.as_mut().poll(cx).is_ready() {
                if due <= timer.deadline() {
                    let is_expired = timer.deadline() >= end.into();
                    return Poll::Ready(if is_expired { Cause::Age } else { first.unwrap_or(Cause::Idle) });
                }
                timer.as_mut().reset(due);
            }
            end_reason.as_mut().poll(cx).map(Cause::from)
        })
        .await
    }

    fn moved(&self) -> u64 {
        self.up.moved() + self.down.moved()
    }

    /// Sends a Close frame to each side whose stream is between two frames.
    async fn close(&mut self, close: Close) {
        let finished = std::future::poll_fn(|cx| {
            self.down.poll_finish_frame(cx, &mut self.upstream, &mut self.client, &self.scratch)
        });
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, finished).await;
        // A write fails if the other end has disconnected or does not read. The tunnel ends in either case.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, async {
            if self.up.can_send_frame() {
                let mask = getrandom::u32().unwrap_or_default().to_be_bytes();
                let _ = self.upstream.write_all(&close.frame(Some(mask))).await;
                let _ = self.upstream.flush().await;
            }
            if self.down.can_send_frame() {
                let frame = close.frame(None);
                if self.client.write_all(&frame).await.is_ok() && self.client.flush().await.is_ok() {
                    // Closing a connection with unread data would reset it, and the Close frame could be lost.
                    std::future::poll_fn(|cx| self.up.poll_discard(cx, &mut self.client, &self.scratch))
                        .await;
                }
            }
            let _ = self.client.shutdown().await;
        })
        .await;
    }
}

/// Returns the time of the next timeout.
fn next_timeout(idle_since: Instant, idle_timeout: Duration, end: Instant) -> tokio::time::Instant {
    (idle_since + idle_timeout).min(end).into()
}
