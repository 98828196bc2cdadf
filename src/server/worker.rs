//! A worker thread: accepts connections and serves them.

use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::LocalOptions;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::connection::Protocol;
use super::listener::Socket;
use super::{StartError, connection};
use crate::proxy::{Gateway, Peer, RequestIds, Worker};
use crate::time::Clock;

/// How often a worker closes connections that have been idle for too long.
const SWEEP: Duration = Duration::from_secs(1);
/// How long a worker waits when the system has no descriptor left for a connection, instead of asking again at once.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What a worker is made of.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) number: usize,
    /// The current configuration, made ready; each new one replaces it.
    pub(super) gateways: watch::Receiver<Arc<Gateway>>,
    pub(super) sockets: Vec<Socket>,
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) drain: Duration,
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
        Err(_) => Err(failed("a worker's runtime")(std::io::Error::other("it panicked"))),
    }
}

async fn run(mut seed: Seed, ids: RequestIds) {
    let gateway = Arc::clone(&seed.gateways.borrow_and_update());
    let worker = Rc::new(Worker::new(seed.number, gateway, ids));
    let connections = TaskTracker::new();
    let mut acceptors = tokio::task::JoinSet::new();
    for socket in seed.sockets {
        let (worker, connections, stopped) = (Rc::clone(&worker), connections.clone(), seed.stopped.clone());
        acceptors.spawn_local(async move {
            accept(socket, &worker, &connections, &stopped).await;
        });
    }
    let sweeper = Rc::clone(&worker);
    acceptors.spawn_local(async move {
        let mut tick = tokio::time::interval(SWEEP);
        loop {
            tick.tick().await;
            sweeper.snapshot().pools.iter().for_each(|pool| pool.sweep(Clock.mono()));
        }
    });
    let follower = Rc::clone(&worker);
    acceptors.spawn_local(async move {
        while seed.gateways.changed().await.is_ok() {
            let gateway = Arc::clone(&seed.gateways.borrow_and_update());
            follower.swap(gateway);
        }
    });
    let mut stopped = seed.stopped;
    // A sender that is gone means the same as being told.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    acceptors.shutdown().await;
    connections.close();
    if tokio::time::timeout(seed.drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut at the end of the drain");
    }
}

async fn accept(
    socket: Socket,
    worker: &Rc<Worker>,
    connections: &TaskTracker,
    stopped: &watch::Receiver<bool>,
) {
    let protocol = if socket.http2 { Protocol::Unknown } else { Protocol::Http1 };
    let listener = match TcpListener::from_std(socket.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener failed");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection was gone before it began");
                    continue;
                }
                let peer = Peer::new(address, &socket.trusted_proxies);
                let serving = connection::serve(stream, protocol, peer, Rc::clone(worker), stopped.clone());
                // Owned by the tracker, which waits for it at the end; it ends with the runtime at the latest.
                connections.spawn_local(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}
