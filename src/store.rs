//! The DynamoDB tables of the realms, with the few operations on rows that sessions need. The AWS SDK is the only client;
//! the embedded engine replaces its HTTP client, so the SDK builds the same requests and parses the same errors as with
//! DynamoDB.
//!
//! No request for a row takes longer than the configured `timeout`, whatever the network, the instance metadata service
//! or a credentials helper does. No SDK type leaves this module, and no error message contains a key or a value.

mod attempts;
mod attribute;
mod cancellation;
mod checked_http;
mod client;
mod conflict;
mod credentials;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod expression;
pub mod policy;
pub mod rotation;
pub mod schema;
mod sdk_error;
pub mod table;
mod write_health;

use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "embedded")]
use std::path::Path;

use aws_sdk_dynamodb::Client;
#[cfg(feature = "embedded")]
use tokio_util::task::AbortOnDropHandle;

use crate::config::{DynamodbConfig, StoreConfig};
use crate::item::KeyType;

pub use self::client::{StaticCredentials, StoreOpenError};
pub use self::error::StoreError;
use self::table::Table;

/// A client of DynamoDB or of the embedded engine.
///
/// Tables stay usable after their store is dropped, but the tasks of the embedded engine (the removal of expired rows and
/// the API for local apps) end with it.
pub struct Store {
    client: Client,
    /// The region that requests are signed for; `None` for the embedded engine.
    region: Option<String>,
    /// The address of the embedded engine's API, if it is served.
    api_address: Option<SocketAddr>,
    #[cfg(feature = "embedded")]
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Store {
    /// Opens the configured store. Checks what can be checked without a request to a table: the region and credentials,
    /// the database file, the listen address. A task removes expired rows from the embedded engine, and another one serves
    /// its API.
    ///
    /// # Errors
    /// Returns an error if one of these is missing or invalid; the message says what to set.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreOpenError> {
        match config {
            StoreConfig::Dynamodb(config) => Self::connect(config, None).await,
            #[cfg(feature = "embedded")]
            StoreConfig::Embedded { path, listen } => Self::open_embedded(path.as_deref(), *listen).await,
            #[cfg(not(feature = "embedded"))]
            StoreConfig::Embedded { .. } => Err(StoreOpenError::NotBuilt),
        }
    }

    /// Opens the configured store without the tasks of the embedded engine, for commands: rows are removed and the API is
    /// served only where the gateway runs.
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`Self::open`], except that the listen address is not checked.
    pub async fn open_without_tasks(config: &StoreConfig) -> Result<Self, StoreOpenError> {
        match config {
            StoreConfig::Dynamodb(config) => Self::connect(config, None).await,
            #[cfg(feature = "embedded")]
            StoreConfig::Embedded { path, .. } => Ok(Self::with_engine(&open_engine(path.as_deref()).await?)),
            #[cfg(not(feature = "embedded"))]
            StoreConfig::Embedded { .. } => Err(StoreOpenError::NotBuilt),
        }
    }

    /// Creates a client of DynamoDB with `credentials`, or with those of the AWS SDK's provider chain.
    ///
    /// # Errors
    /// Returns an error if there is no region or no credentials, or if the endpoint is not a URL.
    pub async fn connect(
        config: &DynamodbConfig,
        credentials: Option<StaticCredentials>,
    ) -> Result<Self, StoreOpenError> {
        let client = client::connect(config, credentials).await?;
        Ok(Self {
            region: client.config().region().map(ToString::to_string),
            client,
            api_address: None,
            #[cfg(feature = "embedded")]
            tasks: Vec::new(),
        })
    }

    #[cfg(feature = "embedded")]
    async fn open_embedded(path: Option<&Path>, listen: Option<SocketAddr>) -> Result<Self, StoreOpenError> {
        let engine = open_engine(path).await?;
        let mut store = Self::with_engine(&engine);
        let sweeper = engine.clone();
        let sweep = async move { sweeper.sweep_forever(embedded::SWEEP_INTERVAL).await };
        store.tasks.push(AbortOnDropHandle::new(tokio::spawn(sweep)));
        if let Some(address) = listen {
            let listener = embedded::server::bind(address).await?;
            store.api_address = listener.local_addr().ok();
            let serving = async move { engine.serve(&listener).await };
            store.tasks.push(AbortOnDropHandle::new(tokio::spawn(serving)));
        }
        Ok(store)
    }

    /// Creates a store on `engine`, which the caller may use as well.
    #[cfg(feature = "embedded")]
    pub fn with_engine(engine: &embedded::Engine) -> Self {
        Self {
            client: embedded::connector::client(engine),
            region: None,
            api_address: None,
            tasks: Vec::new(),
        }
    }

    /// Returns the table `name` with this key, without a request to it.
    pub fn table(&self, name: &str, key_attribute: &str, key_type: KeyType) -> Table {
        Table::new(self.client.clone(), name, key_attribute, key_type)
    }

    /// Returns the address at which the embedded engine's API is served to local apps, if it is.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api_address
    }

    /// Returns the region that requests are signed for; `None` for the embedded engine.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }
}

#[cfg(feature = "embedded")]
async fn open_engine(path: Option<&Path>) -> Result<embedded::Engine, StoreOpenError> {
    match path {
        Some(path) => embedded::Engine::file(path).await,
        None => embedded::Engine::memory(),
    }
}

/// Omits the client, whose configuration contains the credentials.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("region", &self.region).field("api_address", &self.api_address).finish()
    }
}
