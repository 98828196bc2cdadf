//! What one request sees: one configuration, whatever is loaded meanwhile.
//!
//! A worker hands each request the snapshot that is current when it begins, and the request keeps it to its end. An
//! upstream that a new configuration leaves as it was is the same [`Upstream`](crate::upstream::Upstream), and so its
//! idle connections stay.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::record::Entry;
use super::upgrade::{Scratch, Tunnel, Tunnels};
use super::{Gateway, RequestIds};
use crate::telemetry::trace::TraceIds;
use crate::upstream::Pool;

/// What one worker has for itself.
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
    /// What all workers share.
    pub gateway: Arc<Gateway>,
    /// Connections to the upstreams, by index.
    pub pools: Vec<Rc<Pool>>,
}

impl Worker {
    /// Worker `number`, which makes ids for requests that bring none with `ids`. What goes on for long ends when
    /// `stopped` says so; WebSockets are counted in `tunnels`.
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

    /// Serves a tunnel from now on.
    pub(super) fn open(&self, tunnel: Tunnel, record: Option<Box<Entry>>) {
        let (scratch, stopped) = (Rc::clone(&self.scratch), self.stopped.clone());
        let tunnels = Arc::clone(&self.tunnels);
        // Owned by the tracker, which the worker waits for at its end.
        self.tasks.spawn_local(async move { tunnel.serve(scratch, stopped, &tunnels, record).await });
    }

    /// What outlives its request: tunnels.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Makes `gateway` current. Requests under way keep what they have.
    pub fn swap(&self, gateway: Arc<Gateway>) {
        let snapshot = Snapshot::new(gateway, self.number, &self.snapshot().pools);
        self.snapshot.replace(Rc::new(snapshot));
    }

    /// Its number among the workers.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Makes ids for requests that bring none.
    pub fn ids(&self) -> &RequestIds {
        &self.ids
    }

    /// Makes the ids of traces and spans.
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
        Self { gateway, pools }
    }
}
