//! Tracks what an HTTP/2 connection waits for, so that each wait for the client has a timeout.
//!
//! The connection's stream, requests and responses record events in [`Activity`]. The connection's task asks it what the
//! connection waits for, and applies the timeout with a [`Deadline`].

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::proxy::ResponseBody;
use crate::time::{Alarm, Clock};
use crate::upstream::RequestSender;

/// The state of a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Number of requests in flight.
    in_flight: Cell<u32>,
    /// Whether a write waits for the client to read.
    write_blocked: Cell<bool>,
    /// The current wait for a request; changes whenever a new wait begins.
    read_wait: Cell<WaitId>,
    /// The current wait for the client to read. Separate, since receiving requests does not restart this wait.
    write_wait: Cell<WaitId>,
}

/// Distinguishes successive waits of the same kind.
pub(super) type WaitId = u64;

/// The event that a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing from the client: the gateway works, or a request body is received, which has its own timeout.
    Nothing,
    /// The next request.
    Request,
    /// The client to read the response.
    ClientRead,
}

/// Timeout of the current wait.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    wait: Option<(Wait, WaitId)>,
    expires: Option<Instant>,
    alarm: Alarm,
}

/// A request in flight. Dropping it ends the request.
#[derive(Debug)]
pub(super) struct RequestActivity {
    activity: Rc<Activity>,
    /// The progress of the response; `None` for a tunnel.
    response: Option<Rc<ResponseActivity>>,
}

/// Whether a response waits for its client to read.
#[derive(Debug, Default)]
pub(super) struct ResponseActivity {
    waits_for_client: Cell<bool>,
    /// Whether the response has ended, or was cut off and the client is not the cause.
    done: Cell<bool>,
    wait_id: Cell<WaitId>,
    /// Sends the rest of the request meanwhile, because some clients read only after sending the whole request.
    sender: RefCell<Option<RequestSender>>,
}

/// A response body that records its progress, and ends the request when it is dropped.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: ResponseBody,
    request: RequestActivity,
}

// === impl Activity ===

impl Activity {
    fn begin_read_wait(&self) {
        self.read_wait.set(self.read_wait.get().wrapping_add(1));
    }

    /// Records a write, and whether it has to wait for the client to read.
    pub(super) fn record_write(&self, blocked: bool) {
        // Only a write that makes progress restarts the timeout.
        if self.write_blocked.replace(blocked) != blocked {
            self.write_wait.set(self.write_wait.get().wrapping_add(1));
        }
    }

    /// Begins a request, whose response records its progress in `response`.
    pub(super) fn begin_request(self: &Rc<Self>, response: Option<Rc<ResponseActivity>>) -> RequestActivity {
        self.in_flight.set(self.in_flight.get() + 1);
        self.begin_read_wait();
        RequestActivity { activity: Rc::clone(self), response }
    }

    /// Returns what the connection waits for.
    pub(super) fn wait(&self) -> (Wait, WaitId) {
        match (self.write_blocked.get(), self.in_flight.get()) {
            (true, _) => (Wait::ClientRead, self.write_wait.get()),
            (false, 0) => (Wait::Request, self.read_wait.get()),
            (false, _) => (Wait::Nothing, self.read_wait.get()),
        }
    }
}

// === impl Deadline ===

impl Deadline {
    /// Ready when `wait` has lasted longer than `timeout`; never if `timeout` is `None`.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wait: (Wait, WaitId),
        timeout: Option<Duration>,
    ) -> Poll<()> {
        if self.wait != Some(wait) {
            self.wait = Some(wait);
            self.expires = timeout.map(|timeout| Clock.mono() + timeout);
        }
        self.expires.map_or(Poll::Pending, |expires| self.alarm.poll(cx, expires))
    }
}

// === impl RequestActivity ===

impl RequestActivity {
    /// Wraps the response body, whose end also ends the request.
    pub(super) fn track(self, body: ResponseBody) -> TrackedBody {
        if let Some(response) = &self.response {
            response.done.set(body.is_end_stream());
            response.sender.replace(body.request_sender());
        }
        TrackedBody { body, request: self }
    }
}

impl Drop for RequestActivity {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.in_flight.set(activity.in_flight.get().saturating_sub(1));
        activity.begin_read_wait();
    }
}

// === impl ResponseActivity ===

impl ResponseActivity {
    /// Returns what the response waits for.
    pub(super) fn wait(&self) -> (Wait, WaitId) {
        let wait = if self.waits_for_client.get() { Wait::ClientRead } else { Wait::Nothing };
        (wait, self.wait_id.get())
    }

    /// Sends more of the request body to the upstream. Polling the response body does this, too, but hyper does not
    /// poll it while the client does not read.
    pub(super) fn poll_request(&self, cx: &mut Context<'_>) {
        if self.waits_for_client.get()
            && let Some(sender) = &*self.sender.borrow()
        {
            sender.poll_send(cx);
        }
    }

    /// Returns whether the response has no more data.
    pub(super) fn is_done(&self) -> bool {
        self.done.get()
    }

    fn set(&self, waits_for_client: bool, done: bool) {
        self.waits_for_client.set(waits_for_client);
        self.done.set(done);
        self.wait_id.set(self.wait_id.get().wrapping_add(1));
    }
}

// === impl TrackedBody ===

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(response) = &this.request.response {
            // hyper polls for the next frame when the client's window has taken this one.
            let (waits_for_client, done) = match &polled {
                Poll::Pending => (false, false),
                Poll::Ready(Some(Ok(_))) => (true, this.body.is_end_stream()),
                Poll::Ready(None | Some(Err(_))) => (false, true),
            };
            response.set(waits_for_client, done);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
