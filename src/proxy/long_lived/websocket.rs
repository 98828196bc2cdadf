//! The end of a WebSocket handshake: from an upstream's 101 to a tunnel.
//!
//! Nothing of the tunnel reaches the upstream before its 101, and nothing at all if it sends anything else. The client's
//! key is answered by the server at the other end of the tunnel, never by the gateway.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{Response, StatusCode};

use super::binding::SessionBinding;
use super::tunnel::{Tunnel, TunnelLimits};
use super::upgrade::Upgrade;
use crate::config::StreamsConfig;
use crate::proxy::refusal::Refusal;
use crate::proxy::request::{Handshake, UpgradeMethod};
use crate::proxy::response::ResponseBody;
use crate::upstream::Lease;

/// Makes the tunnel of a response that accepts `handshake`; `upstream` is the upstream's end of it if it does.
///
/// # Errors
/// Returns [`Refusal::BadAnswer`] if the client would take the response for an acceptance, and it is none.
pub(in crate::proxy) fn conclude_handshake(
    handshake: &Handshake,
    response: &mut Response<ResponseBody>,
    upstream: Option<Lease>,
    binding: Option<SessionBinding>,
    streams: &StreamsConfig,
) -> Result<Option<Tunnel>, Refusal> {
    match (upstream, &streams.websocket) {
        (Some(upstream), Some(config)) => {
            accept(handshake, response);
            let (upgrade, client) = Upgrade::channel();
            response.body_mut().upgrade_with(upgrade);
            let limits = TunnelLimits { idle_timeout: streams.idle_timeout, max_age: config.max_age };
            Ok(Some(Tunnel { client, upstream, binding, limits }))
        }
        (_, _) if handshake.method() == UpgradeMethod::Connect && response.status().is_success() => {
            Err(Refusal::BadAnswer)
        }
        (_, _) => Ok(None),
    }
}

/// Writes the acceptance in the form that the client asked in.
fn accept(handshake: &Handshake, response: &mut Response<ResponseBody>) {
    let headers = response.headers_mut();
    headers.remove(CONTENT_LENGTH);
    match handshake.method() {
        UpgradeMethod::Upgrade => {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        // RFC 8441, 5: a 2xx status is the whole acceptance.
        UpgradeMethod::Connect => {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            *response.status_mut() = StatusCode::OK;
        }
    }
}
