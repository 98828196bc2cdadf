//! Single flight: many requests that need the same answer share one operation.
//!
//! The operation runs as a task of its own, so a client that hangs up cancels neither a read that others wait for nor
//! a write. If it panics, those who wait are told.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// The operations under way, by key.
pub(crate) struct Flights<K, V> {
    under_way: Mutex<HashMap<K, watch::Receiver<Option<V>>, foldhash::fast::RandomState>>,
    capacity: usize,
    tasks: TaskTracker,
    control: tokio::runtime::Handle,
}

/// A place in a flight: the answer, when it comes.
#[derive(Debug)]
pub(crate) struct Waiter<V>(watch::Receiver<Option<V>>);

impl<K: Eq + Hash + Clone + Send + 'static, V: Clone + Send + Sync + 'static> Flights<K, V> {
    /// At most `capacity` operations at a time, run on `control` and tracked by `tasks`.
    pub(crate) fn new(capacity: usize, control: tokio::runtime::Handle, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self { under_way: Mutex::default(), capacity, tasks, control })
    }

    /// How many operations are under way, and the bound.
    pub(crate) fn fill(&self) -> (u64, u64) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).len();
        (under_way as u64, self.capacity as u64)
    }

    /// Joins the flight of `key`, or starts it with `lead`. `None` if too many are under way.
    ///
    /// A flight is over as soon as `lead` has answered: who comes later starts another.
    pub(crate) fn join<F>(self: &Arc<Self>, key: &K, lead: impl FnOnce() -> F) -> Option<Waiter<V>>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = under_way.get(key) {
            return Some(Waiter(answer.clone()));
        }
        if under_way.len() >= self.capacity {
            return None;
        }
        let (sender, receiver) = watch::channel(None);
        under_way.insert(key.clone(), receiver.clone());
        drop(under_way);
        let (landing, operation) = (Landing { flights: Arc::clone(self), key: key.clone() }, lead());
        self.tasks.spawn_on(
            async move {
                let answer = operation.await;
                drop(landing);
                sender.send_replace(Some(answer));
            },
            &self.control,
        );
        Some(Waiter(receiver))
    }
}

impl<V: Clone> Waiter<V> {
    /// Waits for the answer. `None` if the operation ended without one, which only a panic does.
    pub(crate) async fn arrive(mut self) -> Option<V> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// The answer, if it is there already.
    pub(crate) fn peek(&self) -> Option<V> {
        self.0.borrow().clone()
    }
}

/// Takes a flight off the board, also when its operation panics.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<K, V> fmt::Debug for Flights<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn flights(capacity: usize) -> Arc<Flights<u8, u8>> {
        Flights::new(capacity, tokio::runtime::Handle::current(), TaskTracker::new())
    }

    #[tokio::test]
    async fn many_share_one() {
        let (flights, led) = (flights(8), Arc::new(AtomicUsize::new(0)));
        let (release, gate) = tokio::sync::oneshot::channel::<()>();
        let mut gate = Some(gate);
        let seats: Vec<_> = (0..100)
            .map(|_| {
                let (led, gate) = (Arc::clone(&led), gate.take());
                flights.join(&1, || async move {
                    led.fetch_add(1, Ordering::Relaxed);
                    gate.unwrap().await.unwrap();
                    7
                })
            })
            .collect();
        assert_eq!(seats[0].as_ref().unwrap().peek(), None);
        release.send(()).unwrap();
        for seat in seats {
            assert_eq!(seat.unwrap().arrive().await, Some(7));
        }
        assert_eq!(led.load(Ordering::Relaxed), 1);
        assert!(flights.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_panic_is_told_and_blocks_nobody_after_it() {
        let flights = flights(8);
        let seat = flights.join(&1, || async { panic!("on purpose") }).unwrap();
        assert_eq!(seat.arrive().await, None);
        assert_eq!(flights.join(&1, || async { 2 }).unwrap().arrive().await, Some(2));
    }

    #[tokio::test]
    async fn who_hangs_up_cancels_nothing() {
        let flights = flights(8);
        let (done, finished) = tokio::sync::oneshot::channel();
        drop(flights.join(&1, || async move {
            tokio::task::yield_now().await;
            done.send(()).unwrap();
            1
        }));
        finished.await.unwrap();
    }

    #[tokio::test]
    async fn the_board_is_bounded() {
        let flights = flights(1);
        let _first = flights.join(&1, std::future::pending).unwrap();
        assert!(flights.join(&2, std::future::pending).is_none());
        assert!(flights.join(&1, std::future::pending).is_some());
    }
}
