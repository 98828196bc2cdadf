//! The table itself: whether it is there and has the key that the format needs, and making one that has.
//!
//! Nothing here changes a table's key or takes a TTL off an attribute: both would lose somebody's sessions. What does
//! not fit is an error that says what was expected and what is there.

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
use super::fault::table_error;
use super::table::Table;

/// Making a table is not bound to a request's limit: DynamoDB takes seconds for it.
const CREATE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new table may take until it is active, and how often that is asked.
const ACTIVE_WAIT: Duration = Duration::from_secs(60);
const ACTIVE_POLL: Duration = Duration::from_millis(250);

/// A table as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// DynamoDB's word: `ACTIVE`, `CREATING`, …
    pub status: String,
    /// Its key.
    pub key: TableKey,
    /// How rows expire.
    pub ttl: Ttl,
    /// Rows, as counted by DynamoDB some hours ago.
    pub item_count: u64,
    /// Bytes, as counted by DynamoDB some hours ago.
    pub size_bytes: u64,
    /// DynamoDB's word: `PAY_PER_REQUEST` or `PROVISIONED`.
    pub billing: String,
}

/// A table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The partition key's attribute.
    pub attribute: String,
    /// Its type: `S`, `B` or `N`.
    pub kind: String,
    /// The sort key's attribute. A table of sessions has none.
    pub sort: Option<String>,
}

/// A table's time to live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ttl {
    /// DynamoDB's word: `ENABLED`, `ENABLING`, `DISABLING` or `DISABLED`.
    pub status: String,
    /// The attribute that holds the time.
    pub attribute: Option<String>,
}

/// Why a table cannot be used, or made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is not there.
    #[error("table `{0}` does not exist: `sessiongate table create` makes it")]
    Missing(String),
    /// It has another key.
    #[error(
        "the key of table `{table}` is {found}, and the sessions need {expected}: name another table, \
             or set `key_attribute` to the table's"
    )]
    WrongKey {
        /// The table.
        table: String,
        /// What the format needs.
        expected: Box<TableKey>,
        /// What is there.
        found: Box<TableKey>,
    },
    /// It is being made, deleted or restored, or its key for encryption is gone.
    #[error("table `{table}` is {status}: wait for it, and see `sessiongate table show`")]
    NotActive {
        /// The table.
        table: String,
        /// DynamoDB's word for it.
        status: String,
    },
    /// Its rows expire by another attribute.
    #[error(
        "table `{table}` has its TTL on `{found}` and not on `{expected}`: rows would be deleted at the wrong \
             time or never; disable that TTL first, or name another table"
    )]
    WrongTtl {
        /// The table.
        table: String,
        /// What the format writes.
        expected: String,
        /// What is there.
        found: String,
    },
    /// It cannot be looked at, or made.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Table {
    /// The table as it is; none: it is not there.
    ///
    /// # Errors
    /// If DynamoDB does not answer, or does not allow the question.
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
            // Tables made before on-demand billing existed have no summary at all.
            billing: billing.unwrap_or(&BillingMode::Provisioned).as_str().to_owned(),
        }))
    }

    /// Makes sure that the table is there, can be used, and has the key it is to have.
    ///
    /// # Errors
    /// If not.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let table = self.description().await?.ok_or_else(|| SchemaError::Missing(self.name().to_owned()))?;
        if !is_usable(&table) {
            return Err(SchemaError::NotActive { table: self.name().to_owned(), status: status(&table) });
        }
        self.check_key(&table)
    }

    /// Makes the table, billed on demand, and enables the TTL on `ttl_attribute`. A table that is there already is
    /// kept, if its key is right; its TTL is enabled if it has none.
    ///
    /// # Errors
    /// If it cannot be made, or is there and does not fit.
    pub async fn provision(&self, ttl_attribute: Option<&str>) -> Result<(), SchemaError> {
        let table = match self.description().await? {
            Some(table) if is_usable(&table) => table,
            Some(_) => self.until_active().await?,
            None => {
                self.create_table().await?;
                self.until_active().await?
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
        let Err(error) = request.customize().config_override(patient()).send().await else { return Ok(()) };
        // Somebody else was first. Whether theirs fits is looked at once it is active.
        if let Some(CreateTableError::ResourceInUseException(_)) = error.as_service_error() {
            return Ok(());
        }
        Err(table_error(&error, self.name()))
    }

    async fn until_active(&self) -> Result<TableDescription, SchemaError> {
        let wait = async {
            loop {
                // Right after it was made, a table may not be seen yet.
                if let Some(table) = self.description().await?.filter(is_usable) {
                    return Ok(table);
                }
                tokio::time::sleep(ACTIVE_POLL).await;
            }
        };
        tokio::time::timeout(ACTIVE_WAIT, wait).await.unwrap_or_else(|_| {
            let status = format!("not active after {} s", ACTIVE_WAIT.as_secs());
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
        let answer = request.customize().config_override(patient()).send().await;
        answer.map(drop).map_err(|error| table_error(&error, self.name()).into())
    }

    async fn description(&self) -> Result<Option<TableDescription>, StoreError> {
        let error = match self.client().describe_table().table_name(self.name()).send().await {
            Ok(answer) => return Ok(answer.table),
            Err(error) => error,
        };
        if let Some(DescribeTableError::ResourceNotFoundException(_)) = error.as_service_error() {
            return Ok(None);
        }
        Err(table_error(&error, self.name()))
    }

    async fn ttl(&self) -> Result<Ttl, StoreError> {
        let answer = self.client().describe_time_to_live().table_name(self.name()).send().await;
        let ttl = answer.map_err(|error| table_error(&error, self.name()))?.time_to_live_description;
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

/// A table takes requests also while its settings change.
fn is_usable(table: &TableDescription) -> bool {
    matches!(table.table_status(), Some(TableStatus::Active | TableStatus::Updating))
}

fn patient() -> Builder {
    let limit = TimeoutConfig::builder().operation_attempt_timeout(CREATE_TIMEOUT);
    Config::builder().timeout_config(limit.operation_timeout(CREATE_TIMEOUT).build())
}

/// The SDK's builders fail on what is missing, and nothing is.
#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn incomplete(error: BuildError) -> StoreError {
    StoreError::Invalid(error.to_string())
}
