//! Setup of the SDK's client: region, credentials, timeouts, retries, HTTP. The process has one client, which shares its
//! HTTP client with the credentials chain.
//!
//! Without a region or credentials, every request of the SDK would fail. Both are looked up here once, with a timeout, and
//! the error says what to set.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{
    AppName, Builder, Credentials, ProvideCredentials, Region, SharedCredentialsProvider,
    StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_types::retry::{ReconnectMode, RetryConfig};
use aws_smithy_types::timeout::TimeoutConfig;
use tokio::time::timeout;

use crate::config::DynamodbConfig;
use crate::secret::Secret;

use super::checked_http::with_checks;
use super::conflict::RetryConflicts;
use super::credentials::BackgroundProvider;
use super::sdk_error::root_cause;

/// Timeout for the SDK's provider chain when a store is opened: for the region, and again for the credentials. The chain
/// gives up on an absent metadata service after two seconds; a credentials helper or a chain of roles may take longer.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Neither the configuration nor the SDK's provider chain has a region.
    #[error(
        "no AWS region is known: set `region` in [store.dynamodb], or AWS_REGION, or a region in the AWS profile"
    )]
    NoRegion,
    /// The SDK's provider chain has no credentials.
    #[error("no AWS credentials: {reason}; {hint}")]
    NoCredentials {
        /// The chain's error.
        reason: String,
        /// The settings that provide credentials.
        hint: &'static str,
    },
    /// The endpoint is not an HTTP URL.
    #[error("the endpoint of [store.dynamodb] is not an http:// or https:// URL")]
    Endpoint,
    /// The database file cannot be opened or created.
    #[error("cannot open `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file exists and is not a database. It is not changed.
    #[error("`{}` is not a SQLite database: remove it, or set another `path` in [store.embedded]", .0.display())]
    NotADatabase(PathBuf),
    /// The engine cannot use the database: it is locked, damaged, or of a newer version.
    #[error("the embedded engine does not start: {0}")]
    Engine(String),
    /// The address of `listen` cannot be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// `listen` is not a loopback address. The engine's API has no authentication, so it is for this machine only.
    #[error("`listen` of [store.embedded] must be a loopback address, and {0} is not one")]
    NotLoopback(SocketAddr),
    /// The program was built without the feature `embedded`.
    #[error("this build has no embedded store: use [store.dynamodb], or build with the feature `embedded`")]
    NotBuilt,
}

/// AWS credentials from the caller, instead of the provider chain.
#[derive(Clone, Debug)]
pub struct StaticCredentials {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: Secret,
}

/// Creates a client of DynamoDB.
pub(super) async fn connect(
    config: &DynamodbConfig,
    credentials: Option<StaticCredentials>,
) -> Result<Client, StoreOpenError> {
    if config.endpoint.as_deref().is_some_and(|endpoint| !is_http_url(endpoint)) {
        return Err(StoreOpenError::Endpoint);
    }
    let http =
        aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();

    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(keys) = credentials {
        let secret = String::from_utf8_lossy(keys.secret_access_key.expose()).into_owned();
        let keys = Credentials::new(keys.access_key_id, secret, None, None, "static");
        loader = loader.credentials_provider(keys);
    }
    let shared = timeout(CHAIN_TIMEOUT, loader.load()).await.map_err(|_| StoreOpenError::NoRegion)?;
    if shared.region().is_none() {
        return Err(StoreOpenError::NoRegion);
    }

    let base = shared.credentials_provider().ok_or_else(|| no_credentials(config, "none are configured"))?;
    let provider = match &config.role_arn {
        Some(role) => {
            let role = AssumeRoleProvider::builder(role).configure(&shared).session_name("sessiongate");
            SharedCredentialsProvider::new(role.build_from_provider(base).await)
        }
        None => base,
    };
    let provider = BackgroundProvider::new(provider);
    match timeout(CHAIN_TIMEOUT, provider.provide_credentials()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(no_credentials(config, &root_cause(&error))),
        Err(_) => return Err(no_credentials(config, "the AWS SDK's credentials chain took more than 10 s")),
    }

    // Set the endpoint here: set on the loader, it would apply to STS, too. Likewise, only responses of DynamoDB are
    // checked.
    let reconnect = ReconnectMode::ReconnectOnTransientError;
    let mut builder = with_limits(Builder::from(&shared), config.timeout, config.attempts, reconnect)
        .http_client(with_checks(http))
        .credentials_provider(SharedCredentialsProvider::new(provider));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(builder.build()))
}

/// Sets the timeouts and retries of each operation, and whether a connection is reused after a transient error.
pub(super) fn with_limits(
    builder: Builder,
    limit: Duration,
    attempts: u32,
    reconnect: ReconnectMode,
) -> Builder {
    let attempts = attempts.max(1);
    // An attempt that hangs must leave time for another. Attempts beyond the third are for errors that come quickly.
    let attempt = limit / attempts.min(3);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(limit)
        .build();
    // The SDK's default backoff starts at up to a second, which may be the whole timeout.
    let retries = RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(limit / 20)
        .with_max_backoff(limit / 4)
        .with_reconnect_mode(reconnect);
    let builder = builder
        .timeout_config(timeouts)
        .retry_config(retries)
        .retry_classifier(RetryConflicts)
        // The attempt's timeout covers the whole response, so stalled streams need no detection of their own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    match AppName::new("sessiongate") {
        Ok(name) => builder.app_name(name),
        Err(_) => builder,
    }
}

fn is_http_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    })
}

fn no_credentials(config: &DynamodbConfig, reason: &str) -> StoreOpenError {
    let hint = if config.endpoint.is_some() {
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (any value, such as `local`, if the endpoint does not check them)"
    } else {
        "set `profile` in [store.dynamodb], or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
    };
    StoreOpenError::NoCredentials { reason: reason.to_owned(), hint }
}
