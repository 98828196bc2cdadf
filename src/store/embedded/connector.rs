//! The engine as the SDK's HTTP client. The SDK builds the requests, parses the responses and retries as with DynamoDB.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Builder, HttpClient, Region, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ReconnectMode;
use bytes::Bytes;

use super::Engine;
use crate::store::client::with_limits;

/// Timeout of an operation; long, since a disk may stall.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of attempts of an operation.
const ATTEMPTS: u32 = 3;

/// Returns a client whose requests never leave the process, so it needs neither credentials nor an address.
pub(in crate::store) fn client(engine: &Engine) -> Client {
    let builder = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("embedded"))
        .endpoint_url("http://embedded.invalid")
        .allow_no_auth()
        .http_client(EngineHttpClient(engine.clone()));
    // There are no connections to close; the SDK would log an error if it had to close one.
    Client::from_conf(with_limits(builder, TIMEOUT, ATTEMPTS, ReconnectMode::ReuseAllConnections).build())
}

/// Passes the SDK's requests to an engine.
#[derive(Clone, Debug)]
struct EngineHttpClient(Engine);

impl HttpClient for EngineHttpClient {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for EngineHttpClient {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let engine = self.0.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            // DynamoDB has no streaming operations, so every body is in memory.
            let body = Bytes::copy_from_slice(request.body().bytes().unwrap_or_default());
            let response = engine.dispatch(target, body).await;
            let status = StatusCode::try_from(response.status)
                .map_err(|error| ConnectorError::other(error.into(), None))?;
            Ok(HttpResponse::new(status, SdkBody::from(response.body)))
        })
    }
}
