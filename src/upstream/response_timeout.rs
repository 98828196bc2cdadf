//! The timeout for a response head.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use super::body::BodyProgress;
use crate::time::{Alarm, Clock};

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
