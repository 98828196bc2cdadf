//! Changes of a session, by an upstream or to prepare a request: edits of its claims, a new id, or its end.
//!
//! 1. A write is conditional on the row that the change was computed from. If the row was modified concurrently, the change
//!    is computed again from the current row. So changes of different claims are all kept, and the last change of a claim
//!    wins. An upstream's edits that would change nothing in a cached row are compared with the current row, too, by a
//!    strongly consistent read.
//! 2. A late change does not revive a session that has ended.
//! 3. A rotation creates the new row and retires the old one in one transaction. The claims of a log-in are never stored
//!    under the old id, which an attacker may know (session fixation).
//! 4. A log-out ends the session even if its id has changed: it follows retired rows to the current one. In formats whose
//!    rotations delete the old row, a log-out that finds no row is a conflict, since the session may be alive under another
//!    id.
//! 5. Edits of one session by upstreams that wait in one gateway are combined into one write, unless they come with an
//!    action or a required version.
//! 6. The write runs in a separate task, so a client that disconnects does not cancel it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Instrument as _;

use super::cache::CacheResult;
use super::change_queue::PendingEdits;
use super::create::{NewRow, new_row};
use super::destroy::{Destroyed, delete_current, delete_retired, destroy};
use super::edit::{self, Edit, EditedClaims};
use super::judge::{SessionVerdict, judge};
use super::lookup::DecodedRow;
use super::mutation::{Action, ChangeError, MutationOutcome, SessionMutation, UpdatedSession};
use super::realm::Realm;
use super::resolution::Active;
use super::state::Session;
use crate::claims::Claims;
use crate::format::{ChangeTimes, SessionId, SessionRecord};
use crate::item::{Item, Key};
use crate::store::StoreError;
use crate::store::rotation::{Retirement, RotationOutcome};
use crate::store::table::{ConditionalWrite, CreateOutcome, Read};
use crate::time::Now;

/// Maximum number of attempts of a change whose row is modified concurrently.
const MAX_ATTEMPTS: usize = 50;
/// Maximum backoff between attempts.
const MAX_BACKOFF: Duration = Duration::from_millis(20);
/// Timeout for a change, including the wait for other changes of the session.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The time until the rows of an ended session are deleted again if their delete failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

impl Realm {
    /// Applies `mutation` to the session of a request, or creates a session if it has none.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(
        self: &Arc<Self>,
        active: Option<&Active>,
        mutation: SessionMutation,
    ) -> Result<MutationOutcome, ChangeError> {
        let known = active.map(|active| (active.id.clone(), Arc::clone(&active.session)));
        let realm = Arc::clone(self);
        let change = async move {
            let applied = realm.apply(known, mutation);
            tokio::time::timeout(TIMEOUT, applied).await.unwrap_or(Err(ChangeError::Unfinished))
        };
        let change = change.instrument(tracing::debug_span!("change", realm = %self.name));
        // The task has no result only if it panics.
        let changed =
            self.tasks.spawn_on(change, &self.control).await.unwrap_or(Err(ChangeError::Unfinished));
        self.metrics.changes.count(match &changed {
            Ok(outcome) => outcome.label(),
            Err(error) => error.label(),
        });
        changed
    }

    async fn apply(
        self: &Arc<Self>,
        known: Option<(SessionId, Arc<Session>)>,
        mutation: SessionMutation,
    ) -> Result<MutationOutcome, ChangeError> {
        let Some((id, session)) = known else {
            return match mutation.action {
                Some(Action::Destroy) => Ok(MutationOutcome::Ended),
                _ if mutation.if_version.is_some() => Err(ChangeError::Conflict),
                _ => self.create_from(&mutation.edits).await,
            };
        };
        let is_plain = mutation.action.is_none() && mutation.if_version.is_none();
        if is_plain && mutation.edits.iter().all(|edit| matches!(edit, Edit::Apply { .. })) {
            return self.edit(&id, &session, mutation.edits).await;
        }
        let _guard = self.changes.lock_of(&session.key).lock().await;
        self.apply_locked(&id, &session, &mutation).await
    }

    /// Edits the session, combined with the other edits that wait for its lock.
    async fn edit(
        self: &Arc<Self>,
        id: &SessionId,
        session: &Arc<Session>,
        edits: Vec<Edit>,
    ) -> Result<MutationOutcome, ChangeError> {
        let mut waiting = self.changes.add(&session.key, edits);
        let _guard = self.changes.lock_of(&session.key).lock().await;
        if let Some(outcome) = waiting.outcome() {
            return outcome;
        }
        let pending = self.changes.take(&session.key);
        let all = pending.iter().flat_map(|pending| pending.edits.clone()).collect();
        let combined = SessionMutation { edits: all, ..SessionMutation::default() };
        let combined = self.apply_locked(id, session, &combined).await;
        let write_each = matches!(combined, Err(ChangeError::Unwritable(_))) && pending.len() > 1;
        for PendingEdits { edits, result } in pending {
            let outcome = if write_each {
                // One of the edits may be the cause, and the others must not fail with it.
                let mutation = SessionMutation { edits, ..SessionMutation::default() };
                self.apply_locked(id, session, &mutation).await
            } else {
                combined.clone()
            };
            // If the receiver is dropped, its request was cancelled.
            let _ = result.send(outcome);
        }
        waiting.outcome().unwrap_or(Err(ChangeError::Unfinished))
    }

    /// Applies `mutation` with the session's lock held.
    async fn apply_locked(
        self: &Arc<Self>,
        id: &SessionId,
        known: &Arc<Session>,
        mutation: &SessionMutation,
    ) -> Result<MutationOutcome, ChangeError> {
        // The previous holder of the lock has cached what it wrote. The write's condition detects other gateways' changes.
        let mut session = match self.cache.get(&known.key, known.record.version, self.clock.mono()) {
            CacheResult::Fresh(newer) | CacheResult::Stale(newer, _) => newer,
            CacheResult::Absent | CacheResult::Miss => Arc::clone(known),
        };
        if mutation.action == Some(Action::Destroy) && mutation.if_version.is_none() {
            return self.destroy(&session).await;
        }
        let version = session.record.version;
        let mut is_current = false;
        if mutation.if_version.is_some_and(|required| required != version) {
            // The upstream may have seen a newer version through another gateway.
            session = self.read_current(&session).await?;
            is_current = true;
        }
        // An upstream's edits that change nothing in a cached row may change the current one. The gateway's own edits only
        // take out or add what the request needs.
        let is_by_upstream = mutation.edits.iter().any(|edit| matches!(edit, Edit::Apply { .. }));
        for conflicts in 0..MAX_ATTEMPTS {
            back_off(conflicts).await;
            self.check_changeable(&session, mutation)?;
            let attempt = match mutation.action {
                Some(Action::Destroy) => self.end(&session).await?,
                action => match edit::apply(&session.record.claims, &mutation.edits) {
                    // Frameworks write empty claims to mark a session that was logged out.
                    Some(edited) if edited.claims.is_empty() => self.end(&session).await?,
                    None if action.is_none() && is_by_upstream && !is_current => {
                        Attempt::Conflict(self.read_current(&session).await?)
                    }
                    None if action.is_none() && session.record.version == version => {
                        return Ok(MutationOutcome::Unchanged);
                    }
                    // Another writer has just written the same, so the browser needs a cookie with the new version.
                    None if action.is_none() => return Ok(self.finish(id.clone(), session, Vec::new())),
                    edited => {
                        let edited =
                            edited.unwrap_or_else(|| EditedClaims::unchanged(&session.record.claims));
                        match action {
                            Some(Action::Rotate) => self.rotate(&session, edited).await?,
                            _ => self.rewrite(id, &session, edited).await?,
                        }
                    }
                },
            };
            match attempt {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Conflict(current) => (session, is_current) = (current, true),
            }
        }
        Err(ChangeError::Conflict)
    }

    /// Checks that the session is live, not retired, and has the version that `mutation` requires.
    fn check_changeable(&self, session: &Session, mutation: &SessionMutation) -> Result<(), ChangeError> {
        let is_live =
            matches!(judge(&self.policy, &session.record, self.clock.now().wall), SessionVerdict::Live(_));
        let has_version = mutation.if_version.is_none_or(|version| version == session.record.version);
        if is_live && has_version && !session.record.retired { Ok(()) } else { Err(ChangeError::Conflict) }
    }

    /// Creates a session whose claims are the result of `edits`.
    async fn create_from(&self, edits: &[Edit]) -> Result<MutationOutcome, ChangeError> {
        let edited = edit::apply(&Claims::new(), edits);
        let Some(edited) = edited.filter(|edited| !edited.claims.is_empty()) else {
            return Ok(MutationOutcome::Unchanged);
        };
        let Now { wall, mono } = self.clock.now();
        let NewRow { id, record, item } = new_row(&*self.format, &self.policy, edited.claims, None, wall)?;
        match self.table.create(item).await.map_err(ChangeError::from)? {
            CreateOutcome::AlreadyExists => Err(ChangeError::IdExists),
            CreateOutcome::Created => Ok(self.finish_new(id, record, edited.flash, mono)),
        }
    }

    async fn rewrite(
        &self,
        id: &SessionId,
        session: &Session,
        edited: EditedClaims,
    ) -> Result<Attempt, ChangeError> {
        let Now { wall, mono } = self.clock.now();
        let times = ChangeTimes { now: wall, expires: self.policy.deadline(session.record.created, wall) };
        let change = self.format.change(&session.record, edited.claims, times)?;
        let written = self.table.change(&session.key, &change.update).await;
        if !matches!(written, Ok(ConditionalWrite::Done)) {
            self.cache.invalidate(&session.key);
        }
        match written? {
            ConditionalWrite::Done => {
                let record = change.record;
                // Other attributes of the row count, too, so its size before the change is the minimum.
                let size = session.size.max(claims_size(&record));
                let session = Arc::new(self.session(session.key.clone(), record, size, mono));
                Ok(Attempt::Done(self.finish(id.clone(), session, edited.flash)))
            }
            ConditionalWrite::Refused(row) => Ok(Attempt::Conflict(self.current(session, row)?)),
        }
    }

    async fn rotate(&self, session: &Session, edited: EditedClaims) -> Result<Attempt, ChangeError> {
        let Now { wall, mono } = self.clock.now();
        let new = new_row(&*self.format, &self.policy, edited.claims, Some(session), wall)?;
        let NewRow { id, record, item } = new;
        let until = wall.plus(self.rotation_grace);
        let successor = self.format.key(&id);
        let retired = self.format.retire(&session.record, until.min(session.record.expires), &successor);
        let retirement = match retired {
            Some(update) => Retirement::Update(update),
            None => Retirement::Delete(self.format.unchanged(&session.record)),
        };
        let rotated = self.table.rotate(item, &session.key, &retirement).await;
        self.cache.invalidate(&session.key);
        match self.checked_after_failure(&session.key, rotated)? {
            RotationOutcome::Done => {
                self.monitors.rename(&session.key, &successor);
                Ok(Attempt::Done(self.finish_new(id, record, edited.flash, mono)))
            }
            RotationOutcome::KeyExists => Err(ChangeError::IdExists),
            RotationOutcome::Refused => {
                let row = self.table.get(&session.key, Read::Strong).await?;
                Ok(Attempt::Conflict(self.current(session, row)?))
            }
        }
    }

    /// Ends the session if its row is unchanged.
    async fn end(self: &Arc<Self>, session: &Session) -> Result<Attempt, ChangeError> {
        let deleted = self.table.delete(&session.key, &self.format.unchanged(&session.record)).await;
        self.cache.invalidate(&session.key);
        match self.checked_after_failure(&session.key, deleted)? {
            ConditionalWrite::Refused(row) => Ok(Attempt::Conflict(self.current(session, row)?)),
            ConditionalWrite::Done => {
                self.record_end(&session.key);
                self.delete_retired(session.record.predecessor.as_deref().cloned()).await?;
                Ok(Attempt::Done(MutationOutcome::Ended))
            }
        }
    }

    /// Ends the session even if its row or its id has changed.
    async fn destroy(self: &Arc<Self>, session: &Session) -> Result<MutationOutcome, ChangeError> {
        let mut retired = session.record.predecessor.as_deref().cloned();
        let destroyed = delete_current(&*self.format, &self.table, &session.key, &mut retired).await;
        self.cache.invalidate(&session.key);
        if destroyed.is_err() {
            self.retry_destroy(session);
        }
        match self.checked_after_failure(&session.key, destroyed)? {
            Destroyed::Deleted(key) => {
                self.record_end(&session.key);
                self.record_end(&key);
                self.delete_retired(retired).await?;
                Ok(MutationOutcome::Ended)
            }
            Destroyed::Absent => {
                let deleted = self.delete_retired(retired).await;
                let was_ended = self.changes.has_ended(&session.key, self.clock.mono());
                if !was_ended && !self.has_certainly_ended(session) {
                    return Err(ChangeError::Conflict);
                }
                self.record_end(&session.key);
                deleted?;
                Ok(MutationOutcome::Ended)
            }
            Destroyed::StillAlive => Err(ChangeError::Conflict),
        }
    }

    /// Ends the session in the background. Its row may have been deleted already, and then another log-out would find neither
    /// the session nor its retired rows.
    fn retry_destroy(self: &Arc<Self>, session: &Session) {
        let (realm, key) = (Arc::clone(self), session.key.clone());
        let predecessor = session.record.predecessor.as_deref().cloned();
        let retry = async move {
            tokio::time::sleep(RETRY_DELAY).await;
            match destroy(&*realm.format, &realm.table, &key, predecessor.as_ref()).await {
                Ok(Destroyed::Deleted(_) | Destroyed::Absent) => realm.record_end(&key),
                Ok(Destroyed::StillAlive) => {}
                Err(error) => tracing::warn!(realm = %realm.name, %error, "a session could not be ended"),
            }
        };
        self.tasks.spawn_on(retry, &self.control);
    }

    /// Deletes the retired rows of a session that has ended, from `newest` to the oldest. If that fails, tries once more in
    /// the background, since another log-out finds no session and so no retired rows.
    async fn delete_retired(self: &Arc<Self>, newest: Option<Key>) -> Result<(), StoreError> {
        let mut next = newest;
        let deleted = delete_retired(&*self.format, &self.table, &mut next).await;
        if deleted.is_err() {
            let realm = Arc::clone(self);
            let retry = async move {
                tokio::time::sleep(RETRY_DELAY).await;
                if let Err(error) = delete_retired(&*realm.format, &realm.table, &mut next).await {
                    tracing::warn!(realm = %realm.name, %error, "the old id of an ended session can be read until it expires");
                }
            };
            self.tasks.spawn_on(retry, &self.control);
        }
        deleted
    }

    /// Returns `written`. If it is an error, the write may have ended the session, so its monitors check it now.
    fn checked_after_failure<T>(&self, key: &Key, written: Result<T, StoreError>) -> Result<T, StoreError> {
        if written.is_err() {
            self.monitors.check_now(key, self.clock.mono());
        }
        written
    }

    /// Returns whether a session without a row has certainly ended. If its id had changed since it was read, there would be
    /// a retired row, which only a log-out deletes within `rotation_grace`. Half of that is a margin for clock differences
    /// and eventually consistent reads.
    fn has_certainly_ended(&self, session: &Session) -> bool {
        let now = self.clock.now();
        let age = now.mono.saturating_duration_since(session.known_at);
        let is_alive = matches!(judge(&self.policy, &session.record, now.wall), SessionVerdict::Live(_));
        self.format.keeps_retired_rows() && is_alive && age < self.rotation_grace / 2
    }

    /// Records that the session has ended, and reports it to its monitors.
    fn record_end(&self, key: &Key) {
        // First: reads that begin and monitors that are created afterwards check it.
        self.changes.record_end(key, self.clock.mono());
        self.cache.invalidate(key);
        self.monitors.end(key);
    }

    /// Reads the session's current row. If it differs from `session`, removes the session from the cache.
    ///
    /// # Errors
    /// Returns [`ChangeError::Conflict`] if the session has ended, and an error if the store fails.
    async fn read_current(&self, session: &Session) -> Result<Arc<Session>, ChangeError> {
        let row = self.table.get(&session.key, Read::Strong).await.map_err(ChangeError::from);
        let current = row.and_then(|row| self.current(session, row));
        if !current.as_ref().is_ok_and(|current| current.record.version == session.record.version) {
            self.cache.invalidate(&session.key);
        }
        current
    }

    /// Decodes the session's current row.
    ///
    /// # Errors
    /// Returns [`ChangeError::Conflict`] if there is no row, or it is not a valid session: the session has ended.
    fn current(&self, session: &Session, row: Option<Item>) -> Result<Arc<Session>, ChangeError> {
        match self.decode(row) {
            DecodedRow::Session { record, size } => {
                Ok(Arc::new(self.session(session.key.clone(), record, size, session.known_at)))
            }
            DecodedRow::None(_) => Err(ChangeError::Conflict),
        }
    }

    /// Caches and returns a session that was written with a new key.
    fn finish_new(
        &self,
        id: SessionId,
        record: SessionRecord,
        flash: Vec<String>,
        known_at: Instant,
    ) -> MutationOutcome {
        let (key, size) = (self.format.key(&id), claims_size(&record));
        let session = Arc::new(self.session(key, record, size, known_at));
        self.finish(id, session, flash)
    }

    /// Caches and returns a session that was just written, or whose row was just read.
    fn finish(&self, id: SessionId, session: Arc<Session>, flash: Vec<String>) -> MutationOutcome {
        self.publish(&session);
        MutationOutcome::Updated(Box::new(UpdatedSession { id, session, flash }))
    }

    /// Caches a session that was just written, and reports it to its monitors.
    fn publish(&self, session: &Arc<Session>) {
        // Invalidate first: the results of reads in progress are older.
        self.cache.invalidate(&session.key);
        let epoch = self.cache.epoch(&session.key);
        self.cache.insert(session, session.record.version, self.clock.mono(), epoch);
        self.monitors.publish(session);
    }
}

/// Waits for a random time after every second conflict. Without it, one of two gateways could lose every time. After a
/// wait, the known row is probably outdated. The next attempt then fails and returns the current row, so the one after it
/// does not wait.
async fn back_off(conflicts: usize) {
    if conflicts > 0 && conflicts.is_multiple_of(2) {
        let share = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        tokio::time::sleep(MAX_BACKOFF.mul_f64(share)).await;
    }
}

/// Returns the size of a session's claims in bytes, as JSON.
fn claims_size(record: &SessionRecord) -> usize {
    serde_json::to_string(&record.claims).map_or(0, |text| text.len())
}

/// The result of an attempt of a change.
enum Attempt {
    Done(MutationOutcome),
    /// The row was modified concurrently, or had to be read again; contains the current session.
    Conflict(Arc<Session>),
}
