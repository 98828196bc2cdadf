//! The SDK's client, set up: region, credentials, limits, HTTP. One is built for the whole process, and its HTTP client
//! is shared with the credentials chain.
//!
//! What the SDK would only find out on the first request, and then again on each (no region, no credentials), is found
//! out here, once, within a bound, and said in words that name the way out.

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

use super::checked::checked;
use super::conflict::RetryConflicts;
use super::credentials::Detached;
use super::fault::innermost;

/// How long opening waits for the SDK's chain: for the region, and again for the credentials. The chain gives up on an
/// absent metadata service after two seconds; a credentials helper, or a role assumed over a role, may take longer.
const CHAIN_WAIT: Duration = Duration::from_secs(10);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Neither the configuration nor the SDK's chain has a region.
    #[error(
        "no AWS region is known: set `region` in [store.dynamodb], or AWS_REGION, or a region in the AWS profile"
    )]
    NoRegion,
    /// The SDK's chain has no credentials.
    #[error("no AWS credentials: {reason}; {way_out}")]
    NoCredentials {
        /// What the chain says.
        reason: String,
        /// What to set.
        way_out: &'static str,
    },
    /// The endpoint cannot be one.
    #[error("the endpoint of [store.dynamodb] is not an http:// or https:// URL")]
    Endpoint,
    /// The database file cannot be opened or made.
    #[error("cannot open `{}`: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is something else. It is left as it is.
    #[error("`{}` is not a SQLite database: remove it, or set another `path` in [store.embedded]", .0.display())]
    NotADatabase(PathBuf),
    /// The engine does not start on a file that looks right: locked, damaged, or of a newer version.
    #[error("the embedded engine does not start: {0}")]
    Engine(String),
    /// The address of `listen` cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The engine's API has no authentication, so it is served to this machine only.
    #[error("`listen` of [store.embedded] must be a loopback address, and {0} is not one")]
    NotLoopback(SocketAddr),
    /// This binary was built without the feature `embedded`.
    #[error("this build has no embedded store: use [store.dynamodb], or build with the feature `embedded`")]
    NotBuilt,
}

/// AWS credentials given by the caller instead of found by the chain.
#[derive(Clone, Debug)]
pub struct StaticCredentials {
    /// `AWS_ACCESS_KEY_ID`
    pub access_key_id: String,
    /// `AWS_SECRET_ACCESS_KEY`
    pub secret_access_key: Secret,
}

/// A client of DynamoDB over HTTP.
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
    let shared = timeout(CHAIN_WAIT, loader.load()).await.map_err(|_| StoreOpenError::NoRegion)?;
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
    let provider = Detached::new(provider);
    match timeout(CHAIN_WAIT, provider.provide_credentials()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(no_credentials(config, &innermost(&error))),
        Err(_) => return Err(no_credentials(config, "the AWS SDK's credentials chain takes over 10 s")),
    }

    // The endpoint is set here and not on the loader, where it would send the calls to STS to it as well. Neither are
    // the services of the credentials chain held to DynamoDB's responses.
    let reconnect = ReconnectMode::ReconnectOnTransientError;
    let mut builder = limits(Builder::from(&shared), config.timeout, config.attempts, reconnect)
        .http_client(checked(http))
        .credentials_provider(SharedCredentialsProvider::new(provider));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(builder.build()))
}

/// Sets the limits of each operation, and whether a connection is used again after an operation failed on it.
pub(super) fn limits(builder: Builder, limit: Duration, attempts: u32, reconnect: ReconnectMode) -> Builder {
    let attempts = attempts.max(1);
    // A try that hangs must leave time for another. Tries beyond the third are for failures that come back at once.
    let attempt = limit / attempts.min(3);
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(attempt)
        .operation_attempt_timeout(attempt)
        .operation_timeout(limit)
        .build();
    // The SDK's own first pause, up to a second, would use up the whole limit.
    let retries = RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(limit / 20)
        .with_max_backoff(limit / 4)
        .with_reconnect_mode(reconnect);
    let builder = builder
        .timeout_config(timeouts)
        .retry_config(retries)
        .retry_classifier(RetryConflicts)
        // Answers are read whole within the attempt's limit: watching their throughput as well would only cost.
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
    let way_out = if config.endpoint.is_some() {
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (any value, such as `local`, if the endpoint does not check them)"
    } else {
        "set `profile` in [store.dynamodb], or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role"
    };
    StoreOpenError::NoCredentials { reason: reason.to_owned(), way_out }
}
