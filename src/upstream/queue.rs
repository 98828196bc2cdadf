//! The queue of requests that wait while every server has `max_connections` requests in flight. Its size and the wait are
//! limited. Each server takes requests in order of arrival.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Queue;

/// Error: the server has reached its limit of requests in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

/// Counts a request as queued until dropped.
struct QueuedCount<'q>(&'q AtomicUsize);

/// Waits for a permit of any of `servers`, and returns it with the index of its server.
///
/// # Errors
/// Returns the reason if the queue is full or the wait times out.
pub(super) async fn wait(
    queued: &AtomicUsize,
    queue: &Queue,
    servers: impl Iterator<Item = (usize, Arc<Semaphore>)>,
) -> Result<(usize, OwnedSemaphorePermit), &'static str> {
    let queued_before = queued.fetch_add(1, Relaxed);
    let _count = QueuedCount(queued);
    if queued_before >= queue.size {
        return Err("the queue is full");
    }
    let permits: Vec<_> = servers
        .map(|(index, permits)| permits.acquire_owned().map(move |permit| (index, permit)).boxed())
        .collect();
    if permits.is_empty() {
        return Err("there is no server to wait for");
    }
    // Dropping the other futures releases any permits that they have acquired to the next waiter.
    match tokio::time::timeout(queue.timeout, select_all(permits)).await {
        Ok(((index, Ok(permit)), ..)) => Ok((index, permit)),
        // Cannot happen, since these semaphores are never closed.
        Ok(((_, Err(_)), ..)) => Err("the server was removed"),
        Err(_) => Err("timed out in the queue"),
    }
}

impl Drop for QueuedCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
