//! Errors of operations on tables, by how callers handle them.

/// The error of a failed operation on a table. A missing row and a condition that does not hold are not errors.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// DynamoDB throttles the table or the account.
    #[error("DynamoDB is throttling requests")]
    Throttled,
    /// DynamoDB did not respond, or its response is invalid: network error, timeout, server error.
    #[error("DynamoDB is unavailable: {0}")]
    Unavailable(String),
    /// The credentials are missing or invalid, or lack a permission.
    #[error("DynamoDB denied access: {0}")]
    Denied(String),
    /// The table does not exist.
    #[error("table `{0}` does not exist")]
    NoSuchTable(String),
    /// The row exceeds DynamoDB's limit of 400 KB.
    #[error("the row is larger than DynamoDB's limit of 400 KB")]
    TooLarge,
    /// DynamoDB rejected the request as invalid: the table's key is not the expected one, or the gateway has a bug.
    #[error("DynamoDB rejected the request: {0}")]
    Invalid(String),
}

impl StoreError {
    /// Returns the kind of error, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Denied(_) => "denied",
            Self::NoSuchTable(_) => "no-table",
            Self::TooLarge => "too-large",
            Self::Invalid(_) => "invalid",
        }
    }

    /// Returns whether the same operation may succeed later without intervention.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable(_) => true,
            Self::Denied(_) | Self::NoSuchTable(_) | Self::TooLarge | Self::Invalid(_) => false,
        }
    }
}
