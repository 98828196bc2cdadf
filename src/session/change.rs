//! What an upstream makes of a session: new claims, a new id, an end.
//!
//! 1. A change is written on the row it was made of, or not at all; if the row has moved on, it is made again of the row
//!    as it is. So changes of different claims all survive, and of the same claim the last one wins.
//! 2. A session that has ended is not brought back by a change that comes late.
//! 3. A rotation makes the new row and retires the old one in one transaction. The claims of a log-in are only ever
//!    under the new id: who knew the old one knows nothing.
//! 4. A log-out ends the session whichever id it has: where rows are retired, it follows them to the live one. Where a
//!    rotation deletes the old row, a log-out that finds none is a conflict: it is never "done" while the session lives.
//! 5. Edits of one session that wait in one gateway are written together: one write, however many they are.
//! 6. The write is a task of its own: a client that hangs up leaves it whole.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, oneshot};
use tracing::Instrument as _;

use super::cache::Hit;
use super::destroy::{Destroyed, delete_retired, destroy};
use super::edit::{Edit, Merged, merged};
use super::judge::{SessionVerdict, judge};
use super::lookup::DecodedRow;
use super::{Active, Realm, Session};
use crate::claims::Claims;
use crate::format::{ChangeTimes, EncodeFault, Renewal, SessionId, SessionRecord};
use crate::item::Key;
use crate::store::StoreError;
use crate::store::rotation::{Retirement, RotationOutcome};
use crate::store::table::{ConditionalWrite, CreateOutcome, Read};
use crate::time::Now;

/// How often a change is made again of a row that has moved on.
const MAX_TRIES: usize = 50;
/// How long one who has lost twice waits at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long all of it may take, waiting for one's turn included.
const LIMIT: Duration = Duration::from_secs(30);
/// How many of the sessions that it has ended a gateway remembers, and for how long: a second log-out of one that comes
/// meanwhile, such as of a double click, is no conflict.
const MAX_ENDED: usize = 4096;
const ENDED_FOR: Duration = Duration::from_secs(60);

/// What is to become of a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionMutation {
    /// How its claims change, one edit after the other.
    pub edits: Vec<Edit>,
    /// What else happens to it.
    pub action: Option<Action>,
    /// Only if it has this version.
    pub if_version: Option<u64>,
}

/// What happens to a session besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It gets a new id.
    Rotate,
    /// It ends.
    Destroy,
}

/// What became of a session.
#[derive(Clone, Debug)]
pub enum MutationOutcome {
    /// It goes on like this.
    Goes(Box<UpdatedSession>),
    /// It has ended.
    Ended,
    /// Nothing was to be done.
    Nothing,
}

impl MutationOutcome {
    /// The outcome in one word, for logs and counts.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Goes(_) => "written",
            Self::Ended => "ended",
            Self::Nothing => "nothing",
        }
    }
}

/// A session after a change.
#[derive(Clone, Debug)]
pub struct UpdatedSession {
    /// Its id.
    pub id: SessionId,
    /// The session.
    pub session: Arc<Session>,
    /// The flash messages that were taken out.
    pub flash: Vec<String>,
}

/// Why a change was not made. The row is as it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangeError {
    /// The session was modified concurrently: its version is not the one that the change is for, it has ended, or others
    /// modified it before each attempt.
    #[error("the session was modified concurrently")]
    Conflict,
    /// The format cannot write the claims, or the row would be too large.
    #[error("the claims cannot be written: {0}")]
    Unwritable(String),
    /// The store failed.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The change, with its wait for others of the same session, took too long, or the new session's id was taken.
    #[error("the session could not be changed in time")]
    Contended,
    /// The operating system has no randomness to give.
    #[error("no randomness for a session id")]
    Randomness,
}

impl ChangeError {
    /// The cause in one word, for counts.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Unwritable(_) => "unwritable",
            Self::Store(_) => "store",
            Self::Contended => "contended",
            Self::Randomness => "randomness",
        }
    }
}

/// Where changes of one session wait for each other: at the same time they would only get into each other's way.
#[derive(Debug)]
pub(super) struct Turns {
    turns: [Mutex<()>; 256],
    /// The edits that wait, of each session; whoever has the turn writes all of them.
    waiting: std::sync::Mutex<HashMap<Key, Vec<Waiting>>>,
    /// The sessions that this gateway has ended lately, and when.
    ended: quick_cache::sync::Cache<Key, Instant>,
}

#[derive(Debug)]
struct Waiting {
    edits: Vec<Edit>,
    answer: oneshot::Sender<Result<MutationOutcome, ChangeError>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            turns: std::array::from_fn(|_| Mutex::new(())),
            waiting: std::sync::Mutex::default(),
            ended: quick_cache::sync::Cache::new(MAX_ENDED),
        }
    }
}

impl Turns {
    /// Of two sessions that meet in a turn, one waits for the other; that is all.
    fn of(&self, key: &Key) -> &Mutex<()> {
        let [first, ..] = &self.turns;
        let last = key.expose_bytes().last().copied().unwrap_or(0);
        self.turns.get(usize::from(last)).unwrap_or(first)
    }

    fn wait(&self, key: &Key, edits: Vec<Edit>) -> oneshot::Receiver<Result<MutationOutcome, ChangeError>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(key.clone()).or_default().push(Waiting { edits, answer });
        answered
    }

    fn take(&self, key: &Key) -> Vec<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(key).unwrap_or_default()
    }
}

impl Realm {
    /// Carries `order` out on the session that a request came with, or without one.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn change(
        self: &Arc<Self>,
        active: Option<&Active>,
        order: SessionMutation,
    ) -> Result<MutationOutcome, ChangeError> {
        let held = active.map(|active| (active.id.clone(), Arc::clone(&active.session)));
        let realm = Arc::clone(self);
        let work = async move {
            let carried_out = realm.carry_out(held, order);
            tokio::time::timeout(LIMIT, carried_out).await.unwrap_or(Err(ChangeError::Contended))
        };
        let work = work.instrument(tracing::debug_span!("change", realm = %self.name));
        // The task only ends without an answer if it panics.
        let changed = self.tasks.spawn_on(work, &self.control).await.unwrap_or(Err(ChangeError::Contended));
        self.metrics.changes.count(match &changed {
            Ok(outcome) => outcome.label(),
            Err(error) => error.label(),
        });
        changed
    }

    async fn carry_out(
        &self,
        held: Option<(SessionId, Arc<Session>)>,
        order: SessionMutation,
    ) -> Result<MutationOutcome, ChangeError> {
        let Some((id, session)) = held else {
            return match order.action {
                Some(Action::Destroy) => Ok(MutationOutcome::Ended),
                _ if order.if_version.is_some() => Err(ChangeError::Conflict),
                _ => self.begin(&order.edits).await,
            };
        };
        let is_plain = order.action.is_none() && order.if_version.is_none();
        if is_plain && order.edits.iter().all(|edit| matches!(edit, Edit::Apply { .. })) {
            return self.edit(&id, &session, order.edits).await;
        }
        let _turn = self.turns.of(&session.key).lock().await;
        self.settle(&id, &session, &order).await
    }

    /// Edits the session together with whoever else waits to.
    async fn edit(
        &self,
        id: &SessionId,
        session: &Arc<Session>,
        edits: Vec<Edit>,
    ) -> Result<MutationOutcome, ChangeError> {
        let mut answered = self.turns.wait(&session.key, edits);
        let _turn = self.turns.of(&session.key).lock().await;
        if let Ok(answer) = answered.try_recv() {
            return answer;
        }
        let waiting = self.turns.take(&session.key);
        let all = waiting.iter().flat_map(|waiting| waiting.edits.clone()).collect();
        let together =
            self.settle(id, session, &SessionMutation { edits: all, ..SessionMutation::default() }).await;
        let alone = matches!(together, Err(ChangeError::Unwritable(_))) && waiting.len() > 1;
        for Waiting { edits, answer } in waiting {
            let outcome = if alone {
                // One of them is too large; the others need not fail with it.
                self.settle(id, session, &SessionMutation { edits, ..SessionMutation::default() }).await
            } else {
                together.clone()
            };
            // Who has hung up does not want to know.
            let _ = answer.send(outcome);
        }
        answered.try_recv().unwrap_or(Err(ChangeError::Contended))
    }

    /// Carries `order` out in one's turn.
    async fn settle(
        &self,
        id: &SessionId,
        held: &Arc<Session>,
        order: &SessionMutation,
    ) -> Result<MutationOutcome, ChangeError> {
        // Who was here before has left what it wrote; whoever is not here yet will find it out from the table.
        let mut session = match self.cache.look(&held.key, held.record.version, self.clock.mono()) {
            Hit::Fresh(newer) | Hit::Stale(newer, _) => newer,
            Hit::Missing | Hit::Nothing => Arc::clone(held),
        };
        if order.action == Some(Action::Destroy) && order.if_version.is_none() {
            return self.destroy(&session).await;
        }
        if order.if_version.is_some_and(|version| version != session.record.version) {
            // The cache may be behind what the upstream has seen by another gateway.
            self.cache.forget(&session.key);
            let row = self.table.get(&session.key, Read::Strong).await?;
            session = self.moved_on(&session, row)?;
        }
        for lost in 0..MAX_TRIES {
            step_aside(lost).await;
            self.may_change(&session, order)?;
            let attempt = match order.action {
                Some(Action::Destroy) => self.end(&session).await?,
                action => match merged(&session.record.claims, &order.edits) {
                    // A session without claims is how frameworks write one that has ended.
                    Some(merged) if merged.claims.is_empty() => self.end(&session).await?,
                    // Somebody else has just written the same: the browser's cookie is older.
                    None if action.is_none() && lost > 0 => {
                        let (record, known_at) = (session.record.clone(), session.known_at);
                        return Ok(self.goes_on(id.clone(), &session, record, Vec::new(), known_at));
                    }
                    None if action.is_none() => return Ok(MutationOutcome::Nothing),
                    merged => {
                        let merged = merged.unwrap_or_else(|| Merged::same(&session.record.claims));
                        match action {
                            Some(Action::Rotate) => self.rotate(&session, merged).await?,
                            _ => self.rewrite(id, &session, merged).await?,
                        }
                    }
                },
            };
            match attempt {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::MovedOn(newer) => session = newer,
            }
        }
        Err(ChangeError::Conflict)
    }

    /// Whether the session is still the one that the order is about.
    fn may_change(&self, session: &Session, order: &SessionMutation) -> Result<(), ChangeError> {
        let alive =
            matches!(judge(&self.policy, &session.record, self.clock.now().wall), SessionVerdict::Live(_));
        let meant = order.if_version.is_none_or(|version| version == session.record.version);
        if alive && meant && !session.record.retired { Ok(()) } else { Err(ChangeError::Conflict) }
    }

    /// Makes a session of what would have been a change of one.
    async fn begin(&self, edits: &[Edit]) -> Result<MutationOutcome, ChangeError> {
        let Some(merged) = merged(&Claims::new(), edits).filter(|merged| !merged.claims.is_empty()) else {
            return Ok(MutationOutcome::Nothing);
        };
        let began = self.clock.mono();
        let (id, record, item) = self.new_row(merged.claims, None)?;
        match self.table.create(item).await.map_err(ChangeError::from)? {
            CreateOutcome::AlreadyExists => Err(ChangeError::Contended),
            CreateOutcome::Created => Ok(self.goes(id, record, merged.flash, began)),
        }
    }

    /// A row of a new id.
    fn new_row(
        &self,
        claims: Claims,
        of: Option<&Session>,
    ) -> Result<(SessionId, SessionRecord, crate::item::Item), ChangeError> {
        let now = self.clock.now().wall;
        let issued = crate::time::Timestamp::from_secs(now.as_secs());
        let id = self.format.new_id().map_err(|_| ChangeError::Randomness)?;
        // A new id is no new life: the lifetime goes on from where it began.
        let began = of.and_then(|session| session.record.created).unwrap_or(issued);
        let created = self.format.records_creation().then_some(began);
        let expires = self.policy.deadline(created, now);
        let stored = of.map(|session| session.record.stored.clone()).unwrap_or_default();
        let predecessor = of.map(|session| Box::new(session.key.clone()));
        let record = SessionRecord {
            claims,
            version: 1,
            issued,
            created,
            expires,
            retired: false,
            successor: None,
            predecessor,
            renewal: Renewal::Realm,
            stored,
        };
        let item = self.format.encode(&self.format.key(&id), &record)?;
        let record = self.format.decode(&item).map_err(|fault| ChangeError::Unwritable(fault.to_string()))?;
        Ok((id, record, item))
    }

    async fn rewrite(
        &self,
        id: &SessionId,
        session: &Session,
        merged: Merged,
    ) -> Result<Attempt, ChangeError> {
        let Now { wall, mono } = self.clock.now();
        let times = ChangeTimes { now: wall, expires: self.policy.deadline(session.record.created, wall) };
        let change = self.format.change(&session.record, merged.claims, times)?;
        let written = self.table.change(&session.key, &change.update).await;
        if !matches!(written, Ok(ConditionalWrite::Done)) {
            self.cache.forget(&session.key);
        }
        match written? {
            ConditionalWrite::Done => {
                Ok(Attempt::Done(self.goes_on(id.clone(), session, change.record, merged.flash, mono)))
            }
            ConditionalWrite::Refused(row) => Ok(Attempt::MovedOn(self.moved_on(session, row)?)),
        }
    }

    async fn rotate(&self, session: &Session, merged: Merged) -> Result<Attempt, ChangeError> {
        let Now { wall, mono } = self.clock.now();
        let (id, record, item) = self.new_row(merged.claims, Some(session))?;
        let until = wall.plus(self.rotation_grace);
        let successor = self.format.key(&id);
        let retired = self.format.retire(&session.record, until.min(session.record.expires), &successor);
        let retirement = match retired {
            Some(update) => Retirement::Update(update),
            None => Retirement::Delete(self.format.unchanged(&session.record)),
        };
        let rotated = self.table.rotate(item, &session.key, &retirement).await;
        self.cache.forget(&session.key);
        match rotated? {
            RotationOutcome::Done => {
                self.monitors.rename(&session.key, &successor);
                Ok(Attempt::Done(self.goes(id, record, merged.flash, mono)))
            }
            RotationOutcome::KeyExists => Err(ChangeError::Contended),
            RotationOutcome::Refused => {
                let row = self.table.get(&session.key, Read::Strong).await?;
                Ok(Attempt::MovedOn(self.moved_on(session, row)?))
            }
        }
    }

    /// Ends the session if its row is the one that was read.
    async fn end(&self, session: &Session) -> Result<Attempt, ChangeError> {
        let deleted = self.table.delete(&session.key, &self.format.unchanged(&session.record)).await;
        self.cache.forget(&session.key);
        match deleted? {
            ConditionalWrite::Refused(row) => Ok(Attempt::MovedOn(self.moved_on(session, row)?)),
            ConditionalWrite::Done => {
                self.ended(&session.key);
                let predecessor = session.record.predecessor.as_deref().cloned();
                delete_retired(&*self.format, &self.table, predecessor).await?;
                Ok(Attempt::Done(MutationOutcome::Ended))
            }
        }
    }

    /// Ends the session whatever its row says, and under whichever id it lives by now.
    async fn destroy(&self, session: &Session) -> Result<MutationOutcome, ChangeError> {
        let predecessor = session.record.predecessor.as_deref();
        let destroyed = destroy(&*self.format, &self.table, &session.key, predecessor).await;
        self.cache.forget(&session.key);
        match destroyed? {
            Destroyed::Deleted(key) => {
                self.ended(&session.key);
                self.ended(&key);
                Ok(MutationOutcome::Ended)
            }
            Destroyed::Absent if self.cannot_have_a_new_id(session) || self.has_ended(&session.key) => {
                self.ended(&session.key);
                Ok(MutationOutcome::Ended)
            }
            Destroyed::Absent | Destroyed::Lost => Err(ChangeError::Conflict),
        }
    }

    /// Returns whether a session whose row is gone has ended: a change of its id since it was read would have left a
    /// retired row, which nobody but a log-out may have deleted yet. Half of `rotation_grace` is for clocks that differ,
    /// and for reads that lag behind.
    fn cannot_have_a_new_id(&self, session: &Session) -> bool {
        let now = self.clock.now();
        let age = now.mono.saturating_duration_since(session.known_at);
        let is_alive = matches!(judge(&self.policy, &session.record, now.wall), SessionVerdict::Live(_));
        self.format.keeps_retired_rows() && is_alive && age < self.rotation_grace / 2
    }

    fn ended(&self, key: &Key) {
        self.cache.forget(key);
        self.monitors.end(key);
        self.turns.ended.insert(key.clone(), self.clock.mono());
    }

    fn has_ended(&self, key: &Key) -> bool {
        let ended = self.turns.ended.get(key);
        ended.is_some_and(|at| self.clock.mono().saturating_duration_since(at) < ENDED_FOR)
    }

    /// The session as its row is now; if there is none, whatever is late for it is too late.
    fn moved_on(
        &self,
        session: &Session,
        row: Option<crate::item::Item>,
    ) -> Result<Arc<Session>, ChangeError> {
        match self.row(row) {
            DecodedRow::Session { record, size } => {
                Ok(Arc::new(self.session(session.key.clone(), record, size, session.known_at)))
            }
            DecodedRow::None(_) => Err(ChangeError::Conflict),
        }
    }

    /// A session under a new key.
    fn goes(
        &self,
        id: SessionId,
        record: SessionRecord,
        flash: Vec<String>,
        known_at: Instant,
    ) -> MutationOutcome {
        let key = self.format.key(&id);
        let size = serde_json::to_string(&record.claims).map_or(0, |text| text.len());
        let session = Arc::new(self.session(key, record, size, known_at));
        self.remember(&session);
        MutationOutcome::Goes(Box::new(UpdatedSession { id, session, flash }))
    }

    /// A session under the key it had.
    fn goes_on(
        &self,
        id: SessionId,
        session: &Session,
        record: SessionRecord,
        flash: Vec<String>,
        known_at: Instant,
    ) -> MutationOutcome {
        let session = Arc::new(self.session(session.key.clone(), record, session.size, known_at));
        self.remember(&session);
        MutationOutcome::Goes(Box::new(UpdatedSession { id, session, flash }))
    }

    /// What was just written is newer than anything that is being read.
    fn remember(&self, session: &Arc<Session>) {
        self.cache.forget(&session.key);
        let epoch = self.cache.epoch(&session.key);
        self.cache.remember(session, session.record.version, self.clock.mono(), epoch);
        self.monitors.publish(session);
    }
}

/// Waits for a moment that nobody else waits for: two gateways that take turns at the same pace would have one of them
/// lose every time. After a wait the row at hand is old, and the next try only brings a new one; so every other try goes
/// without.
async fn step_aside(lost: usize) {
    if lost > 0 && lost.is_multiple_of(2) {
        let share = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
        tokio::time::sleep(LONGEST_PAUSE.mul_f64(share)).await;
    }
}

/// How one try of a change ended.
enum Attempt {
    Done(MutationOutcome),
    /// The row is another by now; the change is to be made of that one.
    MovedOn(Arc<Session>),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::TooLarge => Self::Unwritable(error.to_string()),
            StoreError::Throttled
            | StoreError::Unavailable(_)
            | StoreError::Denied(_)
            | StoreError::NoSuchTable(_)
            | StoreError::Invalid(_) => Self::Store(Arc::new(error)),
        }
    }
}

impl From<EncodeFault> for ChangeError {
    fn from(fault: EncodeFault) -> Self {
        Self::Unwritable(fault.to_string())
    }
}
