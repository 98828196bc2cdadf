//! Why the store did not do what it was asked, in the few kinds that call for different answers.

/// A failed operation on a table.
///
/// "There is no such row" is not among them: that is an answer. Neither is a refused condition.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The table is throttled, or the account is.
    #[error("DynamoDB is throttling")]
    Throttled,
    /// No answer, or one that makes no sense: network, timeout, server error.
    #[error("DynamoDB is unavailable: {0}")]
    Unavailable(String),
    /// No credentials, wrong ones, or no permission.
    #[error("DynamoDB refuses access: {0}")]
    Denied(String),
    /// The table is not there.
    #[error("table `{0}` does not exist")]
    NoSuchTable(String),
    /// The row is larger than DynamoDB's 400 KB.
    #[error("the row is larger than DynamoDB's limit of 400 KB")]
    TooLarge,
    /// DynamoDB does not accept the request: the table's key is not what was expected, or this is a defect.
    #[error("DynamoDB refuses the request: {0}")]
    Invalid(String),
}

impl StoreError {
    /// The kind in one word, for counts.
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

    /// Whether the same request may succeed later, without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled | Self::Unavailable(_) => true,
            Self::Denied(_) | Self::NoSuchTable(_) | Self::TooLarge | Self::Invalid(_) => false,
        }
    }
}
