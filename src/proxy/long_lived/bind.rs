//! Binds response bodies to their session.

use http::header::CONTENT_TYPE;
use hyper::body::Body as _;
use tokio::sync::watch;

use super::binding::{SessionBinding, session_end_or_drain};
use crate::config::StreamsConfig;
use crate::message::Response;
use crate::proxy::response::ResponseBody;

/// Binds a response's body to its session.
///
/// The binding of an event stream is active from the start, since an event stream is always long-lived. It has its own
/// idle timeout, and ends when the gateway drains. The binding of any other body becomes active when the session is due
/// for its first recheck.
pub(in crate::proxy) fn bind(
    response: &mut Response<ResponseBody>,
    binding: Option<SessionBinding>,
    streams: &StreamsConfig,
    stopped: &watch::Receiver<bool>,
) {
    let kind = response.fields.get(&CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.split(|&byte| byte == b';').next());
    let is_events = kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"));
    let body = &mut response.body;
    if is_events && !body.is_end_stream() {
        let end = session_end_or_drain(binding.and_then(SessionBinding::activate), stopped.clone());
        body.stream_until(streams.idle_timeout, Box::pin(end));
    } else if let Some(binding) = binding {
        body.bind(binding);
    }
}
