//! Concludes a WebSocket handshake: from the upstream's 101 response to a tunnel.
//!
//! The upstream receives no bytes of the tunnel before its 101 response, and none if it sends another response. Over
//! HTTP/1.1, the upstream itself proves to the client that it accepts the client's key. The gateway computes that proof
//! only to check the upstream's.

use http::StatusCode;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};

use super::binding::SessionBinding;
use super::tunnel::{Tunnel, TunnelLimits};
use super::upgrade::Upgrade;
use crate::config::StreamsConfig;
use crate::message::Response;
use crate::proxy::request::{Handshake, UpgradeMethod};
use crate::proxy::response::ResponseBody;
use crate::upstream::Lease;

/// Returns the tunnel if the response accepts `handshake`. `upstream` is the upstream's end of the tunnel in that case.
pub(in crate::proxy) fn conclude_handshake(
    handshake: &Handshake,
    response: &mut Response<ResponseBody>,
    upstream: Option<Lease>,
    binding: Option<SessionBinding>,
    streams: &StreamsConfig,
) -> Option<Box<Tunnel>> {
    let (upstream, config) = upstream.zip(streams.websocket.as_ref())?;
    accept(handshake, response);
    let (upgrade, client) = Upgrade::channel();
    response.body.upgrade_with(upgrade);
    let limits = TunnelLimits { idle_timeout: streams.idle_timeout, max_age: config.max_age };
    Some(Box::new(Tunnel { client, upstream, binding, limits }))
}

/// Returns whether a client would take a response that does not switch protocols for an acceptance of its handshake.
pub(in crate::proxy) fn looks_accepted(handshake: &Handshake, status: StatusCode) -> bool {
    handshake.method() == UpgradeMethod::Connect && status.is_success()
}

/// Writes the acceptance in the form of the client's HTTP version.
fn accept(handshake: &Handshake, response: &mut Response<ResponseBody>) {
    let fields = &mut response.fields;
    fields.remove(&CONTENT_LENGTH);
    match handshake.method() {
        UpgradeMethod::Upgrade => {
            fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
        }
        // Over HTTP/2, a 2xx status alone is the acceptance (RFC 8441, 5).
        UpgradeMethod::Connect => {
            fields.remove(&SEC_WEBSOCKET_ACCEPT);
            response.status = StatusCode::OK;
        }
    }
}
