//! Workers and their configuration snapshots. A request sees a single configuration, even during a reload.
//!
//! Each request keeps the snapshot that is current when it begins. An upstream that a new configuration does not change
//! remains the same [`Upstream`](crate::upstream::Upstream), with its idle connections.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::log::LogEntry;
use super::long_lived::{Scratch, Tunnel, Tunnels};
use super::model::Gateway;
use super::request::RequestIds;
use crate::config::{Limits, Timeouts};
use crate::telemetry::trace::TraceIds;
use crate::upstream::Pool;

/// The state of one worker thread.
#[derive(Debug)]
pub struct Worker {
    number: usize,
    snapshot: RefCell<Rc<Snapshot>>,
    ids: RequestIds,
    traces: TraceIds,
    scratch: Rc<Scratch>,
    pub(super) stopped: watch::Receiver<bool>,
    tunnels: Arc<Tunnels>,
    tasks: TaskTracker,
}

/// One configuration on one worker.
#[derive(Debug)]
pub struct Snapshot {
    /// The part that all workers share.
    pub gateway: Arc<Gateway>,
    /// Connections to the upstreams, by index.
    pub pools: Vec<Rc<Pool>>,
    /// The limits of the configuration, which connections keep.
    pub limits: Rc<Limits>,
    /// The timeouts of the configuration, which connections keep.
    pub timeouts: Rc<Timeouts>,
}

impl Worker {
    /// Returns worker `number`. Event streams and tunnels end when `stopped` becomes true; tunnels are counted in
    /// `tunnels`.
    pub fn new(
        number: usize,
        gateway: Arc<Gateway>,
        ids: RequestIds,
        stopped: watch::Receiver<bool>,
        tunnels: Arc<Tunnels>,
    ) -> Self {
        let snapshot = RefCell::new(Rc::new(Snapshot::new(gateway, number, &[])));
        let (scratch, tasks) = (Rc::default(), TaskTracker::new());
        Self { number, snapshot, ids, traces: TraceIds::default(), scratch, stopped, tunnels, tasks }
    }

    /// Serves a tunnel in a separate task.
    pub(super) fn open_tunnel(&self, tunnel: Tunnel, record: Option<Box<LogEntry>>) {
        let (scratch, stopped) = (Rc::clone(&self.scratch), self.stopped.clone());
        let tunnels = Arc::clone(&self.tunnels);
        // When the worker drains, it waits for the tasks of this tracker.
        self.tasks.spawn_local(async move { tunnel.serve(scratch, stopped, &tunnels, record).await });
    }

    /// Returns the tasks that outlive their request, which serve tunnels.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Returns the current snapshot.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Makes `gateway` current. Requests in flight keep their snapshot.
    pub fn swap(&self, gateway: Arc<Gateway>) {
        let old = self.snapshot();
        let new = Snapshot::new(gateway, self.number, &old.pools);
        let is_kept = |pool: &Rc<Pool>| new.pools.iter().any(|kept| Rc::ptr_eq(kept, pool));
        // Otherwise, a long response would keep the pool's idle connections open.
        old.pools.iter().filter(|pool| !is_kept(pool)).for_each(|pool| pool.retire());
        self.snapshot.replace(Rc::new(new));
    }

    /// Returns the number of the worker.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Returns the source of ids for requests that have none.
    pub fn ids(&self) -> &RequestIds {
        &self.ids
    }

    /// Returns the source of trace and span ids.
    pub fn traces(&self) -> &TraceIds {
        &self.traces
    }
}

impl Snapshot {
    fn new(gateway: Arc<Gateway>, worker: usize, before: &[Rc<Pool>]) -> Self {
        let pool = |upstream| {
            let kept = before.iter().find(|pool| Arc::ptr_eq(pool.upstream(), upstream));
            kept.map_or_else(|| Pool::new(upstream, worker), Rc::clone)
        };
        let pools = gateway.upstreams.iter().map(pool).collect();
        let (limits, timeouts) = (Rc::new(gateway.limits), Rc::new(gateway.timeouts));
        Self { gateway, pools, limits, timeouts }
    }
}
