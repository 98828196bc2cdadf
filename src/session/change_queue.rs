//! Serialization of the changes that this gateway makes to each session.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::{Mutex, oneshot};

use super::edit::Edit;
use super::mutation::{ChangeError, MutationOutcome};
use crate::item::Key;

/// Maximum number of sessions that this gateway remembers having ended.
const MAX_ENDED: usize = 4096;
/// How long a session is remembered as ended. A second log-out within this time, such as from a double click, succeeds.
const ENDED_TTL: Duration = Duration::from_secs(60);

/// Serializes the changes of a session, which would otherwise conflict with each other.
#[derive(Debug)]
pub(super) struct ChangeQueue {
    locks: [Mutex<()>; 256],
    hasher: RandomState,
    /// The edits that wait for each session's lock. The task that acquires it writes all of them.
    pending: std::sync::Mutex<HashMap<Key, Vec<PendingEdits>>>,
    /// The sessions that this gateway has ended recently, with the time.
    ended: quick_cache::sync::Cache<Key, Instant>,
}

/// Edits that wait for their session's lock, and the sender of their outcome.
#[derive(Debug)]
pub(super) struct PendingEdits {
    pub(super) edits: Vec<Edit>,
    pub(super) result: oneshot::Sender<Result<MutationOutcome, ChangeError>>,
}

/// The receiver of the outcome of [`PendingEdits`]. If it is dropped before their session's lock was acquired, such as
/// after a timeout, they are never written: later changes may contradict them.
#[derive(Debug)]
pub(super) struct WaitingEdits<'q> {
    queue: &'q ChangeQueue,
    key: &'q Key,
    receiver: oneshot::Receiver<Result<MutationOutcome, ChangeError>>,
}

impl WaitingEdits<'_> {
    /// Returns the outcome, if the edits have been written.
    pub(super) fn outcome(&mut self) -> Option<Result<MutationOutcome, ChangeError>> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for WaitingEdits<'_> {
    fn drop(&mut self) {
        self.receiver.close();
        self.queue.remove_abandoned(self.key);
    }
}

impl Default for ChangeQueue {
    fn default() -> Self {
        Self {
            locks: std::array::from_fn(|_| Mutex::new(())),
            hasher: RandomState::default(),
            pending: std::sync::Mutex::default(),
            ended: quick_cache::sync::Cache::new(MAX_ENDED),
        }
    }
}

impl ChangeQueue {
    /// Returns the lock of a session. Several sessions may share one.
    pub(super) fn lock_of(&self, key: &Key) -> &Mutex<()> {
        let [first, ..] = &self.locks;
        let at = usize::try_from(self.hasher.hash_one(key) % 256).unwrap_or(0);
        self.locks.get(at).unwrap_or(first)
    }

    /// Adds edits to those that wait for the session's lock.
    pub(super) fn add<'q>(&'q self, key: &'q Key, edits: Vec<Edit>) -> WaitingEdits<'q> {
        let (result, receiver) = oneshot::channel();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.entry(key.clone()).or_default().push(PendingEdits { edits, result });
        WaitingEdits { queue: self, key, receiver }
    }

    /// Removes the edits that nobody waits for any more.
    fn remove_abandoned(&self, key: &Key) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(waiting) = pending.get_mut(key) else { return };
        waiting.retain(|edits| !edits.result.is_closed());
        if waiting.is_empty() {
            pending.remove(key);
        }
    }

    /// Removes and returns the edits that wait for the session's lock.
    pub(super) fn take(&self, key: &Key) -> Vec<PendingEdits> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default()
    }

    /// Records that this gateway has ended the session.
    pub(super) fn record_end(&self, key: &Key, now: Instant) {
        self.ended.insert(key.clone(), now);
    }

    /// Returns whether this gateway has ended the session recently.
    pub(super) fn has_ended(&self, key: &Key, now: Instant) -> bool {
        self.ended.get(key).is_some_and(|at| now.saturating_duration_since(at) < ENDED_TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_whose_keys_end_alike_have_different_locks() {
        let queue = ChangeQueue::default();
        let locks = (0..1000).map(|id| queue.lock_of(&Key::string(&format!("{id}:session"))));
        let mut locks: Vec<_> = locks.map(std::ptr::from_ref).collect();
        locks.sort_unstable();
        locks.dedup();
        assert!(locks.len() > 200, "{}", locks.len());
        let key = Key::string("a");
        assert!(std::ptr::eq(queue.lock_of(&key), queue.lock_of(&key.clone())));
    }

    #[test]
    fn edits_that_nobody_waits_for_are_not_written() {
        let (queue, key) = (ChangeQueue::default(), Key::string("a"));
        let abandoned = queue.add(&key, Vec::new());
        let mut waiting = queue.add(&key, Vec::new());
        drop(abandoned);
        let pending = queue.take(&key);
        assert_eq!(pending.len(), 1);
        for edits in pending {
            edits.result.send(Err(ChangeError::Conflict)).unwrap();
        }
        assert!(matches!(waiting.outcome(), Some(Err(ChangeError::Conflict))));
        drop(queue.add(&key, Vec::new()));
        assert!(queue.pending.lock().unwrap().is_empty());
    }
}
