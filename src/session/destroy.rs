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
    let conditions = format.not_retired();
    let mut key = key.clone();
    let mut predecessor = predecessor.cloned();
    for _ in 0..MAX_SUCCESSORS {
        let row = match table.delete(&key, &conditions).await? {
            ConditionalWrite::Done => {
                delete_retired(format, table, predecessor).await?;
                return Ok(Destroyed::Deleted(key));
            }
            ConditionalWrite::Refused(None) => {
                delete_retired(format, table, predecessor).await?;
                return Ok(Destroyed::Absent);
            }
            ConditionalWrite::Refused(Some(row)) => row,
        };
        match format.decode(&row).ok().and_then(|record| record.successor) {
            Some(successor) => predecessor = Some(std::mem::replace(&mut key, *successor)),
            None => return Ok(Destroyed::StillAlive),
        }
    }
    Ok(Destroyed::StillAlive)
}

/// Deletes the retired rows of a session that has ended, from `newest` to the oldest.
///
/// # Errors
/// Returns an error if DynamoDB does not respond or denies access.
pub(super) async fn delete_retired(
    format: &dyn Format,
    table: &Table,
    newest: Option<Key>,
) -> Result<(), StoreError> {
    let mut next = newest;
    for _ in 0..MAX_SUCCESSORS {
        let Some(key) = next else { break };
        let row = table.delete_returning(&key).await?;
        next = row.and_then(|row| format.decode(&row).ok()?.predecessor).map(|key| *key);
    }
    Ok(())
}
