//! A worker thread: accepts connections and serves them, as the configuration in force says.
//!
//! What a worker accepts on follows the configuration: a listener that is new gets an acceptor, one that is gone loses
//! its own. Nobody is left behind on an address that goes: who is in the system's queue already is taken in, and every
//! connection is told to end after its next answer.

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

use super::arrival::{self, AcceptedConnection};
use super::connections::ConnectionPermit;
use super::error::StartError;
use super::generation::Generation;
use super::listener::Listener;
use super::listener_socket::{Accepted, AsyncListenerSocket, ListenerSocket, MAX_QUEUED};
use super::state::State;
use crate::proxy::{RequestIds, Worker};
use crate::time::Clock;

/// How often a worker closes connections that have been idle for too long, and reports that it is alive.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a worker waits when the system has no descriptor left for a connection, instead of asking again at once.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) number: usize,
    /// How many workers there are.
    pub(super) workers: usize,
    /// The configuration in force; each new one replaces it.
    pub(super) generations: watch::Receiver<Arc<Generation>>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) state: Arc<State>,
}

/// What a worker accepts on.
struct Acceptors {
    number: usize,
    workers: usize,
    worker: Rc<Worker>,
    connections: TaskTracker,
    running: Vec<Acceptor>,
    /// Those that have been stopped and may still be emptying their queues.
    ending: JoinSet<()>,
}

/// One listener's share of a worker.
struct Acceptor {
    listener: Arc<Listener>,
    /// Told to its connections, too.
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Starts a worker.
pub(super) fn spawn(seed: Seed) -> Result<JoinHandle<()>, StartError> {
    let failed = |what| move |error| StartError::System { what, error };
    let ids = RequestIds::new().map_err(|error| failed("randomness")(error.into()))?;
    let name = format!("worker-{}", seed.number);
    let (report, reported) = std::sync::mpsc::sync_channel(1);
    let work = move || {
        // A runtime for tasks that stay on their thread has to be made there.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let (started, runtime) = match runtime {
            Ok(runtime) => (Ok(()), Some(runtime)),
            Err(error) => (Err(error), None),
        };
        // Whoever started the thread waits for this.
        let _ = report.send(started);
        if let Some(runtime) = runtime {
            runtime.block_on(run(seed, ids));
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(work).map_err(failed("a worker's thread"))?;
    match reported.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(failed("a worker's runtime")(error)),
        Err(_) => Err(failed("a worker's runtime")(io::Error::other("it panicked"))),
    }
}

async fn run(seed: Seed, ids: RequestIds) {
    let Seed { number, workers, mut generations, mut stopped, state } = seed;
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
        ending: JoinSet::new(),
    };
    acceptors.follow(&first);
    drop(first);
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            // A sender that is gone means the same as being told.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            changed = generations.changed() => {
                if changed.is_err() {
                    break;
                }
                let generation = Arc::clone(&generations.borrow_and_update());
                drain = generation.drain;
                worker.swap(Arc::clone(&generation.gateway));
                acceptors.follow(&generation);
                generation.followed.add_permits(1);
            }
            _ = tick.tick() => {
                let now = Clock.mono();
                state.beat(number, now);
                worker.snapshot().pools.iter().for_each(|pool| pool.sweep(now));
                while acceptors.ending.try_join_next().is_some() {}
            }
        }
    }
    // Nothing but the acceptors may hold the sockets, or connections would go on queueing up behind them.
    drop(generations);
    acceptors.stop().await;
    connections.close();
    let tunnels = worker.tasks();
    tunnels.close();
    // In this order: a connection makes no tunnel any more once it is gone.
    let all = async {
        connections.wait().await;
        tunnels.wait().await;
    };
    let mut last = pin!(tokio::time::timeout(drain, all));
    let ended = loop {
        tokio::select! {
            ended = last.as_mut() => break ended,
            _ = tick.tick() => state.beat(number, Clock.mono()),
        }
    };
    if ended.is_err() {
        let connections = connections.len() + tunnels.len();
        tracing::warn!(connections, "connections were cut at the end of the drain");
    }
}

impl Acceptors {
    /// Accepts on the listeners of `generation` and no others.
    fn follow(&mut self, generation: &Generation) {
        let stays = |acceptor: &mut Acceptor| {
            generation.listeners.iter().any(|listener| Arc::ptr_eq(listener, &acceptor.listener))
        };
        let gone: Vec<_> = self.running.extract_if(.., |acceptor| !stays(acceptor)).collect();
        for listener in &generation.listeners {
            if !self.running.iter().any(|acceptor| Arc::ptr_eq(listener, &acceptor.listener)) {
                self.start(listener);
            }
        }
        for acceptor in gone {
            self.ending.spawn_local(acceptor.end());
        }
    }

    fn start(&mut self, listener: &Arc<Listener>) {
        let sockets = match listener.of_worker(self.number, self.workers) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::error!(address = %listener.address, %error, "a worker cannot accept connections");
                return;
            }
        };
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for socket in sockets {
            let door = AcceptorContext {
                listener: Arc::clone(listener),
                worker: Rc::clone(&self.worker),
                connections: self.connections.clone(),
                stopped: stopped.clone(),
            };
            tasks.spawn_local(accept(socket, door));
        }
        self.running.push(Acceptor { listener: Arc::clone(listener), stop, tasks });
    }

    /// Accepts nothing any more but what is in the queues.
    async fn stop(mut self) {
        for acceptor in self.running.drain(..) {
            self.ending.spawn_local(acceptor.end());
        }
        while self.ending.join_next().await.is_some() {}
    }
}

impl Acceptor {
    async fn end(self) {
        let Self { listener, stop, mut tasks } = self;
        drop(listener);
        // Its acceptors may have failed.
        let _ = stop.send(true);
        while tasks.join_next().await.is_some() {}
    }
}

/// What becomes of connections that are accepted.
struct AcceptorContext {
    listener: Arc<Listener>,
    worker: Rc<Worker>,
    connections: TaskTracker,
    stopped: watch::Receiver<bool>,
}

async fn accept(socket: ListenerSocket, mut door: AcceptorContext) {
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
            _ = door.stopped.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok(accepted) => {
                let place = door.place().await;
                door.enter(accepted, place);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
    if let Err(error) = last(socket, &door) {
        tracing::warn!(%error, "connections were lost when a listener was closed");
    }
}

/// Takes in who is in the system's queue already: the last socket of an address that is closed resets them, though they
/// have been told that they are connected. No more than the queue holds, so that a crowd without end keeps no worker.
fn last(socket: AsyncListenerSocket, door: &AcceptorContext) -> io::Result<()> {
    let socket = socket.into_socket()?;
    for accepted in socket.accept_queued(MAX_QUEUED) {
        match accepted {
            Ok(accepted) => door.enter(accepted, door.listener.entrance.connections.enter_now()),
            // Gone between its connecting and now.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl AcceptorContext {
    /// Waits for a place, and accepts nobody else meanwhile; but not beyond the listener's end.
    async fn place(&mut self) -> ConnectionPermit {
        let connections = &self.listener.entrance.connections;
        tokio::select! {
            biased;
            place = connections.enter() => place,
            _ = self.stopped.wait_for(|stopped| *stopped) => connections.enter_now(),
        }
    }

    fn enter(&self, (socket, address): Accepted, place: ConnectionPermit) {
        let arrival = AcceptedConnection { socket, address, place };
        let entrance = Arc::clone(&self.listener.entrance);
        let (worker, stopped) = (Rc::clone(&self.worker), self.stopped.clone());
        // Owned by the tracker, which waits for it at the end; it ends with the runtime at the latest.
        self.connections.spawn_local(arrival::receive(entrance, arrival, worker, stopped));
    }
}
