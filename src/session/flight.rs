//! Single flight: concurrent requests that need the same result share one operation.
//!
//! The operation runs in a separate task, so a client that disconnects cancels neither a read that others wait for nor a
//! write. If the operation panics, its waiters get no result.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The operations in progress, by key.
pub(crate) struct SingleFlight<K, V> {
    in_progress: Mutex<HashMap<K, watch::Receiver<Option<V>>, foldhash::fast::RandomState>>,
    capacity: usize,
    tasks: TaskTracker,
    control: tokio::runtime::Handle,
}

/// Waits for the result of an operation.
#[derive(Debug)]
pub(crate) struct Waiter<V>(watch::Receiver<Option<V>>);

impl<K: Eq + Hash + Clone + Send + 'static, V: Clone + Send + Sync + 'static> SingleFlight<K, V> {
    /// Allows `capacity` concurrent operations, which run on `control` and are tracked by `tasks`.
    pub(crate) fn new(capacity: usize, control: tokio::runtime::Handle, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { in_progress: Mutex::default(), capacity, tasks, control })
    }

    /// Returns the number of operations in progress, and its limit.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let in_progress = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner).len();
        (in_progress as u64, self.capacity as u64)
    }

    /// Joins the operation of `key`, or starts it. Returns `None` if too many operations are in progress.
    ///
    /// Calls after the operation has finished start another one.
    pub(crate) fn join<F>(self: &Arc<Self>, key: &K, start: impl FnOnce() -> F) -> Option<Waiter<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        match self.try_join(key, || Ok::<_, Infallible>(start())) {
            Ok(waiter) => waiter,
            Err(never) => match never {},
        }
    }

    /// Like [`join`](Self::join), but `start` may refuse to start an operation. It must not block.
    ///
    /// # Errors
    /// Returns the error of `start`.
    pub(crate) fn try_join<F, E>(
        self: &Arc<Self>,
        key: &K,
        start: impl FnOnce() -> Result<F, E>,
    ) -> Result<Option<Waiter<V>>, E>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut in_progress = self.in_progress.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = in_progress.get(key) {
            return Ok(Some(Waiter(result.clone())));
        }
        if in_progress.len() >= self.capacity {
            return Ok(None);
        }
        let operation = start()?;
        let (sender, receiver) = watch::channel(None);
        in_progress.insert(key.clone(), receiver.clone());
        drop(in_progress);
        let guard = RemovalGuard { operations: Arc::clone(self), key: key.clone() };
        self.tasks.spawn_on(
            async move {
                let result = operation.await;
                drop(guard);
                sender.send_replace(Some(result));
            },
            &self.control,
        );
        Ok(Some(Waiter(receiver)))
    }
}

impl<V: Clone> Waiter<V> {
    /// Waits for the result. Returns `None` if the operation panicked.
    pub(crate) async fn wait(mut self) -> Option<V> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Returns the result if the operation has finished.
    pub(crate) fn result(&self) -> Option<V> {
        self.0.borrow().clone()
    }
}

/// Removes an operation from those in progress, even if it panics.
struct RemovalGuard<K: Eq + Hash, V> {
    operations: Arc<SingleFlight<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for RemovalGuard<K, V> {
    fn drop(&mut self) {
        self.operations.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn single_flight(capacity: usize) -> Arc<SingleFlight<u8, u8>> {
        SingleFlight::new(capacity, tokio::runtime::Handle::current(), TaskTracker::new())
    }

    #[tokio::test]
    async fn concurrent_calls_share_one_operation() {
        let (operations, started) = (single_flight(8), Arc::new(AtomicUsize::new(0)));
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let mut gate = Some(gate);
        let waiters: Vec<_> = (0..100)
            .map(|_| {
                let (started, gate) = (Arc::clone(&started), gate.take());
                operations.join(&1, || async move {
                    started.fetch_add(1, Ordering::Relaxed);
                    gate.unwrap().await.unwrap();
                    7
                })
            })
            .collect();
        assert_eq!(waiters[0].as_ref().unwrap().result(), None);
        release.send(()).unwrap();
        for waiter in waiters {
            assert_eq!(waiter.unwrap().wait().await, Some(7));
        }
        assert_eq!(started.load(Ordering::Relaxed), 1);
        assert!(operations.in_progress.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn after_a_panic_the_next_call_starts_another_operation() {
        let operations = single_flight(8);
        let waiter = operations.join(&1, || async { panic!("on purpose") }).unwrap();
        assert_eq!(waiter.wait().await, None);
        assert_eq!(operations.join(&1, || async { 2 }).unwrap().wait().await, Some(2));
    }

    #[tokio::test]
    async fn dropping_the_waiter_does_not_cancel_the_operation() {
        let operations = single_flight(8);
        let (done, finished) = tokio::sync::oneshot::channel();
        drop(operations.join(&1, || async move {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
            1
        }));
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn number_of_operations_is_limited() {
        let operations = single_flight(1);
        let _first = operations.join(&1, std::future::pending).unwrap();
        assert!(operations.join(&2, std::future::pending).is_none());
        assert!(operations.join(&1, std::future::pending).is_some());
    }

    #[tokio::test]
    async fn operation_that_is_refused_is_not_in_progress() {
        let operations = single_flight(8);
        let refused = operations.try_join(&1, || Err::<std::future::Pending<u8>, _>("no"));
        assert_eq!(refused.err(), Some("no"));
        assert_eq!(operations.usage().0, 0);
        assert_eq!(operations.join(&1, || async { 2 }).unwrap().wait().await, Some(2));
    }
}
