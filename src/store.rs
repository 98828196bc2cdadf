//! The DynamoDB table behind a realm, as the few verbs on rows that sessions need. The AWS SDK is the only client;
//! the embedded engine stands under it, so every expression, condition and error is the real one.
//!
//! The rule kept here: no operation takes longer than the configured `timeout`, whatever the network, AWS's metadata
//! service or a credentials helper do. No SDK type leaves this module, and no error's text holds a key or a value.

mod attempts;
mod attribute;
mod checked;
mod client;
mod conflict;
mod credentials;
#[cfg(feature = "embedded")]
pub mod embedded;
mod error;
mod expression;
mod fault;
pub mod policy;
pub mod rotation;
pub mod schema;
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

/// A connection to DynamoDB, or to the engine inside this process.
///
/// Tables stay usable after their store is gone, but the embedded engine's tasks, the removal of expired rows and the
/// API for local apps, end with it.
pub struct Store {
    client: Client,
    /// The region that requests are signed for; the embedded engine has none.
    region: Option<String>,
    /// Where the embedded engine's API is served, if it is.
    served: Option<SocketAddr>,
    #[cfg(feature = "embedded")]
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Store {
    /// Opens the store that the configuration names, and makes sure of what can be known without asking a table: that
    /// there are a region and credentials, that the file is a database, that the address is free.
    ///
    /// # Errors
    /// If one of them is missing; the message names the way out.
    pub async fn open(config: &StoreConfig) -> Result<Self, StoreOpenError> {
        match config {
            StoreConfig::Dynamodb(config) => Self::connect(config, None).await,
            #[cfg(feature = "embedded")]
            StoreConfig::Embedded { path, listen } => Self::embed(path.as_deref(), *listen).await,
            #[cfg(not(feature = "embedded"))]
            StoreConfig::Embedded { .. } => Err(StoreOpenError::NotBuilt),
        }
    }

    /// Connects to DynamoDB with `credentials`, or with those that the AWS SDK's chain finds.
    ///
    /// # Errors
    /// If there is no region, or there are no credentials, or the endpoint is not a URL.
    pub async fn connect(
        config: &DynamodbConfig,
        credentials: Option<StaticCredentials>,
    ) -> Result<Self, StoreOpenError> {
        let client = client::connect(config, credentials).await?;
        Ok(Self {
            region: client.config().region().map(ToString::to_string),
            client,
            served: None,
            #[cfg(feature = "embedded")]
            tasks: Vec::new(),
        })
    }

    #[cfg(feature = "embedded")]
    async fn embed(path: Option<&Path>, listen: Option<SocketAddr>) -> Result<Self, StoreOpenError> {
        let engine = match path {
            Some(path) => embedded::Engine::file(path).await?,
            None => embedded::Engine::memory()?,
        };
        let mut store = Self::on_engine(&engine);
        if let Some(address) = listen {
            let listener = embedded::server::bind(address).await?;
            store.served = listener.local_addr().ok();
            let serving = async move { engine.serve(&listener).await };
            store.tasks.push(AbortOnDropHandle::new(tokio::spawn(serving)));
        }
        Ok(store)
    }

    /// A store on an engine that the caller holds too. Must be called within a runtime, which sweeps expired rows.
    #[cfg(feature = "embedded")]
    pub fn on_engine(engine: &embedded::Engine) -> Self {
        let sweeper = engine.clone();
        let sweep = async move { sweeper.sweep_forever(embedded::SWEEP_PERIOD).await };
        Self {
            client: embedded::connector::client(engine),
            region: None,
            served: None,
            tasks: vec![AbortOnDropHandle::new(tokio::spawn(sweep))],
        }
    }

    /// A table with this key. Nothing is asked of it yet.
    pub fn table(&self, name: &str, key_attribute: &str, key_type: KeyType) -> Table {
        Table::new(self.client.clone(), name, key_attribute, key_type)
    }

    /// Where the embedded engine's API is served to local apps, if it is.
    pub fn served_at(&self) -> Option<SocketAddr> {
        self.served
    }

    /// The region that requests are signed for, if they leave the process.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }
}

/// Never the client: its configuration holds the credentials.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("region", &self.region).field("served", &self.served).finish()
    }
}
