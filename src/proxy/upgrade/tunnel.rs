//! A tunnel's life, from the 101 to its end.
//!
//! It ends when either side does, when it has been silent or open for too long, when its session ends, and when the
//! gateway drains. In the last four cases both sides are told by a Close frame where one can stand: the frame under way
//! to the client is finished first, if that is soon done. Who does not send frames is cut off.

use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{oneshot, watch};

use super::frames::Close;
use super::relay::{Broken, Pipe, Scratch, Side};
use crate::proxy::Handed;
use crate::proxy::bond::{self, Bond, Ending};
use crate::proxy::record::Entry;
use crate::session::Usage;
use crate::time::Clock;
use crate::upstream::Lease;

/// To switch protocols once both have agreed to: the time to write a response's head.
const SWITCH: Duration = Duration::from_secs(10);
/// For the frame under way to come to its end, and then for the client to answer our Close.
const GRACE: Duration = Duration::from_secs(1);
/// How long one side may be silent after the other has said its last.
const HALF_CLOSED: Duration = Duration::from_secs(30);

/// A tunnel that both sides have agreed to.
#[derive(Debug)]
pub(in crate::proxy) struct Tunnel {
    pub(in crate::proxy) near: oneshot::Receiver<Handed>,
    /// Never used again.
    pub(in crate::proxy) far: Lease,
    pub(in crate::proxy) bond: Option<Bond>,
    pub(in crate::proxy) terms: Terms,
}

/// How long a tunnel may be.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct Terms {
    /// Without a byte either way.
    pub(in crate::proxy) idle_timeout: Duration,
    /// In all.
    pub(in crate::proxy) max_age: Duration,
}

/// The tunnels of all workers, counted.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: AtomicUsize,
    closed: [AtomicU64; Cause::ALL.len()],
}

/// Why a tunnel has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Client,
    Upstream,
    /// Either was gone before there was a tunnel.
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
            Self::Session => Ending::SessionEnded.label(),
            Self::LoggedOut => Ending::LoggedOut.label(),
            Self::Forbidden => Ending::Forbidden.label(),
            Self::Draining => Ending::Draining.label(),
        }
    }

    /// What both sides are told, if it is us who end it.
    fn close(self) -> Option<Close> {
        match self {
            Self::Client | Self::Upstream | Self::Unopened => None,
            Self::Idle => Some(Close::GoingAway("silent for too long")),
            Self::Age => Some(Close::GoingAway("open for too long")),
            Self::Draining => Some(Close::GoingAway("the service restarts")),
            Self::Session => Some(Close::PolicyViolation("the session has ended")),
            Self::LoggedOut => Some(Close::PolicyViolation("the user has logged out")),
            Self::Forbidden => Some(Close::PolicyViolation("no longer allowed")),
        }
    }
}

impl From<Ending> for Cause {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::SessionEnded => Self::Session,
            Ending::LoggedOut => Self::LoggedOut,
            Ending::Forbidden => Self::Forbidden,
            Ending::Draining => Self::Draining,
        }
    }
}

impl Tunnels {
    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many have been closed, by cause.
    pub fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Cause::ALL
            .iter()
            .zip(&self.closed)
            .map(|(cause, count)| (cause.label(), count.load(Ordering::Relaxed)))
    }

    fn count(&self, cause: Cause) {
        let place = Cause::ALL.iter().position(|other| *other == cause);
        if let Some(count) = place.and_then(|place| self.closed.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Counts an open tunnel for as long as it is one, however that ends.
struct Open<'t>(&'t Tunnels);

impl<'t> Open<'t> {
    fn new(tunnels: &'t Tunnels) -> Self {
        tunnels.open.fetch_add(1, Ordering::Relaxed);
        Self(tunnels)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tunnel {
    /// Serves the tunnel to its end, and writes its line of the access log.
    pub(in crate::proxy) async fn serve(
        self,
        scratch: Rc<Scratch>,
        stopped: watch::Receiver<bool>,
        tunnels: &Tunnels,
        record: Option<Box<Entry>>,
    ) {
        let Self { near, far, bond, terms } = self;
        let _open = Open::new(tunnels);
        let mut ends = Ends::default();
        let cause = match (tokio::time::timeout(SWITCH, near).await, far.tunnel()) {
            (Ok(Ok(Handed { stream: near, hold: _hold })), Some(upstream)) => {
                let tie = bond.and_then(Bond::tie);
                let usage = tie.as_ref().map(bond::Tie::usage);
                let ending = pin!(bond::loosed_or_stopped(tie, stopped));
                let mut relay = Relay::new(near, Box::pin(upstream), scratch);
                let cause = relay.run(ending, usage, terms).await;
                if let Some(close) = cause.close() {
                    relay.close(close).await;
                }
                ends = Ends { received: relay.up.moved(), sent: relay.down.moved() };
                cause
            }
            (Ok(_) | Err(_), _) => Cause::Unopened,
        };
        drop(far);
        tunnels.count(cause);
        if let Some(mut record) = record {
            record.received(ends.received);
            record.closed(cause.label());
            record.write(ends.sent, cause == Cause::Client || cause == Cause::Upstream);
        }
    }
}

/// What went through.
#[derive(Clone, Copy, Default)]
struct Ends {
    received: u64,
    sent: u64,
}

/// A tunnel at work.
struct Relay {
    near: Side,
    far: Side,
    /// From the client to the upstream.
    up: Pipe,
    /// And back.
    down: Pipe,
    scratch: Rc<Scratch>,
}

impl Relay {
    fn new(near: Side, far: Side, scratch: Rc<Scratch>) -> Self {
        let (up, down) = (Pipe::default(), Pipe::default());
        Self { near, far, up, down, scratch }
    }

    /// Relays until there is a reason to stop.
    async fn run(
        &mut self,
        mut ending: std::pin::Pin<&mut impl Future<Output = Ending>>,
        usage: Option<Usage>,
        terms: Terms,
    ) -> Cause {
        let mut quiet_since = Clock.mono();
        let end = quiet_since + terms.max_age;
        let mut timer = pin!(tokio::time::sleep_until(wake(quiet_since, terms.idle_timeout, end)));
        let mut first = None;
        std::future::poll_fn(|cx| {
            let before = self.moved();
            let (up, down) = (
                self.up.poll(cx, &mut self.near, &mut self.far, &self.scratch),
                self.down.poll(cx, &mut self.far, &mut self.near, &self.scratch),
            );
            match (up, down) {
                (Poll::Ready(Err(Broken::From)), _) | (_, Poll::Ready(Err(Broken::To))) => {
                    return Poll::Ready(Cause::Client);
                }
                (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
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
                usage.note();
            }
            if self.moved() != before {
                quiet_since = Clock.mono();
            }
            // The timer is only moved when it has gone off: most of the time there is traffic before it does.
            let half = self.up.is_ended() || self.down.is_ended();
            let idle_timeout = if half { terms.idle_timeout.min(HALF_CLOSED) } else { terms.idle_timeout };
            let due = wake(quiet_since, idle_timeout, end);
            if due < timer.deadline() {
                timer.as_mut().reset(due);
            }
            while timer.as_mut().poll(cx).is_ready() {
                if due <= timer.deadline() {
                    let is_old = timer.deadline() >= end.into();
                    return Poll::Ready(if is_old { Cause::Age } else { first.unwrap_or(Cause::Idle) });
                }
                timer.as_mut().reset(due);
            }
            ending.as_mut().poll(cx).map(Cause::from)
        })
        .await
    }

    fn moved(&self) -> u64 {
        self.up.moved() + self.down.moved()
    }

    /// Tells both sides that it is over, where a frame can stand.
    async fn close(&mut self, close: Close) {
        let finished = std::future::poll_fn(|cx| {
            self.down.poll_finish(cx, &mut self.far, &mut self.near, &self.scratch)
        });
        let _ = tokio::time::timeout(GRACE, finished).await;
        // What of this fails, fails because the other end is gone, or does not take it; both end it all the same.
        let _ = tokio::time::timeout(GRACE, async {
            if self.up.takes_frame() {
                let mask = getrandom::u32().unwrap_or_default().to_be_bytes();
                let _ = self.far.write_all(&close.frame(Some(mask))).await;
                let _ = self.far.flush().await;
            }
            if self.down.takes_frame() {
                let frame = close.frame(None);
                if self.near.write_all(&frame).await.is_ok() && self.near.flush().await.is_ok() {
                    // A connection that is closed while something is still to be read of it is reset, and our frame
                    // with it may be lost.
                    std::future::poll_fn(|cx| self.up.poll_discard(cx, &mut self.near, &self.scratch)).await;
                }
            }
            let _ = self.near.shutdown().await;
        })
        .await;
    }
}

/// When there is next something to look at.
fn wake(quiet_since: Instant, idle_timeout: Duration, end: Instant) -> tokio::time::Instant {
    (quiet_since + idle_timeout).min(end).into()
}
