//! Ending a session whichever id it has by now.

use crate::format::Format;
use crate::item::Key;
use crate::store::StoreError;
use crate::store::table::{ConditionalWrite, Table};

/// How many changes of id a log-out follows.
const MAX_SUCCESSORS: usize = 50;

/// The outcome of [`destroy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// This call deleted the session's live row, the one with this key.
    Deleted(Key),
    /// There is no row. Where the format retires rows, the session had ended before; elsewhere it may live on under
    /// another id.
    Absent,
    /// The session lives on, under an id that its retired row does not name, or because other gateways kept writing its
    /// row.
    Lost,
}

/// Deletes the row of the session that `key` names, whose row before that was `predecessor`. A retired row is followed to
/// its successor. Then the rows that were retired before are deleted too, since they could still be read for a moment.
///
/// # Errors
/// If the table does not answer, or refuses access, or if it cannot be told whether a row was deleted.
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
            None => return Ok(Destroyed::Lost),
        }
    }
    Ok(Destroyed::Lost)
}

/// Deletes the retired row `newest` of a session that has ended, and those that were retired before it.
///
/// # Errors
/// If the table does not answer, or refuses access.
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
