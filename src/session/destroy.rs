//! Ending a session whichever id it has by now.

use crate::format::Format;
use crate::item::Key;
use crate::store::StoreError;
use crate::store::table::{Table, Written};

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
    /// The session lives on under an id that its retired row does not name.
    Lost,
}

/// Deletes the row of the session that `key` names. A retired row is followed to its successor, and then deleted too, since
/// it could still be read for a moment.
///
/// # Errors
/// If the table does not answer, or refuses access, or if it cannot be told whether a row was deleted.
pub async fn destroy(format: &dyn Format, table: &Table, key: &Key) -> Result<Destroyed, StoreError> {
    let conditions = format.not_retired();
    let mut key = key.clone();
    let mut retired = Vec::new();
    for _ in 0..MAX_SUCCESSORS {
        let row = match table.delete(&key, &conditions).await? {
            Written::Done => {
                delete_all(table, &retired).await?;
                return Ok(Destroyed::Deleted(key));
            }
            Written::Refused(None) => {
                delete_all(table, &retired).await?;
                return Ok(Destroyed::Absent);
            }
            Written::Refused(Some(row)) => row,
        };
        match format.decode(&row).ok().and_then(|record| record.successor) {
            Some(successor) => retired.push(std::mem::replace(&mut key, *successor)),
            None => return Ok(Destroyed::Lost),
        }
    }
    Ok(Destroyed::Lost)
}

async fn delete_all(table: &Table, keys: &[Key]) -> Result<(), StoreError> {
    for key in keys {
        table.delete(key, &[]).await?;
    }
    Ok(())
}
