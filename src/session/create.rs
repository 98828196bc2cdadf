//! Making a session.

use super::judge::Policy;
use super::reference::Ref;
use crate::claims::Claims;
use crate::format::{EncodeFault, Format, Renewal, SessionRecord};
use crate::item::Item;
use crate::store::StoreError;
use crate::store::table::{CreateOutcome, Table};
use crate::time::Timestamp;

/// A session that was made.
#[derive(Debug)]
pub struct CreatedSession {
    /// The value of its cookie. Whoever has it is the user.
    pub cookie: crate::secret::Secret,
    /// Its public name.
    pub reference: Ref,
    /// Its row.
    pub record: SessionRecord,
}

/// Why a session was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The operating system has no randomness to give.
    #[error("no randomness for a session id: {0}")]
    Randomness(getrandom::Error),
    /// No session has no claims: that is how frameworks write one that has ended.
    #[error("a session needs at least one claim")]
    Empty,
    /// The format cannot write the claims.
    #[error(transparent)]
    Encode(#[from] EncodeFault),
    /// There is a row of this new id already, which chance does not do.
    #[error("the new session's id is taken")]
    Taken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a session of `claims`, alive from `now` for as long as `policy` says. It never replaces a row.
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
    // As it will be read: a format may count versions, or keep deadlines, in its own way.
    let record = format.decode(&item).unwrap_or(record);
    match table.create(item).await? {
        CreateOutcome::AlreadyExists => Err(CreateError::Taken),
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
