//! A gate: the one way by which a test holds something up, sees that it is held, and lets it go on.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::within;

/// A place where others stop until the test opens it. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    arrivals: Arc<Semaphore>,
    barrier: Arc<Semaphore>,
}

impl Gate {
    /// A closed gate.
    pub(crate) fn closed() -> Self {
        Self { arrivals: Arc::new(Semaphore::new(0)), barrier: Arc::new(Semaphore::new(0)) }
    }

    /// Stops here until the gate is opened. Once open it stays open.
    pub(crate) async fn pass(&self) {
        self.arrivals.add_permits(1);
        // Opening closes the semaphore, which is the only way out of this wait.
        let _opened = self.barrier.acquire().await.is_err();
    }

    /// Waits until one more party has arrived at the gate.
    pub(crate) async fn arrival(&self) {
        within("an arrival at the gate", self.arrivals.acquire()).await.expect("never closed").forget();
    }

    /// Lets everyone through, now and later.
    pub(crate) fn open(&self) {
        self.barrier.close();
    }
}
