//! What a connection is doing, and for how long it may.
//!
//! Its stream, its requests and its responses tell [`Activity`]; the connection's task asks it what the client is
//! waited for.

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

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests under way.
    open: Cell<u32>,
    /// Whether bytes have come since the last request.
    heard: Cell<bool>,
    /// Whether the client keeps bytes from being written.
    blocked: Cell<bool>,
    /// Whether the client may still be sending the body of the last request.
    sending: Rc<Cell<bool>>,
    /// Whether the client has ended its side.
    ended: Cell<bool>,
    /// Whether a request line that has to be mended was kept from hyper.
    held: Cell<bool>,
    /// Grows with each change: what is waited for now is not what was waited for before.
    turn: Cell<Turn>,
    /// The same of writing, since requests that come do not make a client read.
    stuck: Cell<Turn>,
}

/// Which wait of a kind it is.
pub(super) type Turn = u64;

/// What a client is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// Nothing: it is the gateway's turn, or a body's, which has limits of its own.
    Nothing,
    /// A request.
    Request,
    /// The rest of a request's head.
    Head,
    /// That it reads.
    Reader,
}

/// The time that a wait may take.
#[derive(Debug, Default)]
pub(super) struct Deadline {
    wait: Option<(Wait, Turn)>,
    due: Option<Instant>,
    alarm: Alarm,
}

/// A request under way, until its response has gone.
#[derive(Debug)]
pub(super) struct RequestActivity {
    activity: Rc<Activity>,
    /// Of a response that has a task of its own: what that waits for.
    reader: Option<Rc<Reader>>,
}

/// Whether a response waits for its client.
#[derive(Debug, Default)]
pub(super) struct Reader {
    waited_for: Cell<bool>,
    /// Whether the response has ended, or will not by no fault of the client's.
    done: Cell<bool>,
    turn: Cell<Turn>,
    /// What sends the rest of the request meanwhile: a client may want to send all of it before it reads.
    sender: RefCell<Option<RequestSender>>,
}

/// A response's body, which tells when it has gone.
#[derive(Debug)]
pub(super) struct Watched {
    body: ResponseBody,
    exchange: RequestActivity,
}

// === impl Activity ===

impl Activity {
    fn change(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        if !self.heard.replace(true) && self.open.get() == 0 {
            self.change();
        }
    }

    /// The client has ended its side.
    pub(super) fn ended(&self) {
        self.ended.set(true);
    }

    /// A request line that has to be mended is kept from hyper.
    pub(super) fn hold(&self) {
        self.held.set(true);
    }

    /// Whether a request line that has to be mended was kept from hyper.
    pub(super) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// Bytes were written, or could not be.
    pub(super) fn wrote(&self, blocked: bool) {
        // Each piece that gets through begins the wait anew, and nothing else does.
        if self.blocked.replace(blocked) != blocked {
            self.stuck.set(self.stuck.get().wrapping_add(1));
        }
    }

    /// A request has come; `sending`: its body has not yet.
    pub(super) fn begin(self: &Rc<Self>, sending: bool, reader: Option<Rc<Reader>>) -> RequestActivity {
        self.open.set(self.open.get() + 1);
        self.sending.set(sending);
        self.change();
        RequestActivity { activity: Rc::clone(self), reader }
    }

    /// Is true while the client may still be sending the body of the last request.
    pub(super) fn sending(&self) -> &Rc<Cell<bool>> {
        &self.sending
    }

    /// Whether what comes next belongs to a request's head, and nothing is left to be written.
    pub(super) fn expects_head(&self) -> bool {
        self.open.get() == 0 && !self.sending.get() && !self.blocked.get()
    }

    /// Whether bytes have come since the last request.
    pub(super) fn has_heard(&self) -> bool {
        self.heard.get()
    }

    /// What the client is waited for.
    pub(super) fn wait(&self) -> (Wait, Turn) {
        match (self.blocked.get(), self.open.get(), self.heard.get()) {
            (true, _, _) => (Wait::Reader, self.stuck.get()),
            (false, 0, false) => (Wait::Request, self.turn.get()),
            (false, 0, true) => (Wait::Head, self.turn.get()),
            (false, _, _) => (Wait::Nothing, self.turn.get()),
        }
    }

    /// Whether closing the connection could cost the client its answer: it may still be sending.
    pub(super) fn is_unheard(&self) -> bool {
        !self.ended.get() && (self.sending.get() || (self.open.get() == 0 && self.heard.get()))
    }
}

// === impl Deadline ===

impl Deadline {
    /// Ready when `wait` has lasted longer than `limit`; none: it may take any time.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        wait: (Wait, Turn),
        limit: Option<Duration>,
    ) -> Poll<()> {
        if self.wait != Some(wait) {
            self.wait = Some(wait);
            self.due = limit.map(|limit| Clock.mono() + limit);
        }
        self.due.map_or(Poll::Pending, |due| self.alarm.poll(cx, due))
    }
}

// === impl RequestActivity ===

impl RequestActivity {
    /// `body`, and with its end that of the exchange.
    pub(super) fn watch(self, body: ResponseBody) -> Watched {
        if let Some(reader) = &self.reader {
            reader.done.set(body.is_end_stream());
            reader.sender.replace(body.request_sender());
        }
        Watched { body, exchange: self }
    }
}

impl Drop for RequestActivity {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.open.set(activity.open.get().saturating_sub(1));
        activity.heard.set(false);
        activity.change();
    }
}

// === impl Reader ===

impl Reader {
    /// What the client is waited for.
    pub(super) fn wait(&self) -> (Wait, Turn) {
        let wait = if self.waited_for.get() { Wait::Reader } else { Wait::Nothing };
        (wait, self.turn.get())
    }

    /// Goes on with the request, of which nothing is sent otherwise while the response waits.
    pub(super) fn poll_request(&self, cx: &mut Context<'_>) {
        if self.waited_for.get()
            && let Some(sender) = &*self.sender.borrow()
        {
            sender.poll_send(cx);
        }
    }

    /// Whether nothing more is to come of the response.
    pub(super) fn is_done(&self) -> bool {
        self.done.get()
    }

    fn set(&self, waited_for: bool, done: bool) {
        self.waited_for.set(waited_for);
        self.done.set(done);
        self.turn.set(self.turn.get().wrapping_add(1));
    }
}

// === impl Watched ===

impl Body for Watched {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(reader) = &this.exchange.reader {
            // Whoever has a piece asks for the next when the client has taken this one.
            let (waited_for, done) = match &polled {
                Poll::Pending => (false, false),
                Poll::Ready(Some(Ok(_))) => (true, this.body.is_end_stream()),
                Poll::Ready(None | Some(Err(_))) => (false, true),
            };
            reader.set(waited_for, done);
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
