//! A gate, with which a test blocks a task, waits until it is blocked, and releases it.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::within;

/// A gate that blocks tasks until the test opens it. Clones share one gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    arrivals: Arc<Semaphore>,
    barrier: Arc<Semaphore>,
}

impl Gate {
    /// Creates a closed gate.
    pub(crate) fn closed() -> Self {
        Self { arrivals: Arc::new(Semaphore::new(0)), barrier: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until the gate is open. An open gate stays open.
    pub(crate) async fn pass(&self) {
        self.arrivals.add_permits(1);
        // Opening closes the semaphore, which is the only way out of this wait.
        let _opened = self.barrier.acquire().await.is_err();
    }

    /// Waits until one more task has arrived at the gate.
    pub(crate) async fn wait_for_arrival(&self) {
        within("an arrival at the gate", self.arrivals.acquire()).await.expect("never closed").forget();
    }

    /// Opens the gate: all tasks pass, now and later.
    pub(crate) fn open(&self) {
        self.barrier.close();
    }
}
