//! Creating a session.

use super::judge::Policy;
use super::reference::Ref;
use super::state::Session;
use crate::claims::Claims;
use crate::format::{EncodeFault, Format, Renewal, SessionId, SessionRecord};
use crate::item::Item;
use crate::secret::Secret;
use crate::store::StoreError;
use crate::store::table::{CreateOutcome, Table};
use crate::time::Timestamp;

/// A new session.
#[derive(Debug)]
pub struct CreatedSession {
    /// The value of its cookie. Anyone who knows it can use the session.
    pub cookie: Secret,
    /// Its public identifier.
    pub reference: Ref,
    /// Its row.
    pub record: SessionRecord,
}

/// The reason why a session was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The operating system cannot provide random bytes.
    #[error("the operating system provided no random bytes for a session id: {0}")]
    Randomness(getrandom::Error),
    /// There are no claims. Frameworks write empty claims to mark a session that was logged out.
    #[error("a session needs at least one claim")]
    Empty,
    /// The format cannot represent the claims.
    #[error(transparent)]
    Encode(#[from] EncodeFault),
    /// A row with the new random id exists.
    #[error("a session with the new id exists")]
    IdExists,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A row with a new id, which is not written yet.
pub(super) struct NewRow {
    pub(super) id: SessionId,
    /// The decoded row.
    pub(super) record: SessionRecord,
    pub(super) item: Item,
}

/// Creates a session with `claims`, issued at `now` and expiring according to `policy`. Never replaces a row.
///
/// # Errors
/// See [`CreateError`].
pub async fn create(
    format: &dyn Format,
    table: &Table,
    policy: &Policy,
    claims: Claims,
    now: Timestamp,
) -> Result<CreatedSession, CreateError> {
    if claims.is_empty() {
        return Err(CreateError::Empty);
    }
    let NewRow { id, record, item } = new_row(format, policy, claims, None, now)?;
    match table.create(item).await? {
        CreateOutcome::AlreadyExists => Err(CreateError::IdExists),
        CreateOutcome::Created => {
            let cookie = format.cookie_value(&id, record.version).into_bytes();
            let reference = Ref::from_key(&format.key(&id));
            Ok(CreatedSession { cookie: Secret::new(cookie), reference, record })
        }
    }
}

/// Builds the row of a new session, or of the session `old` with a new id.
///
/// # Errors
/// Returns [`CreateError::Randomness`] or [`CreateError::Encode`].
pub(super) fn new_row(
    format: &dyn Format,
    policy: &Policy,
    claims: Claims,
    old: Option<&Session>,
    now: Timestamp,
) -> Result<NewRow, CreateError> {
    let id = format.new_id().map_err(CreateError::Randomness)?;
    let issued = Timestamp::from_secs(now.as_secs());
    // A new id does not extend the absolute lifetime.
    let began = old.and_then(|session| session.record.created).unwrap_or(issued);
    let created = format.records_creation().then_some(began);
    let renewal = old.map_or(Renewal::Realm, |session| session.record.renewal);
    let expires = match (renewal, old) {
        (Renewal::Own { timeout, end }, _) => issued.plus(timeout).min(end),
        (Renewal::Never, Some(old)) => old.record.expires,
        (Renewal::Realm | Renewal::Never, _) => policy.deadline(created, now),
    };
    let record = SessionRecord {
        claims,
        version: 1,
        issued,
        created,
        expires,
        retired: false,
        successor: None,
        predecessor: old.map(|session| Box::new(session.key.clone())),
        renewal,
        stored: old.map(|session| session.record.stored.clone()).unwrap_or_default(),
    };
    let item = format.encode(&format.key(&id), &record)?;
    // Decode the row, since the format may represent versions and deadlines differently.
    let record = format.decode(&item).map_err(|_| EncodeFault::Unreadable)?;
    Ok(NewRow { id, record, item })
}
