//! Timeouts for a response: for a 100 response, and for the head of the final response.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Poll, ready};
use std::time::Duration;

use super::body::{BodyProgress, RequestBody};
use super::http1::Http1Connection;
use super::stream::ServerStream;
use super::target::Target;
use crate::time::{Alarm, Clock};

/// Timeout for the 100 response of a server to `Expect: 100-continue`. A server that ignores the field waits for the body.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until the body of the request on `connection` may be sent: at once without `Expect: 100-continue`, or else after
/// a 100 response, a second, or `timeout` if that is shorter. Returns the result of `sending` if the server responds
/// without the body. A server that does not respond in time is not asked again.
pub(super) async fn await_continue<F: Future + Unpin>(
    connection: &Http1Connection<ServerStream, RequestBody>,
    sending: &mut F,
    timeout: Duration,
    target: &Target,
    alarm: &mut Alarm,
) -> Option<F::Output> {
    if !connection.awaits_continue() {
        return None;
    }
    let deadline = Clock.mono() + timeout.min(CONTINUE_TIMEOUT);
    let response = poll_fn(|cx| {
        if let Poll::Ready(sent) = Pin::new(&mut *sending).poll(cx) {
            return Poll::Ready(Some(sent));
        }
        if !connection.awaits_continue() {
            return Poll::Ready(None);
        }
        alarm.poll(cx, deadline).map(|()| None)
    })
    .await;
    if response.is_none() && connection.awaits_continue() {
        connection.stop_awaiting_continue();
        target.ignores_expect.store(true, Relaxed);
        tracing::debug!(server = %target.label, "the server did not respond to Expect: 100-continue in time");
    }
    response
}

/// Waits for the response head that `sending` resolves to, and returns `None` on timeout. The timeout starts over if data
/// of the request body was sent meanwhile. On timeout, the caller drops the request, which closes an HTTP/1.1
/// connection and resets an HTTP/2 stream.
pub(super) async fn await_response_head<F: Future + Unpin>(
    mut sending: F,
    timeout: Duration,
    progress: &BodyProgress,
    alarm: &mut Alarm,
) -> Option<F::Output> {
    let mut frames = progress.frames();
    let mut deadline = Clock.mono() + timeout;
    poll_fn(|cx| {
        if let Poll::Ready(sent) = Pin::new(&mut sending).poll(cx) {
            return Poll::Ready(Some(sent));
        }
        loop {
            ready!(alarm.poll(cx, deadline));
            if progress.frames() == frames {
                return Poll::Ready(None);
            }
            frames = progress.frames();
            deadline = Clock.mono() + timeout;
        }
    })
    .await
}
