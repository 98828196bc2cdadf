//! Session commands of a scripted upstream: the query of a request has the header fields of its response,
//! `?X-Session-Patch={…}&…`, percent-encoded.

use serde_json::Value;

use super::client::Response;
use super::scripted_response::ScriptedResponse;
use super::server::ReceivedRequest;
use super::upstream::Upstream;

/// Starts an upstream whose responses have the header fields that the requests ask for.
pub(crate) fn upstream() -> Upstream {
    Upstream::responding(|request| with_commands(request, ScriptedResponse::ok("ok")))
}

/// Adds the header fields in the request's query to `response`.
pub(crate) fn with_commands(request: &ReceivedRequest, response: ScriptedResponse) -> ScriptedResponse {
    let (_, query) = request.target.split_once('?').unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('=')).fold(response, |response, (name, value)| {
        let value = percent_encoding::percent_decode_str(value).decode_utf8().unwrap();
        response.header(name, &value)
    })
}

/// Returns a request target that asks for these header fields.
pub(crate) fn command_target(path: &str, headers: &[(&str, impl AsRef<str>)]) -> String {
    let encode = |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let pairs: Vec<_> =
        headers.iter().map(|(name, value)| format!("{name}={}", encode(value.as_ref()))).collect();
    format!("{path}?{}", pairs.join("&"))
}

/// Returns a target of the path `/` that asks for a patch of the claims.
pub(crate) fn patch_target(claims: &Value) -> String {
    command_target("/", &[("X-Session-Patch", claims.to_string())])
}

/// Returns the cookie that a response sets, as `name=value`. Panics unless it sets exactly one.
pub(crate) fn set_cookie(response: &Response) -> String {
    let cookies = response.set_cookies();
    assert_eq!(cookies.len(), 1, "{response:?}");
    cookies[0].split(';').next().unwrap().to_owned()
}
