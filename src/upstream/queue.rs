//! The queue of requests that wait while every server has `max_connections` requests in flight. It is limited in size
//! and time, and first in, first out for each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Queue;

/// A server has as many requests in flight as it may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

/// Counts a request as queued until dropped.
struct QueuedCount<'q>(&'q AtomicUsize);

/// Waits for a permit of one of `servers`. Returns it with the index of its server.
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
        return Err("no server can be waited for");
    }
    // Dropping the other futures passes permits that they may have got to the next waiter.
    match tokio::time::timeout(queue.timeout, select_all(permits)).await {
        Ok(((index, Ok(permit)), ..)) => Ok((index, permit)),
        // These semaphores are never closed.
        Ok(((_, Err(_)), ..)) => Err("the server is gone"),
        Err(_) => Err("timed out in the queue"),
    }
}

impl Drop for QueuedCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
