//! A worker's connections to one upstream, and the choice of a server for a request.
//!
//! Taking a connection out and putting it back needs no lock and wakes no other thread. What is shared with the other
//! workers is in the [`Target`]: what is under way there, and whether it is well.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{Request, Response};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::Upstream;
use super::balance::{self, Candidate};
use super::body::RequestBody;
use super::endpoint::Speech;
use super::gateway_headers::GatewayHeaders;
use super::incoming::{Incoming, SendError};
use super::link::{self, Http1, Http2Link, Link, StreamOf};
use super::patience::patiently;
use super::queue::{self, Full};
use super::stream::{Offer, ServerStream};
use super::target::{Target, TargetStatus};
use crate::config::BalanceMethod;
use crate::time::{Alarm, Clock};

/// A worker's connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    upstream: Arc<Upstream>,
    worker: usize,
    slots: RefCell<Rc<[Rc<Slot>]>>,
    /// Which of the upstream's lists of targets the slots are of.
    generation: Cell<u64>,
}

/// A worker's connections to one target.
#[derive(Debug)]
struct Slot {
    target: Arc<Target>,
    /// The one used last at the back.
    idle: RefCell<VecDeque<Http1>>,
    shared: RefCell<Vec<Rc<Http2Link>>>,
    /// Whether it has turned out to speak HTTP/1.1 where it had the choice.
    chose_http1: Cell<bool>,
    /// Held by who opens a connection that all who wait for it can share.
    opening: tokio::sync::Mutex<()>,
    /// How many such openings have failed.
    failed_openings: Cell<u64>,
    credit: Cell<i64>,
}

/// A request's search for a server: it tries each at most once.
#[derive(Debug)]
pub(crate) struct Choice {
    pool: Rc<Pool>,
    slots: Rc<[Rc<Slot>]>,
    affinity: u64,
    tried: SmallVec<[usize; 4]>,
    offer: Offer,
    /// Whether only a new connection will do.
    fresh: bool,
    failure: Option<(Arc<str>, String)>,
}

/// A connection in use.
#[derive(Debug)]
pub struct Connection {
    lease: Lease,
    index: usize,
    reused: bool,
}

/// A connection that may be used again. Dropped, an HTTP/1.1 connection is closed, and an HTTP/2 stream reset.
#[derive(Debug)]
pub struct Lease {
    link: Leased,
    flight: Flight,
}

#[derive(Debug)]
enum Leased {
    Http1(Http1),
    Http2(StreamOf),
}

/// Counts a request at its target while it is under way.
#[derive(Debug)]
struct Flight {
    pool: Rc<Pool>,
    slot: Rc<Slot>,
    _permit: Option<OwnedSemaphorePermit>,
}

/// No server took the request.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// None took a connection.
    #[error("upstream `{upstream}`: {server}: {reason}")]
    Failed {
        /// Which upstream.
        upstream: String,
        /// The last server that was tried.
        server: Arc<str>,
        /// Why it took none.
        reason: String,
    },
    /// None is healthy, or no name of one has an address.
    #[error("upstream `{0}`: no healthy server")]
    NoServer(String),
    /// All have as many requests as they may have, and so has the queue; or the wait was too long.
    #[error("upstream `{upstream}`: every server is busy: {reason}")]
    Busy {
        /// Which upstream.
        upstream: String,
        /// Which bound was met.
        reason: &'static str,
    },
}

impl Pool {
    /// An empty pool. `worker` spreads the first turns of the workers over the servers.
    pub fn new(upstream: &Arc<Upstream>, worker: usize) -> Rc<Self> {
        let pool = Self {
            upstream: Arc::clone(upstream),
            worker,
            slots: RefCell::new(Rc::new([])),
            generation: Cell::new(0),
        };
        Rc::new(pool)
    }

    /// The upstream.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Begins the search for a server. `affinity` is asked for only where sessions stick to servers.
    pub(crate) fn choose(self: &Rc<Self>, affinity: impl FnOnce() -> u64) -> Choice {
        let sticky = self.upstream.config.balance == BalanceMethod::Sticky;
        Choice {
            pool: Rc::clone(self),
            slots: self.slots(),
            affinity: if sticky { affinity() } else { 0 },
            tried: SmallVec::new(),
            offer: Offer::All,
            fresh: false,
            failure: None,
        }
    }

    /// Closes what has been idle for too long, and what is idle while its target has more connections than it may.
    pub fn sweep(&self, now: Instant) {
        let idle_timeout = self.upstream.config.idle_timeout;
        for slot in self.slots().iter() {
            slot.shared.borrow_mut().retain(|link| link.is_live(now, idle_timeout));
            let mut idle = slot.idle.borrow_mut();
            idle.retain(|link| {
                link.wire.is_open() && now.saturating_duration_since(link.since) <= idle_timeout
            });
            while self.has_surplus(slot) && idle.pop_front().is_some() {}
        }
    }

    /// Whether idle connections must make room for other workers'.
    fn has_surplus(&self, slot: &Slot) -> bool {
        let most = self.upstream.config.max_connections;
        most.is_some_and(|most| slot.target.connections.load(Relaxed) > most)
    }

    /// The slots of the upstream's present targets.
    fn slots(&self) -> Rc<[Rc<Slot>]> {
        let generation = self.upstream.targets.generation();
        if self.generation.replace(generation) != generation {
            let before = self.slots.borrow();
            let slot = |target: &Arc<Target>| {
                let kept = before.iter().find(|slot| Arc::ptr_eq(&slot.target, target));
                kept.map_or_else(|| Rc::new(Slot::new(target)), Rc::clone)
            };
            let slots: Rc<[Rc<Slot>]> = self.upstream.targets.current().iter().map(slot).collect();
            drop(before);
            // Connections to what is no target any more go with the slots that nobody holds.
            self.slots.replace(Rc::clone(&slots));
            let everyone: SmallVec<[Candidate<'_>; 8]> =
                slots.iter().enumerate().map(|(index, slot)| slot.seat(index)).collect();
            for _ in 0..self.worker % slots.len().max(1) {
                balance::choose(BalanceMethod::RoundRobin, &everyone, 0);
            }
        }
        Rc::clone(&self.slots.borrow())
    }
}

impl Choice {
    /// A connection to the server that is chosen; if it takes none, to another that does.
    ///
    /// # Errors
    /// If no server takes one.
    pub(crate) async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let mut full: SmallVec<[usize; 4]> = SmallVec::new();
        loop {
            let (index, permit) = match self.next(&full) {
                Some(index) => match self.permit(index) {
                    Ok(permit) => (index, permit),
                    Err(Full) => {
                        full.push(index);
                        // Whose sessions stick to it waits for it.
                        if self.pool.upstream.config.balance != BalanceMethod::Sticky {
                            continue;
                        }
                        Box::pin(self.wait(&full)).await?
                    }
                },
                None if full.is_empty() => return Err(self.nobody()),
                None => Box::pin(self.wait(&full)).await?,
            };
            full.clear();
            let Some(slot) = self.slots.get(index).map(Rc::clone) else { return Err(self.nobody()) };
            slot.target.in_flight.fetch_add(1, Relaxed);
            let flight = Flight { pool: Rc::clone(&self.pool), slot, _permit: permit };
            if !self.fresh
                && let Some(link) = flight.slot.take(&self.pool, self.offer)
            {
                return Ok(Connection { lease: Lease { link, flight }, index, reused: true });
            }
            // Boxed, as the waits above: most requests need none of it, and all would be the larger for it.
            let opened = Box::pin(flight.slot.open(&self.pool, self.offer)).await;
            match opened {
                Ok(link) => {
                    return Ok(Connection { lease: Lease { link, flight }, index, reused: false });
                }
                Err(reason) => {
                    self.tried.push(index);
                    self.failure = Some((Arc::clone(&flight.slot.target.label), reason));
                }
            }
        }
    }

    /// The request failed at `server` for this reason. Whether there is another way to send it: to another server,
    /// or, if it went over a connection that the server may have been about to close, or that takes no more, over a new
    /// one.
    pub(crate) fn again(&mut self, failed: &Failed, reason: String) -> bool {
        self.failure = Some((Arc::clone(&failed.server), reason));
        let others = |index: usize| index != failed.index && !self.tried.contains(&index);
        let other = self
            .slots
            .iter()
            .enumerate()
            .any(|(index, slot)| others(index) && slot.target.standing() == TargetStatus::In);
        if other {
            self.tried.push(failed.index);
        }
        self.fresh = !other;
        other || failed.may_recover
    }

    /// Only HTTP/1.1 will do.
    pub(crate) fn only_http1(&mut self) {
        self.offer = Offer::Http1;
    }

    /// Nothing of the request was written. The next connection is a new one: where one was stale, others may be.
    pub(crate) fn unsent(&mut self) {
        self.fresh = true;
    }

    /// Why no connection can be had.
    fn nobody(&mut self) -> ConnectError {
        let upstream = self.pool.upstream.config.name.clone();
        match self.failure.take() {
            Some((server, reason)) => ConnectError::Failed { upstream, server, reason },
            None => ConnectError::NoServer(upstream),
        }
    }

    /// The server whose turn it is of those that are in. Only when there is none, one that is ejected: it cannot be
    /// worse than no answer. One that is down is never asked.
    fn next(&self, full: &[usize]) -> Option<usize> {
        let balance = self.pool.upstream.config.balance;
        let mut seats: SmallVec<[Candidate<'_>; 8]> = SmallVec::new();
        let mut ejected: SmallVec<[Candidate<'_>; 8]> = SmallVec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            if self.tried.contains(&index) || full.contains(&index) {
                continue;
            }
            match slot.target.standing() {
                TargetStatus::In => seats.push(slot.seat(index)),
                TargetStatus::Ejected => ejected.push(slot.seat(index)),
                TargetStatus::Down => {}
            }
        }
        if seats.is_empty() && full.is_empty() {
            seats = ejected;
        }
        balance::choose(balance, &seats, self.affinity)
    }

    fn permit(&self, index: usize) -> Result<Option<OwnedSemaphorePermit>, Full> {
        let permits = self.slots.get(index).and_then(|slot| slot.target.permits.as_ref());
        permits.map(|permits| Arc::clone(permits).try_acquire_owned().map_err(|_| Full)).transpose()
    }

    /// Waits until one of the servers that are full has room.
    async fn wait(&self, full: &[usize]) -> Result<(usize, Option<OwnedSemaphorePermit>), ConnectError> {
        let of = |index: &usize| Some((*index, self.slots.get(*index)?.target.permits.clone()?));
        let upstream = &self.pool.upstream;
        let waited = queue::wait(&upstream.queued, &upstream.config.queue, full.iter().filter_map(of)).await;
        let (index, permit) =
            waited.map_err(|reason| ConnectError::Busy { upstream: upstream.config.name.clone(), reason })?;
        Ok((index, Some(permit)))
    }
}

impl Slot {
    fn new(target: &Arc<Target>) -> Self {
        Self {
            target: Arc::clone(target),
            idle: RefCell::default(),
            shared: RefCell::default(),
            chose_http1: Cell::new(false),
            opening: tokio::sync::Mutex::new(()),
            failed_openings: Cell::new(0),
            credit: Cell::new(0),
        }
    }

    fn seat(&self, index: usize) -> Candidate<'_> {
        Candidate {
            index,
            weight: self.target.endpoint.weight,
            load: self.target.in_flight.load(Relaxed),
            hash: self.target.hash,
            credit: &self.credit,
        }
    }

    /// A connection that is open already.
    fn take(&self, pool: &Pool, offer: Offer) -> Option<Leased> {
        if offer == Offer::All
            && let Some(stream) = self.stream()
        {
            return Some(Leased::Http2(stream));
        }
        loop {
            let link = self.idle.borrow_mut().pop_back()?;
            if Clock.mono().saturating_duration_since(link.since) > pool.upstream.config.idle_timeout {
                // The others have been idle for longer.
                self.idle.borrow_mut().clear();
                return None;
            }
            if link.wire.is_open() {
                return Some(Leased::Http1(link));
            }
        }
    }

    fn stream(&self) -> Option<StreamOf> {
        self.shared.borrow().iter().find_map(Http2Link::stream)
    }

    /// A new connection; or a stream of one that somebody else has opened meanwhile.
    async fn open(&self, pool: &Pool, offer: Offer) -> Result<Leased, String> {
        let shares = offer == Offer::All
            && match &self.target.endpoint.speech {
                Speech::Http1 => false,
                Speech::Http2 => true,
                Speech::Tls(secure) => secure.allows_http2 && !self.chose_http1.get(),
            };
        if !shares {
            return self.dial(pool, offer).await;
        }
        let failed = self.failed_openings.get();
        let opening = self.opening.lock().await;
        if let Some(stream) = self.stream() {
            return Ok(Leased::Http2(stream));
        }
        if self.chose_http1.get() {
            // There is nothing to share after all, and so nothing to wait for one after the other.
            drop(opening);
            return self.dial(pool, offer).await;
        }
        if self.failed_openings.get() != failed {
            return Err("the connection that others opened failed".to_owned());
        }
        let opened = self.dial(pool, offer).await;
        if opened.is_err() {
            self.failed_openings.set(failed.wrapping_add(1));
        }
        opened
    }

    async fn dial(&self, pool: &Pool, offer: Offer) -> Result<Leased, String> {
        let target = &self.target;
        let config = &pool.upstream.config;
        let opened =
            ServerStream::open(&target.endpoint, &target.address, config.connect_timeout, offer).await;
        let linked = match opened {
            Ok((stream, version)) => {
                Link::new(target, stream, version).await.map_err(|error| error.to_string())
            }
            Err(reason) => Err(reason),
        };
        match linked {
            Ok(link) => {
                target.connected.fetch_add(1, Relaxed);
                match link {
                    Link::Http1(link) => {
                        // Who was offered nothing else has chosen nothing.
                        self.chose_http1.set(offer == Offer::All || self.chose_http1.get());
                        Ok(Leased::Http1(link))
                    }
                    Link::Http2(link) => {
                        self.chose_http1.set(false);
                        let stream = link.stream().ok_or("the server allows no stream")?;
                        self.shared.borrow_mut().push(link);
                        Ok(Leased::Http2(stream))
                    }
                }
            }
            Err(reason) => {
                target.connect_failures.fetch_add(1, Relaxed);
                tracing::warn!(upstream = %config.name, server = %target.label, %reason, "no connection");
                target.failed(&config.name, config.ejection.as_ref(), &reason);
                Err(reason)
            }
        }
    }
}

/// Where a request failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) server: Arc<str>,
    index: usize,
    /// Whether a new connection to the same server may do better.
    may_recover: bool,
}

impl Connection {
    /// Sends a request, with what is `added` beside its own headers, and waits for the response's head; none: in vain. A
    /// failure hands back the request's head unless anything came back, and says whether nothing of it was written.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        added: &GatewayHeaders,
        limit: Duration,
    ) -> Option<Result<Response<Incoming>, SendError>> {
        let progress = request.body().progress();
        match &mut self.lease.link {
            Leased::Http1(Http1 { wire, alarm, .. }) => {
                link::for_http1(&mut request, added);
                wire.begin(request, added);
                let sending = poll_fn(|cx| wire.poll_response(cx));
                let mut answered = patiently(sending, limit, &progress, alarm).await?;
                if let Ok(response) = &mut answered
                    && let Some(mends) = response.extensions_mut().remove()
                {
                    let upstream = &self.lease.flight.pool.upstream.config.name;
                    self.lease.flight.slot.target.mended(upstream, &mends);
                }
                Some(answered.map(|response| response.map(Incoming::of_http1)).map_err(|cause| {
                    let recovered = wire.recover();
                    let unsent = recovered.as_ref().is_some_and(|recovered| recovered.unsent);
                    let (parts, first) = recovered.map(|back| (back.parts, back.first)).unzip();
                    if unsent {
                        progress.unread(first.flatten());
                    }
                    SendError { parts, unsent, cause: cause.into() }
                }))
            }
            Leased::Http2(stream) => {
                let mut sender = stream.sender(&mut request, added, &self.lease.flight.slot.target.endpoint);
                let sending = Box::pin(sender.try_send_request(request));
                let answered = patiently(sending, limit, &progress, &mut Alarm::default()).await?;
                Some(answered.map(|response| response.map(Incoming::of_http2)).map_err(|mut failed| {
                    let parts = failed.take_message().map(|request| request.into_parts().0);
                    SendError { unsent: parts.is_some(), parts, cause: failed.into_error().into() }
                }))
            }
        }
    }

    /// Whether it has carried a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Whether a request that it refuses unread may be sent again, whatever it is.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.lease.link, Leased::Http2(_))
    }

    /// The server, for logs.
    pub(crate) fn server(&self) -> Arc<str> {
        Arc::clone(&self.lease.flight.slot.target.label)
    }

    /// The server's host and port.
    pub(crate) fn authority(&self) -> &http::uri::Authority {
        &self.lease.flight.slot.target.endpoint.authority
    }

    /// The request was answered with `status`.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        let (config, target) = (&self.lease.flight.pool.upstream.config, &self.lease.flight.slot.target);
        match &config.ejection {
            Some(ejection) if ejection.status.contains(status) => {
                target.failed(&config.name, Some(ejection), status.as_str());
            }
            Some(_) | None => target.succeeded(&config.name),
        }
    }

    /// The request was not answered, for this reason, which is the server's doing.
    pub(crate) fn fail(self, reason: &str) -> Failed {
        let (config, target) = (&self.lease.flight.pool.upstream.config, &self.lease.flight.slot.target);
        target.failed(&config.name, config.ejection.as_ref(), reason);
        Failed { server: self.server(), index: self.index, may_recover: self.reused }
    }

    /// The request was not answered, and that says nothing of the server. The connection is not used again.
    pub(crate) fn give_up(self) -> Failed {
        if let Leased::Http2(stream) = &self.lease.link {
            self.lease.flight.slot.shared.borrow_mut().retain(|link| !stream.is_of(link));
        }
        Failed { server: self.server(), index: self.index, may_recover: true }
    }

    /// What puts it back.
    pub(crate) fn into_lease(self) -> Lease {
        self.lease
    }
}

impl Lease {
    /// The bytes both ways, once the response has been 101.
    pub(crate) fn tunnel(&self) -> Option<impl AsyncRead + AsyncWrite + use<>> {
        match &self.link {
            Leased::Http1(link) => Some(link.wire.clone()),
            Leased::Http2(_) => None,
        }
    }

    /// Puts the connection back.
    pub fn release(self) {
        let Self { link, flight } = self;
        let Leased::Http1(mut link) = link else { return };
        let keep = flight.pool.upstream.config.keep_alive;
        if !link.wire.is_reusable() || keep == 0 || flight.pool.has_surplus(&flight.slot) {
            return;
        }
        link.since = Clock.mono();
        let mut idle = flight.slot.idle.borrow_mut();
        if idle.len() >= keep {
            idle.pop_front();
        }
        idle.push_back(link);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.slot.target.in_flight.fetch_sub(1, Relaxed);
    }
}
