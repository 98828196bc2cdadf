//! The engine and its database.
//!
//! The engine is synchronous and has one lock, and with a file every write waits for the disk. So calls run on Tokio's
//! blocking threads, which a semaphore limits: otherwise each call of a burst would start a thread, which would only wait
//! for the lock.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dynoxide::Database;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use super::dispatch::{EngineResponse, Operation};
use crate::store::StoreOpenError;

/// Interval of the removal of rows whose TTL has passed. DynamoDB may take days, so no caller relies on it.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of concurrent calls. The engine executes one at a time; with two more, decoding and encoding of JSON
/// overlap with it, and a sweep can yield its lock to a waiting call.
const MAX_CALLS: usize = 3;

/// The first bytes of a SQLite database.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A running engine. Clones share it; data in memory is lost when the last one is dropped.
#[derive(Clone)]
pub struct Engine {
    database: Database,
    calls: Arc<Semaphore>,
}

impl Engine {
    /// Creates an empty engine in memory.
    ///
    /// # Errors
    /// Returns an error if SQLite does not start.
    pub fn memory() -> Result<Self, StoreOpenError> {
        Database::memory().map(Self::new).map_err(|error| StoreOpenError::Engine(error.to_string()))
    }

    /// Opens an engine on a file. A missing file is created, with access for its owner only. Several processes may use one
    /// file, such as a command beside the running gateway.
    ///
    /// # Errors
    /// Returns an error if the file is not a database, cannot be read and written, or stays locked.
    pub async fn file(path: &Path) -> Result<Self, StoreOpenError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(path)).await;
        opened.unwrap_or_else(|error| Err(StoreOpenError::Engine(error.to_string())))
    }

    fn new(database: Database) -> Self {
        Self { database, calls: Arc::new(Semaphore::new(MAX_CALLS)) }
    }

    /// Executes a request, given its `x-amz-target` and its body. As with DynamoDB, it is executed even if the caller is
    /// cancelled meanwhile.
    pub async fn dispatch(&self, target: &str, body: Bytes) -> EngineResponse {
        let Some(operation) = Operation::from_target(target) else {
            return EngineResponse::unknown_operation();
        };
        let Ok(permit) = self.calls.clone().acquire_owned().await else {
            return EngineResponse::internal_error();
        };
        let database = self.database.clone();
        let call = tokio::task::spawn_blocking(move || {
            // The call holds the permit, since the caller may be cancelled before it ends.
            let _permit = permit;
            operation.execute(&database, &body)
        });
        // The engine panicked, and its transaction was rolled back.
        call.await.unwrap_or_else(|_| EngineResponse::internal_error())
    }

    /// Removes the rows whose TTL has passed, and returns their number.
    ///
    /// # Errors
    /// Returns an error if the database cannot be read or written.
    pub async fn sweep(&self) -> io::Result<usize> {
        let database = self.database.clone();
        // Takes no permit: a sweep is long, and yields the lock to waiting calls by itself.
        let sweep = tokio::task::spawn_blocking(move || database.sweep_ttl()).await?;
        sweep.map_err(io::Error::other)
    }

    /// Sweeps every `interval` for as long as the future is polled.
    pub async fn sweep_forever(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.sweep().await {
                Ok(0) => {}
                Ok(rows) => tracing::debug!(rows, "expired rows removed"),
                Err(error) => tracing::warn!(%error, "expired rows could not be removed"),
            }
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

fn open(path: PathBuf) -> Result<Engine, StoreOpenError> {
    match prepare(&path) {
        Ok(FileKind::Database) => {}
        Ok(FileKind::Other) => return Err(StoreOpenError::NotADatabase(path)),
        Err(source) => return Err(StoreOpenError::File { path, source }),
    }
    // `:memory:`, an empty path and `file:` URLs have a special meaning to SQLite; an absolute path has none.
    let absolute = std::path::absolute(&path);
    let database = match absolute.as_ref().map(|path| path.to_str()) {
        Ok(Some(text)) => Database::new(text),
        Ok(None) => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8");
            return Err(StoreOpenError::File { path, source });
        }
        Err(_) => return Err(StoreOpenError::Engine("there is no working directory".to_owned())),
    };
    // The engine waits up to 30 s for a lock, since another process may be migrating the file.
    let database =
        database.map_err(|error| StoreOpenError::Engine(format!("`{}`: {error}", path.display())))?;
    Ok(Engine::new(database))
}

/// The content of the file at a database path.
enum FileKind {
    Database,
    Other,
}

/// Creates the file, or checks its first bytes. SQLite would create a file that all users can read, and would open a
/// read-only file without an error.
fn prepare(path: &Path) -> io::Result<FileKind> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut begin = Vec::with_capacity(SQLITE_MAGIC.len());
    let file = options.open(path)?;
    file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(if begin.is_empty() || begin == SQLITE_MAGIC { FileKind::Database } else { FileKind::Other })
}
