//! The wait for room at servers that have as many requests as they may have: bounded in number and time, and in the
//! order of arrival at each server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::FutureExt as _;
use futures_util::future::select_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Queue;

/// A server has no room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Full;

/// Counts a request while it waits.
struct Waiting<'q>(&'q AtomicUsize);

/// Waits for room at one of `servers`.
///
/// # Errors
/// Which bound of the queue was met.
pub(super) async fn wait(
    queued: &AtomicUsize,
    queue: &Queue,
    servers: impl Iterator<Item = (usize, Arc<Semaphore>)>,
) -> Result<(usize, OwnedSemaphorePermit), &'static str> {
    let before = queued.fetch_add(1, Relaxed);
    let _waiting = Waiting(queued);
    if before >= queue.size {
        return Err("the queue is full");
    }
    let room: Vec<_> = servers
        .map(|(index, permits)| permits.acquire_owned().map(move |permit| (index, permit)).boxed())
        .collect();
    if room.is_empty() {
        return Err("there is nothing to wait for");
    }
    // The others are given up, and what they may have been given just now goes to who is next.
    match tokio::time::timeout(queue.timeout, select_all(room)).await {
        Ok(((index, Ok(permit)), ..)) => Ok((index, permit)),
        // Nobody closes these.
        Ok(((_, Err(_)), ..)) => Err("the server is gone"),
        Err(_) => Err("the wait was too long"),
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
