//! Ending a session, even if its id has changed.

use crate::format::Format;
use crate::item::Key;
use crate::store::StoreError;
use crate::store::table::{ConditionalWrite, Table};

/// Maximum number of id changes that are followed.
const MAX_SUCCESSORS: usize = 50;

/// The outcome of [`destroy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// This call deleted the session's current row, which had this key.
    Deleted(Key),
    /// There is no row. The session had ended before, or is alive under another id and its retired row has been
    /// deleted. If the format keeps retired rows, they are deleted only after they expire or the session ends.
    Absent,
    /// The session is still alive: its retired row does not name its new id, or other gateways kept writing its row.
    StillAlive,
}

/// Deletes the row of the session with `key`, whose retired row, if any, is `predecessor`. If the row of `key` is retired,
/// follows it to its successor. Then deletes the retired rows, which could otherwise be read until they expire.
///
/// # Errors
/// Returns an error if DynamoDB does not respond or denies access, or if it is unknown whether a row was deleted.
pub async fn destroy(
    format: &dyn Format,
    table: &Table,
    key: &Key,
    predecessor: Option<&Key>,
) -> Result<Destroyed, StoreError> {
    let mut retired = predecessor.cloned();
    let destroyed = delete_current(format, table, key, &mut retired).await?;
    if destroyed != Destroyed::StillAlive {
        delete_retired(format, table, &mut retired).await?;
    }
    Ok(destroyed)
}

/// Like [`destroy`], but keeps the retired rows. Sets `retired` to the newest one.
///
/// # Errors
/// Returns an error if DynamoDB does not respond or denies access, or if it is unknown whether a row was deleted.
pub(super) async fn delete_current(
    format: &dyn Format,
    table: &Table,
    key: &Key,
    retired: &mut Option<Key>,
) -> Result<Destroyed, StoreError> {
    let conditions = format.not_retired();
    let mut key = key.clone();
    for _ in 0..MAX_SUCCESSORS {
        let row = match table.delete(&key, &conditions).await? {
            ConditionalWrite::Done => return Ok(Destroyed::Deleted(key)),
            ConditionalWrite::Refused(None) => return Ok(Destroyed::Absent),
            ConditionalWrite::Refused(Some(row)) => row,
        };
        match format.decode(&row).ok().and_then(|record| record.successor) {
            Some(successor) => *retired = Some(std::mem::replace(&mut key, *successor)),
            None => return Ok(Destroyed::StillAlive),
        }
    }
    Ok(Destroyed::StillAlive)
}

/// Deletes the retired rows of a session that has ended, from `next`, the newest, to the oldest. Sets `next` to the next row
/// to delete.
///
/// # Errors
/// Returns an error if DynamoDB does not respond or denies access.
pub(super) async fn delete_retired(
    format: &dyn Format,
    table: &Table,
    next: &mut Option<Key>,
) -> Result<(), StoreError> {
    for _ in 0..MAX_SUCCESSORS {
        let Some(key) = next.as_ref() else { break };
        let row = table.delete_returning(key).await?;
        *next = row.and_then(|row| format.decode(&row).ok()?.predecessor).map(|key| *key);
    }
    Ok(())
}
