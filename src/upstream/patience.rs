//! How long a response's head is waited for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use super::body::BodyProgress;
use crate::time::{Alarm, Clock};

/// Waits for a response's head: as long as the request's body is still being sent, `limit` is that of its next piece. Who
/// stops waiting drops the request, which closes the connection.
pub(super) async fn patiently<F: Future + Unpin>(
    mut sending: F,
    limit: Duration,
    progress: &BodyProgress,
    alarm: &mut Alarm,
) -> Option<F::Output> {
    let mut frames = progress.frames();
    let mut due = Clock.mono() + limit;
    poll_fn(|cx| {
        if let Poll::Ready(sent) = Pin::new(&mut sending).poll(cx) {
            return Poll::Ready(Some(sent));
        }
        loop {
            ready!(alarm.poll(cx, due));
            if progress.frames() == frames {
                return Poll::Ready(None);
            }
            frames = progress.frames();
            due = Clock.mono() + limit;
        }
    })
    .await
}
