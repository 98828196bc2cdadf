//! Serialization of the changes that this gateway makes to each session.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

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

impl Default for ChangeQueue {
    fn default() -> Self {
        Self {
            locks: std::array::from_fn(|_| Mutex::new(())),
            pending: std::sync::Mutex::default(),
            ended: quick_cache::sync::Cache::new(MAX_ENDED),
        }
    }
}

impl ChangeQueue {
    /// Returns the lock of a session. Several sessions may share one.
    pub(super) fn lock_of(&self, key: &Key) -> &Mutex<()> {
        let [first, ..] = &self.locks;
        let last = key.expose_bytes().last().copied().unwrap_or(0);
        self.locks.get(usize::from(last)).unwrap_or(first)
    }

    /// Adds edits to those that wait for the session's lock, and returns the receiver of their result.
    pub(super) fn add(
        &self,
        key: &Key,
        edits: Vec<Edit>,
    ) -> oneshot::Receiver<Result<MutationOutcome, ChangeError>> {
        let (result, receiver) = oneshot::channel();
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.entry(key.clone()).or_default().push(PendingEdits { edits, result });
        receiver
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
