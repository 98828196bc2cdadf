//! Creating a session.

use super::judge::Policy;
use super::reference::Ref;
use crate::claims::Claims;
use crate::format::{EncodeFault, Format, Renewal, SessionRecord};
use crate::item::Item;
use crate::store::StoreError;
use crate::store::table::{CreateOutcome, Table};
use crate::time::Timestamp;

/// A new session.
#[derive(Debug)]
pub struct CreatedSession {
    /// The value of its cookie. Whoever knows it has the session.
    pub cookie: crate::secret::Secret,
    /// Its public identifier.
    pub reference: Ref,
    /// Its row.
    pub record: SessionRecord,
}

/// The reason why a session was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The operating system cannot provide random bytes.
    #[error("no random bytes for a session id: {0}")]
    Randomness(getrandom::Error),
    /// There are no claims. Frameworks mark a session that was logged out by empty claims.
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
    let id = format.new_id().map_err(CreateError::Randomness)?;
    let key = format.key(&id);
    let issued = Timestamp::from_secs(now.as_secs());
    let created = format.records_creation().then_some(issued);
    let record = SessionRecord {
        claims,
        version: 1,
        issued,
        created,
        expires: policy.deadline(created, now),
        retired: false,
        successor: None,
        predecessor: None,
        renewal: Renewal::Realm,
        stored: Item::new(),
    };
    let item = format.encode(&key, &record)?;
    // Decode the row, since the format may represent versions and deadlines differently.
    let record = format.decode(&item).unwrap_or(record);
    match table.create(item).await? {
        CreateOutcome::AlreadyExists => Err(CreateError::IdExists),
        CreateOutcome::Created => {
            let cookie = format.cookie_value(&id, record.version).into_bytes();
            Ok(CreatedSession {
                cookie: crate::secret::Secret::new(cookie),
                reference: Ref::of(&key),
                record,
            })
        }
    }
}
