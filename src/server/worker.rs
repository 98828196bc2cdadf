//! A worker thread, which accepts connections and serves them.
//!
//! A worker has an acceptor for each listener of the current generation. When a reload removes or changes a listener,
//! its acceptor accepts what is left in the kernel's queue, so that no client is reset, and signals its connections to
//! close after their next response.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::accepted_connection::{self, AcceptedConnection};
use super::connections::ConnectionPermit;
use super::error::StartError;
use super::generation::Generation;
use super::listener::Listener;
use super::listener_socket::{Accepted, AsyncListenerSocket, ListenerSocket, MAX_QUEUED};
use super::state::State;
use crate::proxy::{RequestIds, Worker};
use crate::time::Clock;

/// Interval at which a worker sends its heartbeat and closes upstream connections that have been idle for too long.
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failed accept, for example when no file descriptor is left.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Arguments of [`spawn`].
#[derive(Debug)]
pub(super) struct WorkerSetup {
    pub(super) number: usize,
    /// The number of workers.
    pub(super) workers: usize,
    /// The current generation.
    pub(super) generations: watch::Receiver<Arc<Generation>>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) state: Arc<State>,
}

/// The acceptors of a worker.
struct Acceptors {
    number: usize,
    workers: usize,
    worker: Rc<Worker>,
    connections: TaskTracker,
    running: Vec<Acceptor>,
    /// Acceptors that have been stopped and may still be accepting queued connections.
    stopping: JoinSet<()>,
}

/// The tasks that accept connections of one listener.
struct Acceptor {
    listener: Arc<Listener>,
    /// Stops the tasks, and signals the connections to close.
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Starts a worker thread.
///
/// # Errors
/// Returns an error if the operating system cannot provide random bytes, a thread, or the descriptors that a runtime
/// needs.
pub(super) fn spawn(setup: WorkerSetup) -> Result<JoinHandle<()>, StartError> {
    let failed = |what| move |error| StartError::System { what, error };
    let ids = RequestIds::new().map_err(|error| failed("randomness")(error.into()))?;
    let name = format!("worker-{}", setup.number);
    let (report, reported) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        // A local runtime must be built on its own thread.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let (started, runtime) = match runtime {
            Ok(runtime) => (Ok(()), Some(runtime)),
            Err(error) => (Err(error), None),
        };
        // The send cannot fail, since `spawn` waits for it.
        let _ = report.send(started);
        if let Some(runtime) = runtime {
            runtime.block_on(run(setup, ids));
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(work).map_err(failed("a worker's thread"))?;
    match reported.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(failed("a worker's runtime")(error)),
        Err(_) => Err(failed("a worker's runtime")(io::Error::other("it panicked"))),
    }
}

async fn run(setup: WorkerSetup, ids: RequestIds) {
    let WorkerSetup { number, workers, mut generations, mut stopped, state } = setup;
    let first = Arc::clone(&generations.borrow_and_update());
    let mut drain = first.drain;
    let gateway = Arc::clone(&first.gateway);
    let worker = Rc::new(Worker::new(number, gateway, ids, stopped.clone(), Arc::clone(state.tunnels())));
    let connections = TaskTracker::new();
    let mut acceptors = Acceptors {
        number,
        workers,
        worker: Rc::clone(&worker),
        connections: connections.clone(),
        running: Vec::new(),
        stopping: JoinSet::new(),
    };
    acceptors.switch_to(&first);
    drop(first);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            // A dropped sender counts as the signal.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            changed = generations.changed() => {
                if changed.is_err() {
                    break;
                }
                let generation = Arc::clone(&generations.borrow_and_update());
                drain = generation.drain;
                worker.swap(Arc::clone(&generation.gateway));
                acceptors.switch_to(&generation);
                generation.switched.add_permits(1);
            }
            _ = tick.tick() => {
                let now = Clock.mono();
                state.record_heartbeat(number, now);
                worker.snapshot().pools.iter().for_each(|pool| pool.sweep(now));
                while acceptors.stopping.try_join_next().is_some() {}
            }
        }
    }
    // From here on only the acceptors hold the sockets, so that the sockets close with the acceptors.
    drop(generations);
    acceptors.stop().await;
    connections.close();
    let tunnels = worker.tasks();
    tunnels.close();
    // The order matters, since connections start tunnels.
    let all_ended = async {
        connections.wait().await;
        tunnels.wait().await;
    };
    let mut draining = pin!(tokio::time::timeout(drain, all_ended));
    let ended = loop {
        tokio::select! {
            ended = draining.as_mut() => break ended,
            _ = tick.tick() => state.record_heartbeat(number, Clock.mono()),
        }
    };
    if ended.is_err() {
        let connections = connections.len() + tunnels.len();
        tracing::warn!(connections, "connections were still open at the drain timeout, and are closed");
    }
    state.record_end(number);
}

impl Acceptors {
    /// Starts and stops acceptors, so that there is one for each listener of `generation`.
    fn switch_to(&mut self, generation: &Generation) {
        let is_kept = |acceptor: &mut Acceptor| {
            generation.listeners.iter().any(|listener| Arc::ptr_eq(listener, &acceptor.listener))
        };
        let removed: Vec<_> = self.running.extract_if(.., |acceptor| !is_kept(acceptor)).collect();
        for listener in &generation.listeners {
            if !self.running.iter().any(|acceptor| Arc::ptr_eq(listener, &acceptor.listener)) {
                self.start(listener);
            }
        }
        for acceptor in removed {
            self.stopping.spawn_local(acceptor.stop());
        }
    }

    fn start(&mut self, listener: &Arc<Listener>) {
        let sockets = match listener.sockets_for_worker(self.number, self.workers) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::error!(address = %listener.address, %error, "a worker cannot accept connections");
                return;
            }
        };
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for socket in sockets {
            let context = AcceptorContext {
                listener: Arc::clone(listener),
                worker: Rc::clone(&self.worker),
                connections: self.connections.clone(),
                stopped: stopped.clone(),
            };
            tasks.spawn_local(accept(socket, context));
        }
        self.running.push(Acceptor { listener: Arc::clone(listener), stop, tasks });
    }

    /// Stops all acceptors, and waits until they have accepted the connections in their queues.
    async fn stop(mut self) {
        for acceptor in self.running.drain(..) {
            self.stopping.spawn_local(acceptor.stop());
        }
        while self.stopping.join_next().await.is_some() {}
    }
}

impl Acceptor {
    async fn stop(self) {
        let Self { listener, stop, mut tasks } = self;
        drop(listener);
        // The send fails if no task is left.
        let _ = stop.send(true);
        while tasks.join_next().await.is_some() {}
    }
}

/// Context shared by the tasks of an acceptor.
struct AcceptorContext {
    listener: Arc<Listener>,
    worker: Rc<Worker>,
    connections: TaskTracker,
    stopped: watch::Receiver<bool>,
}

/// Accepts connections from `socket` until the acceptor is stopped.
async fn accept(socket: ListenerSocket, mut context: AcceptorContext) {
    let socket = match AsyncListenerSocket::new(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "a listener failed");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            _ = context.stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok(accepted) => {
                let permit = context.acquire_permit().await;
                context.serve(accepted, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    if let Err(error) = accept_queued(socket, &context) {
        tracing::warn!(%error, "connections were lost when a listener was closed");
    }
}

/// Accepts the connections that are already in the kernel's queue, because closing the last socket of an address resets
/// them. Stops at the size of the queue, so that clients that keep connecting do not hold up the worker.
fn accept_queued(socket: AsyncListenerSocket, context: &AcceptorContext) -> io::Result<()> {
    let socket = socket.into_socket()?;
    for accepted in socket.accept_queued(MAX_QUEUED) {
        match accepted {
            Ok(accepted) => context.serve(accepted, context.listener.context.connections.acquire_now()),
            // The client has closed the connection meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl AcceptorContext {
    /// Waits for a permit, or until the acceptor is stopped. No other connection is accepted meanwhile.
    async fn acquire_permit(&mut self) -> ConnectionPermit {
        let connections = &self.listener.context.connections;
        tokio::select! {
            biased;
            permit = connections.acquire() => permit,
            _ = self.stopped.wait_for(|stopped| *stopped) => connections.acquire_now(),
        }
    }

    /// Serves an accepted connection in a separate task.
    fn serve(&self, (socket, peer_address): Accepted, permit: ConnectionPermit) {
        let accepted = AcceptedConnection { socket, peer_address, permit };
        let listener = Arc::clone(&self.listener.context);
        let (worker, stopped) = (Rc::clone(&self.worker), self.stopped.clone());
        // When the worker drains, it waits for the tasks of this tracker.
        self.connections.spawn_local(accepted_connection::serve(listener, accepted, worker, stopped));
    }
}
