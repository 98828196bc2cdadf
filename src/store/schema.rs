//! Creating a table, and checking its key, status and TTL.
//!
//! Nothing here replaces a table or disables its TTL, since that could lose sessions. If a table does not fit, the error
//! says what is expected and what was found.

use std::fmt;
use std::time::Duration;

use aws_sdk_dynamodb::config::{Builder, Config};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType as KeyRole, ScalarAttributeType,
    TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use aws_smithy_types::error::operation::BuildError;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::item::KeyType;

use super::StoreError;
use super::sdk_error::table_error;
use super::table::Table;

/// Timeout for creating a table or enabling its TTL, which takes DynamoDB seconds. Replaces the store's `timeout`.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout for a new table to become active.
const ACTIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval at which the status of a new table is checked.
const ACTIVE_POLL: Duration = Duration::from_millis(250);

/// The state of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// DynamoDB's `TableStatus`: `ACTIVE`, `CREATING`, …
    pub status: String,
    /// The key.
    pub key: TableKey,
    /// The time to live.
    pub ttl: Ttl,
    /// The number of rows. DynamoDB updates it about every six hours.
    pub item_count: u64,
    /// The size in bytes. DynamoDB updates it about every six hours.
    pub size_bytes: u64,
    /// DynamoDB's `BillingMode`: `PAY_PER_REQUEST` or `PROVISIONED`.
    pub billing: String,
}

/// A table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The attribute of the partition key.
    pub attribute: String,
    /// The type of the partition key: `S`, `B` or `N`.
    pub kind: String,
    /// The attribute of the sort key. Tables of sessions have none.
    pub sort: Option<String>,
}

/// A table's time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// DynamoDB's `TimeToLiveStatus`: `ENABLED`, `ENABLING`, `DISABLING` or `DISABLED`.
    pub status: String,
    /// The attribute that contains the time.
    pub attribute: Option<String>,
}

/// The reason why a table cannot be used or created.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The table does not exist.
    #[error("table `{0}` does not exist: create it with `sessiongate table create`")]
    Missing(String),
    /// The table has another key.
    #[error(
        "the key of table `{table}` is {found}, but the sessions need {expected}: use another table, or set \
             `key_attribute` to the table's"
    )]
    WrongKey {
        /// The table.
        table: String,
        /// The key that the format needs.
        expected: Box<TableKey>,
        /// The table's key.
        found: Box<TableKey>,
    },
    /// The table is being created, deleted or restored, or its encryption key is inaccessible.
    #[error("table `{table}` is {status}: wait until it is active (see `sessiongate table show`)")]
    NotActive {
        /// The table.
        table: String,
        /// DynamoDB's `TableStatus`.
        status: String,
    },
    /// The table's TTL is enabled on another attribute.
    #[error(
        "the TTL of table `{table}` is on `{found}`, not on `{expected}`: rows would be deleted at the wrong time \
             or never; disable that TTL first, or use another table"
    )]
    WrongTtl {
        /// The table.
        table: String,
        /// The attribute that the format writes.
        expected: String,
        /// The attribute of the table's TTL.
        found: String,
    },
    /// The table cannot be described or created.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Table {
    /// Returns the state of the table, or `None` if it does not exist.
    ///
    /// # Errors
    /// Returns an error if DynamoDB does not respond or denies access.
    pub async fn describe(&self) -> Result<Option<TableState>, StoreError> {
        let Some(table) = self.description().await? else { return Ok(None) };
        let ttl = self.ttl().await?;
        let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
        Ok(Some(TableState {
            status: status(&table),
            key: key(&table),
            ttl,
            item_count: table.item_count().and_then(|count| count.try_into().ok()).unwrap_or(0),
            size_bytes: table.table_size_bytes().and_then(|bytes| bytes.try_into().ok()).unwrap_or(0),
            // Tables that have never used on-demand billing have no summary.
            billing: billing.unwrap_or(&BillingMode::Provisioned).as_str().to_owned(),
        }))
    }

    /// Checks that the table exists, is active, and has the expected key.
    ///
    /// # Errors
    /// Returns an error for the first of these that does not hold.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let table = self.description().await?.ok_or_else(|| SchemaError::Missing(self.name().to_owned()))?;
        if !is_usable(&table) {
            return Err(SchemaError::NotActive { table: self.name().to_owned(), status: status(&table) });
        }
        self.check_key(&table)
    }

    /// Creates the table with on-demand billing, and enables TTL on `ttl_attribute`. An existing table with the expected key
    /// is kept, and its TTL is enabled if it has none.
    ///
    /// # Errors
    /// Returns an error if the table cannot be created, or exists with another key or TTL attribute.
    pub async fn provision(&self, ttl_attribute: Option<&str>) -> Result<(), SchemaError> {
        let table = match self.description().await? {
            Some(table) if is_usable(&table) => table,
            Some(_) => self.wait_until_active().await?,
            None => {
                self.create_table().await?;
                self.wait_until_active().await?
            }
        };
        self.check_key(&table)?;
        match ttl_attribute {
            Some(attribute) => self.ensure_ttl(attribute).await,
            None => Ok(()),
        }
    }

    async fn create_table(&self) -> Result<(), StoreError> {
        let scalar = match self.key_type() {
            KeyType::String => ScalarAttributeType::S,
            KeyType::Binary => ScalarAttributeType::B,
        };
        let key = KeySchemaElement::builder().attribute_name(self.key_attribute()).key_type(KeyRole::Hash);
        let attribute =
            AttributeDefinition::builder().attribute_name(self.key_attribute()).attribute_type(scalar);
        let request = self
            .client()
            .create_table()
            .table_name(self.name())
            .key_schema(key.build().map_err(incomplete)?)
            .attribute_definitions(attribute.build().map_err(incomplete)?)
            .billing_mode(BillingMode::PayPerRequest);
        let Err(error) = request.customize().config_override(create_timeouts()).send().await else {
            return Ok(());
        };
        // Another process created it. Its key is checked when it is active.
        if let Some(CreateTableError::ResourceInUseException(_)) = error.as_service_error() {
            return Ok(());
        }
        Err(table_error(&error, self.name()))
    }

    async fn wait_until_active(&self) -> Result<TableDescription, SchemaError> {
        let wait = async {
            loop {
                // DescribeTable is eventually consistent, and may not show a new table yet.
                if let Some(table) = self.description().await?.filter(is_usable) {
                    return Ok(table);
                }
                tokio::time::sleep(ACTIVE_POLL).await;
            }
        };
        tokio::time::timeout(ACTIVE_TIMEOUT, wait).await.unwrap_or_else(|_| {
            let status = format!("not active after {} s", ACTIVE_TIMEOUT.as_secs());
            Err(SchemaError::NotActive { table: self.name().to_owned(), status })
        })
    }

    async fn ensure_ttl(&self, attribute: &str) -> Result<(), SchemaError> {
        let ttl = self.ttl().await?;
        if let Some(found) = ttl.attribute.filter(|_| ttl.status.starts_with("ENABL")) {
            if found == attribute {
                return Ok(());
            }
            let table = self.name().to_owned();
            return Err(SchemaError::WrongTtl { table, expected: attribute.to_owned(), found });
        }
        let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute);
        let request = self.client().update_time_to_live().table_name(self.name());
        let request = request.time_to_live_specification(ttl.build().map_err(incomplete)?);
        let updated = request.customize().config_override(create_timeouts()).send().await;
        updated.map(drop).map_err(|error| table_error(&error, self.name()).into())
    }

    async fn description(&self) -> Result<Option<TableDescription>, StoreError> {
        let error = match self.client().describe_table().table_name(self.name()).send().await {
            Ok(output) => return Ok(output.table),
            Err(error) => error,
        };
        if let Some(DescribeTableError::ResourceNotFoundException(_)) = error.as_service_error() {
            return Ok(None);
        }
        Err(table_error(&error, self.name()))
    }

    async fn ttl(&self) -> Result<Ttl, StoreError> {
        let output = self.client().describe_time_to_live().table_name(self.name()).send().await;
        let ttl = output.map_err(|error| table_error(&error, self.name()))?.time_to_live_description;
        let status = ttl.as_ref().and_then(|ttl| ttl.time_to_live_status());
        Ok(Ttl {
            status: status.unwrap_or(&TimeToLiveStatus::Disabled).as_str().to_owned(),
            attribute: ttl.as_ref().and_then(|ttl| ttl.attribute_name()).map(str::to_owned),
        })
    }

    fn check_key(&self, table: &TableDescription) -> Result<(), SchemaError> {
        let (expected, found) = (self.expected_key(), key(table));
        if expected == found {
            return Ok(());
        }
        let (expected, found) = (Box::new(expected), Box::new(found));
        Err(SchemaError::WrongKey { table: self.name().to_owned(), expected, found })
    }

    fn expected_key(&self) -> TableKey {
        let kind = match self.key_type() {
            KeyType::String => "S",
            KeyType::Binary => "B",
        };
        TableKey { attribute: self.key_attribute().to_owned(), kind: kind.to_owned(), sort: None }
    }
}

impl fmt::Display for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` of type {}", self.attribute, self.kind)?;
        match &self.sort {
            Some(sort) => write!(f, " with the sort key `{sort}`"),
            None => Ok(()),
        }
    }
}

fn key(table: &TableDescription) -> TableKey {
    let attribute = |role: KeyRole| {
        let element = table.key_schema().iter().find(|element| *element.key_type() == role);
        element.map(|element| element.attribute_name().to_owned())
    };
    let hash = attribute(KeyRole::Hash).unwrap_or_default();
    let definition = table.attribute_definitions().iter().find(|known| known.attribute_name() == hash);
    let kind = definition.map_or_else(String::new, |known| known.attribute_type().as_str().to_owned());
    TableKey { attribute: hash, kind, sort: attribute(KeyRole::Range) }
}

fn status(table: &TableDescription) -> String {
    table.table_status().map_or_else(|| "in an unknown state".to_owned(), |status| status.as_str().to_owned())
}

/// Returns whether a table serves requests. It also does so while its settings are updated.
fn is_usable(table: &TableDescription) -> bool {
    matches!(table.table_status(), Some(TableStatus::Active | TableStatus::Updating))
}

fn create_timeouts() -> Builder {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(CREATE_TIMEOUT);
    Config::builder().timeout_config(timeouts.operation_timeout(CREATE_TIMEOUT).build())
}

/// Converts an error of the SDK's builders, which report missing members. None is missing here.
#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes it by value")]
fn incomplete(error: BuildError) -> StoreError {
    StoreError::Invalid(error.to_string())
}
