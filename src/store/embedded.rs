//! DynamoDB's API inside this process, on SQLite: for demos, tests and small installations.
//!
//! The engine is one of a kind, young, and reached through this module alone: `dispatch` speaks to it, `connector`
//! puts it under the AWS SDK, `server` offers it to local apps. It is synchronous and behind one lock, and in a file
//! every write waits for the disk. So calls run on tokio's blocking threads, a few at a time: inline they would hold up
//! whatever else the thread serves, and without a bound a burst would start a thread for each call only to queue there.
//!
//! Left out: Streams, which make each write cost the whole table.

pub(super) mod connector;
pub mod dispatch;
pub(super) mod server;

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::config::{IntoShared, SharedHttpClient};
use bytes::Bytes;
use dynoxide::Database;
use tokio::sync::Semaphore;
use tokio::time::MissedTickBehavior;

use self::connector::InProcess;
use self::dispatch::EngineResponse;
use super::StoreOpenError;

/// How often rows whose TTL has passed are removed. DynamoDB itself takes up to days, and nobody relies on it.
pub const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// How many calls may be in the engine at once. It does them one by one; with one more each side of its lock, reading
/// and writing JSON overlaps with them, and a sweep finds somebody waiting to hand the lock to.
const CALLS: usize = 3;

/// What a SQLite database begins with.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A running engine. Clones are the same engine; the data in memory go with the last one.
#[derive(Clone)]
pub struct Engine {
    database: Database,
    calls: Arc<Semaphore>,
}

impl Engine {
    /// An empty engine, in memory.
    ///
    /// # Errors
    /// If SQLite does not start.
    pub fn memory() -> Result<Self, StoreOpenError> {
        Database::memory().map(Self::new).map_err(|error| StoreOpenError::Engine(error.to_string()))
    }

    /// An engine on a file, which is made if it is not there, readable by its owner alone. Several processes may use
    /// one file: a command beside the running gateway.
    ///
    /// # Errors
    /// If the file is something else than a database, cannot be read and written, or stays locked.
    pub async fn file(path: &Path) -> Result<Self, StoreOpenError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || open(path)).await;
        opened.unwrap_or_else(|error| Err(StoreOpenError::Engine(error.to_string())))
    }

    fn new(database: Database) -> Self {
        Self { database, calls: Arc::new(Semaphore::new(CALLS)) }
    }

    /// Does what a request asks for: `target` is its `x-amz-target`, `body` its JSON. Once it is in the engine it is
    /// done, whether or not the caller still waits, as a request that has reached DynamoDB is.
    pub async fn dispatch(&self, target: &str, body: Bytes) -> EngineResponse {
        let Some(operation) = dispatch::Operation::of_target(target) else {
            return EngineResponse::unknown_operation();
        };
        let Ok(call) = self.calls.clone().acquire_owned().await else {
            return EngineResponse::internal_error();
        };
        let database = self.database.clone();
        let answer = tokio::task::spawn_blocking(move || {
            // Held by the call and not by the caller, who may be gone before it is over.
            let _call = call;
            operation.run(&database, &body)
        });
        // The engine panicked. What it was doing was rolled back.
        answer.await.unwrap_or_else(|_| EngineResponse::internal_error())
    }

    /// The engine as the SDK's HTTP client.
    pub fn http_client(&self) -> SharedHttpClient {
        InProcess::new(self.clone()).into_shared()
    }

    /// Removes the rows whose TTL has passed, once; how many they were.
    ///
    /// # Errors
    /// If the database cannot be read or written.
    pub async fn sweep(&self) -> io::Result<usize> {
        let database = self.database.clone();
        // Not among the bounded calls: a sweep is long, and steps aside for them by itself.
        let sweep = tokio::task::spawn_blocking(move || database.sweep_ttl()).await?;
        sweep.map_err(io::Error::other)
    }

    /// Sweeps every `period`, for as long as it is polled.
    pub async fn sweep_forever(&self, period: Duration) {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.sweep().await {
                Ok(0) => {}
                Ok(rows) => tracing::debug!(rows, "expired rows removed"),
                Err(error) => tracing::warn!(%error, "expired rows cannot be removed"),
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
        Ok(File::Database) => {}
        Ok(File::Other) => return Err(StoreOpenError::NotADatabase(path)),
        Err(source) => return Err(StoreOpenError::File { path, source }),
    }
    // SQLite takes `:memory:`, an empty path and `file:` URLs to mean something else; none of them is absolute.
    let absolute = std::path::absolute(&path);
    let database = match absolute.as_ref().map(|path| path.to_str()) {
        Ok(Some(text)) => Database::new(text),
        Ok(None) => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8");
            return Err(StoreOpenError::File { path, source });
        }
        Err(_) => return Err(StoreOpenError::Engine("there is no working directory".to_owned())),
    };
    // The engine waits half a minute for a lock, since another process may be bringing the file up to date.
    let database =
        database.map_err(|error| StoreOpenError::Engine(format!("`{}`: {error}", path.display())))?;
    Ok(Engine::new(database))
}

enum File {
    Database,
    Other,
}

/// Makes the file, or looks at what it begins with. SQLite would do neither: it makes files that everyone may read, and
/// opens one that it must not write without a word.
fn prepare(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut begin = Vec::with_capacity(SQLITE_MAGIC.len());
    let file = options.open(path)?;
    file.take(SQLITE_MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(if begin.is_empty() || begin == SQLITE_MAGIC { File::Database } else { File::Other })
}
