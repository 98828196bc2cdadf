//! A worker's connections to one upstream, and the selection of a server for a request.
//!
//! Without `max_connections`, taking a connection and returning it needs no lock and wakes no other thread. The state
//! that workers share, such as load and health, is in [`Target`].

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use super::Upstream;
use super::balance::{self, Candidate};
use super::body::RequestBody;
use super::connect_error::ConnectError;
use super::endpoint::ServerProtocol;
use super::gateway_headers::GatewayHeaders;
use super::incoming::{Incoming, SendError};
use super::link::Http1Link;
use super::queue::{self, Full};
use super::response_timeout::{await_continue, await_response_head};
use super::slot::{Leased, Slot};
use super::stream::Offer;
use super::target::{Target, TargetStatus};
use crate::config::BalanceMethod;
use crate::message::{Request, Response};
use crate::time::{Alarm, Clock};

/// A worker's connections to one upstream.
#[derive(Debug)]
pub struct Pool {
    upstream: Arc<Upstream>,
    worker: usize,
    slots: RefCell<Rc<[Rc<Slot>]>>,
    /// The generation of the upstream's list of targets that `slots` was made from.
    generation: Cell<u64>,
    is_retired: Cell<bool>,
}

/// The selection of a server for a request. A server to which connecting failed is not tried again.
#[derive(Debug)]
pub(crate) struct Choice {
    pool: Rc<Pool>,
    slots: Rc<[Rc<Slot>]>,
    affinity: u64,
    tried: SmallVec<[usize; 4]>,
    offer: Offer,
    /// Whether an idle connection must not be used.
    needs_new_connection: bool,
    /// The label of the last server that failed, and the reason.
    failure: Option<(Arc<str>, String)>,
}

/// A connection on which a request is sent.
#[derive(Debug)]
pub struct Connection {
    lease: Lease,
    /// The index of its server.
    index: usize,
    /// Whether the connection has carried a request before.
    reused: bool,
}

/// A connection taken from the pool. [`Self::release`] returns it; dropping it closes an HTTP/1.1 connection and
/// resets an HTTP/2 stream.
#[derive(Debug)]
pub struct Lease {
    link: Leased,
    in_flight: InFlight,
}

/// Counts a request as in flight at its target until dropped.
#[derive(Debug)]
struct InFlight {
    pool: Rc<Pool>,
    slot: Rc<Slot>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Pool {
    /// Creates an empty pool. Round robin starts at a different server for each worker, by its number `worker`.
    pub fn new(upstream: &Arc<Upstream>, worker: usize) -> Rc<Self> {
        let pool = Self {
            upstream: Arc::clone(upstream),
            worker,
            slots: RefCell::new(Rc::new([])),
            generation: Cell::new(0),
            is_retired: Cell::new(false),
        };
        Rc::new(pool)
    }

    /// Returns the upstream.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// Starts the selection of a server. `affinity` is called only for sticky sessions.
    pub(crate) fn choose(self: &Rc<Self>, affinity: impl FnOnce() -> u64) -> Choice {
        let is_sticky = self.upstream.config.balance == BalanceMethod::Sticky;
        Choice {
            pool: Rc::clone(self),
            slots: self.slots(),
            affinity: if is_sticky { affinity() } else { 0 },
            tried: SmallVec::new(),
            offer: Offer::All,
            needs_new_connection: false,
            failure: None,
        }
    }

    /// Closes connections that have been idle for too long, and idle connections to targets that have more connections
    /// than allowed.
    pub fn sweep(&self, now: Instant) {
        let idle_timeout = self.upstream.config.idle_timeout;
        for slot in self.slots().iter() {
            slot.shared.borrow_mut().retain(|link| link.is_live(now, idle_timeout));
            let mut idle = slot.idle.borrow_mut();
            idle.retain(|link| {
                link.connection.is_open() && now.saturating_duration_since(link.idle_since) <= idle_timeout
            });
            while self.has_surplus(slot) && idle.pop_front().is_some() {}
        }
    }

    /// Closes idle connections, now and when they become idle: only requests that have begun still use the pool.
    pub fn retire(&self) {
        self.is_retired.set(true);
        self.slots.borrow().iter().for_each(|slot| slot.retire());
    }

    /// Returns whether the target has more than `max_connections` connections from all workers.
    fn has_surplus(&self, slot: &Slot) -> bool {
        let max = self.upstream.config.max_connections;
        max.is_some_and(|max| slot.target.connections.load(Relaxed) > max)
    }

    /// Returns the slots of the upstream's current targets.
    fn slots(&self) -> Rc<[Rc<Slot>]> {
        let generation = self.upstream.targets.generation();
        if self.generation.replace(generation) != generation {
            let previous = self.slots.borrow();
            let slot = |target: &Arc<Target>| {
                let kept = previous.iter().find(|slot| Arc::ptr_eq(&slot.target, target));
                kept.map_or_else(|| Rc::new(Slot::new(target)), Rc::clone)
            };
            let slots: Rc<[Rc<Slot>]> = self.upstream.targets.current().iter().map(slot).collect();
            let is_kept = |old: &Rc<Slot>| slots.iter().any(|slot| Rc::ptr_eq(slot, old));
            previous.iter().filter(|old| !is_kept(old)).for_each(|old| old.retire());
            drop(previous);
            if self.is_retired.get() {
                slots.iter().for_each(|slot| slot.retire());
            }
            self.slots.replace(Rc::clone(&slots));
            let candidates: SmallVec<[Candidate<'_>; 8]> =
                slots.iter().enumerate().map(|(index, slot)| slot.candidate(index)).collect();
            for _ in 0..self.worker % slots.len().max(1) {
                balance::choose(BalanceMethod::RoundRobin, &candidates, 0);
            }
        }
        Rc::clone(&self.slots.borrow())
    }
}

impl Choice {
    /// Returns a connection to the chosen server, or to another server if connecting fails.
    ///
    /// # Errors
    /// Returns [`ConnectError`].
    pub(crate) async fn connect(&mut self) -> Result<Connection, ConnectError> {
        let mut full: SmallVec<[usize; 4]> = SmallVec::new();
        loop {
            let (index, permit) = match self.next_server(&full) {
                Some(index) => match self.try_permit(index) {
                    Ok(permit) => (index, permit),
                    Err(Full) => {
                        full.push(index);
                        // A sticky session waits for its server.
                        if self.pool.upstream.config.balance != BalanceMethod::Sticky {
                            continue;
                        }
                        Box::pin(self.wait_for_permit(&full)).await?
                    }
                },
                None if full.is_empty() => return Err(self.no_connection()),
                None => Box::pin(self.wait_for_permit(&full)).await?,
            };
            full.clear();
            let Some(slot) = self.slots.get(index).map(Rc::clone) else { return Err(self.no_connection()) };
            slot.target.in_flight.fetch_add(1, Relaxed);
            let in_flight = InFlight { pool: Rc::clone(&self.pool), slot, _permit: permit };
            if !self.needs_new_connection
                && let Some(link) = in_flight.slot.take_open(&self.pool.upstream.config, self.offer)
            {
                return Ok(Connection { lease: Lease { link, in_flight }, index, reused: true });
            }
            // Boxed, like the waits above. Few requests need this future, and it would enlarge the futures of all
            // requests.
            let opened = Box::pin(in_flight.slot.open(&self.pool.upstream.config, self.offer)).await;
            match opened {
                Ok(link) => {
                    return Ok(Connection { lease: Lease { link, in_flight }, index, reused: false });
                }
                Err(reason) => {
                    self.tried.push(index);
                    self.failure = Some((Arc::clone(&in_flight.slot.target.label), reason));
                }
            }
        }
    }

    /// Records a failed attempt, and returns whether another one is possible: at another server, or over a new connection
    /// to the same server if [`FailedAttempt::may_recover`] is set.
    pub(crate) fn retry(&mut self, failed: &FailedAttempt, reason: String) -> bool {
        self.failure = Some((Arc::clone(&failed.server), reason));
        let is_untried = |index: usize| index != failed.index && !self.tried.contains(&index);
        let is_other = |index: usize, slot: &Slot| {
            is_untried(index) && slot.target.status() == TargetStatus::Available && self.has_version(slot)
        };
        let has_other = self.slots.iter().enumerate().any(|(index, slot)| is_other(index, slot));
        if has_other {
            self.tried.push(failed.index);
        }
        self.needs_new_connection = !has_other;
        has_other || failed.may_recover
    }

    /// Limits the selection to HTTP/1.1 connections.
    pub(crate) fn only_http1(&mut self) {
        self.offer = Offer::Http1;
    }

    /// Limits the selection to new connections. If one idle connection was stale, the others may be stale, too.
    pub(crate) fn require_new_connection(&mut self) {
        self.needs_new_connection = true;
    }

    /// Returns the error for a request that gets no connection.
    fn no_connection(&mut self) -> ConnectError {
        let upstream = self.pool.upstream.config.name.clone();
        match self.failure.take() {
            Some((server, reason)) => ConnectError::Failed { upstream, server, reason },
            None => ConnectError::NoServer(upstream),
        }
    }

    /// Returns the next of the available servers, or else of the ejected servers, since trying one is better than failing
    /// the request. Servers that are down are never used.
    fn next_server(&self, full: &[usize]) -> Option<usize> {
        let balance = self.pool.upstream.config.balance;
        let mut available: SmallVec<[Candidate<'_>; 8]> = SmallVec::new();
        let mut ejected: SmallVec<[Candidate<'_>; 8]> = SmallVec::new();
        // A full server is worth waiting for if it is available.
        let mut is_available_full = false;
        for (index, slot) in self.slots.iter().enumerate() {
            if self.tried.contains(&index) || !self.has_version(slot) {
                continue;
            }
            match (slot.target.status(), full.contains(&index)) {
                (TargetStatus::Available, true) => is_available_full = true,
                (TargetStatus::Available, false) => available.push(slot.candidate(index)),
                (TargetStatus::Ejected, false) => ejected.push(slot.candidate(index)),
                (TargetStatus::Ejected, true) | (TargetStatus::Down, _) => {}
            }
        }
        if available.is_empty() && !is_available_full {
            available = ejected;
        }
        balance::choose(balance, &available, self.affinity)
    }

    /// Returns whether the server of `slot` may have an HTTP version that the request can use.
    fn has_version(&self, slot: &Slot) -> bool {
        self.offer == Offer::All || !matches!(slot.target.endpoint.protocol, ServerProtocol::Http2)
    }

    fn try_permit(&self, index: usize) -> Result<Option<OwnedSemaphorePermit>, Full> {
        let permits = self.slots.get(index).and_then(|slot| slot.target.permits.as_ref());
        permits.map(|permits| Arc::clone(permits).try_acquire_owned().map_err(|_| Full)).transpose()
    }

    /// Waits for a permit of one of the servers that are full.
    async fn wait_for_permit(
        &self,
        full: &[usize],
    ) -> Result<(usize, Option<OwnedSemaphorePermit>), ConnectError> {
        let permits = |index: &usize| Some((*index, self.slots.get(*index)?.target.permits.clone()?));
        let upstream = &self.pool.upstream;
        let waited =
            queue::wait(&upstream.queued, &upstream.config.queue, full.iter().filter_map(permits)).await;
        let (index, permit) =
            waited.map_err(|reason| ConnectError::Busy { upstream: upstream.config.name.clone(), reason })?;
        Ok((index, Some(permit)))
    }
}

/// An attempt to send a request that failed.
#[derive(Debug)]
pub(crate) struct FailedAttempt {
    pub(crate) server: Arc<str>,
    index: usize,
    /// Whether a new connection to the same server may work, because the failed one was reused or accepts no more
    /// requests.
    may_recover: bool,
}

impl Connection {
    /// Sends a request and waits for the response head. Returns `None` on timeout.
    pub(crate) async fn send(
        &mut self,
        mut request: Request<RequestBody>,
        gateway_headers: &GatewayHeaders,
        timeout: Duration,
    ) -> Option<Result<Response<Incoming>, SendError>> {
        let progress = request.body.progress();
        let target = &self.lease.in_flight.slot.target;
        let may_expect = matches!(self.lease.link, Leased::Http1(_)) && !target.ignores_expect.load(Relaxed);
        request.body.set_expect(&mut request.head.fields, may_expect);
        match &mut self.lease.link {
            Leased::Http1(Http1Link { connection, alarm, .. }) => {
                connection.start(request, gateway_headers);
                let mut on_interim = |status, headers: &_| progress.send_interim(status, headers);
                let mut sending = poll_fn(|cx| connection.poll_response(cx, &mut on_interim));
                let early = await_continue(connection, &mut sending, timeout, target, alarm).await;
                let sent = match early {
                    Some(sent) => sent,
                    None => await_response_head(sending, timeout, &progress, alarm).await?,
                };
                Some(match sent {
                    Ok((response, repairs)) => {
                        if !repairs.is_empty() {
                            target.log_repairs(&self.lease.in_flight.pool.upstream.config.name, &repairs);
                        }
                        Ok(response.map(Incoming::from_http1))
                    }
                    Err(cause) => {
                        let recovered = connection.recover();
                        let unsent = recovered.as_ref().is_some_and(|recovered| recovered.unsent);
                        let (head, first) =
                            recovered.map(|recovered| (recovered.head, recovered.first)).unzip();
                        if unsent {
                            progress.put_back(first.flatten());
                        }
                        Err(SendError { head, unsent, cause: cause.into() })
                    }
                })
            }
            Leased::Http2(stream) => {
                let Request { head, body } = request;
                let (mut sender, request) =
                    stream.prepare((*head).clone(), body, gateway_headers, &target.endpoint);
                let sending = Box::pin(sender.try_send_request(request));
                let result = await_response_head(sending, timeout, &progress, &mut Alarm::default()).await?;
                stream.response_started();
                let result = result.map(|response| Response::from(response).map(Incoming::from_http2));
                Some(result.map_err(|mut failed| {
                    let unsent = failed.take_message().is_some();
                    SendError { head: Some(head), unsent, cause: failed.into_error().into() }
                }))
            }
        }
    }

    /// Returns whether the connection has carried a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Returns the server's label in logs.
    pub(crate) fn server(&self) -> Arc<str> {
        Arc::clone(&self.lease.in_flight.slot.target.label)
    }

    /// Returns the server's host and port.
    pub(crate) fn authority(&self) -> &http::uri::Authority {
        &self.lease.in_flight.slot.target.endpoint.authority
    }

    /// Records a response with `status` for outlier detection.
    pub(crate) fn record_response(&self, status: http::StatusCode) {
        let (config, target) =
            (&self.lease.in_flight.pool.upstream.config, &self.lease.in_flight.slot.target);
        match &config.ejection {
            Some(ejection) if ejection.status.contains(status) => {
                target.failed(&config.name, Some(ejection), status.as_str());
            }
            Some(_) | None => target.succeeded(&config.name),
        }
    }

    /// Drops the lease after a failure, and counts the failure against the server.
    pub(crate) fn record_failure(self, reason: &str) -> FailedAttempt {
        let (config, target) =
            (&self.lease.in_flight.pool.upstream.config, &self.lease.in_flight.slot.target);
        target.failed(&config.name, config.ejection.as_ref(), reason);
        FailedAttempt { server: self.server(), index: self.index, may_recover: self.reused }
    }

    /// Closes the connection after a failure that is not the server's fault. An HTTP/2 connection gets no more
    /// requests.
    pub(crate) fn discard(self) -> FailedAttempt {
        if let Leased::Http2(stream) = &self.lease.link {
            self.lease.in_flight.slot.shared.borrow_mut().retain(|link| !stream.belongs_to(link));
        }
        FailedAttempt { server: self.server(), index: self.index, may_recover: true }
    }

    /// Returns the lease, which returns the connection to the pool once the response is complete.
    pub(crate) fn into_lease(self) -> Lease {
        self.lease
    }
}

impl Lease {
    /// Returns the connection's byte stream after a 101 response, or `None` over HTTP/2.
    pub(crate) fn tunnel(&self) -> Option<impl AsyncRead + AsyncWrite + use<>> {
        match &self.link {
            Leased::Http1(link) => Some(link.connection.clone()),
            Leased::Http2(_) => None,
        }
    }

    /// Returns the connection to the pool, if it can be reused.
    pub fn release(self) {
        let Self { link, in_flight } = self;
        let Leased::Http1(mut link) = link else { return };
        let max_idle = in_flight.pool.upstream.config.keep_alive;
        let InFlight { pool, slot, .. } = &in_flight;
        if !link.connection.is_reusable() || max_idle == 0 || slot.is_retired.get() || pool.has_surplus(slot)
        {
            return;
        }
        link.idle_since = Clock.mono();
        let mut idle = in_flight.slot.idle.borrow_mut();
        if idle.len() >= max_idle {
            idle.pop_front();
        }
        idle.push_back(link);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.slot.target.in_flight.fetch_sub(1, Relaxed);
    }
}
