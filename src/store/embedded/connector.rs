//! The engine in the place of the SDK's HTTP client. Above it everything is the SDK: it builds the requests, tells the
//! errors apart, and tries again.

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
use crate::store::client::limits;

/// The engine has no limits to configure. These are generous, since a disk may stall.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: u32 = 3;

/// A client whose requests never leave the process: nothing to sign, nobody to find.
pub(in crate::store) fn client(engine: &Engine) -> Client {
    let builder = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("embedded"))
        .endpoint_url("http://embedded.invalid")
        .allow_no_auth()
        .http_client(engine.http_client());
    // There are no connections. To end one would be an error, which the SDK logs.
    Client::from_conf(limits(builder, TIMEOUT, ATTEMPTS, ReconnectMode::ReuseAllConnections).build())
}

/// Answers the SDK's requests from an engine.
#[derive(Clone, Debug)]
pub(super) struct InProcess(Engine);

impl InProcess {
    pub(super) fn new(engine: Engine) -> Self {
        Self(engine)
    }
}

impl HttpClient for InProcess {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let engine = self.0.clone();
        HttpConnectorFuture::new(async move {
            let target = request.headers().get("x-amz-target").unwrap_or_default();
            // DynamoDB has no streaming operation, so the SDK holds every body whole.
            let body = Bytes::copy_from_slice(request.body().bytes().unwrap_or_default());
            let answer = engine.dispatch(target, body).await;
            let status = StatusCode::try_from(answer.status)
                .map_err(|error| ConnectorError::other(error.into(), None))?;
            Ok(HttpResponse::new(status, SdkBody::from(answer.body)))
        })
    }
}
