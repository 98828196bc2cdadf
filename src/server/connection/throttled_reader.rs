//! How much of an HTTP/2 connection is read, and when.
//!
//! 1. A connection that has been read for a while lets others go first: one read may hold hundreds of frames.
//! 2. A connection that has reset streams, and any at its beginning, is read only if its address can pay for what it
//!    may be about to reset ([`ResetBudget`]), and no further than that. Until then its bytes stay where they are, and
//!    TCP tells the client. One that has reset nothing is not held up by others of its address.
//!
//! Responses are written all the while.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, ReadBuf};

use super::write_through::write_through;
use crate::rate::Balance;
use crate::server::connections::PausedConnection;
use crate::server::reset_budget::ResetBudget;
use crate::time::{Alarm, Clock};

/// What is read of a connection before others have their turn.
const TURN: usize = 64 * 1024;
/// What a stream takes that is opened and reset: four fields of a byte each and a code, with their frames' heads.
const STREAM: usize = 9 + 4 + 9 + 4;
/// The least that is read for what can be paid.
const LEAST: usize = 10 * STREAM;

/// What may be read of a connection.
#[derive(Debug)]
pub(super) struct ReadBudget {
    budget: ResetBudget,
    /// Whether it goes by what the address can pay.
    is_short: Cell<bool>,
    /// What is left of it in this turn.
    left: Cell<usize>,
    /// When the address can pay again; none: it can.
    due: Cell<Option<Instant>>,
    /// Until then.
    pause: RefCell<Option<PausedConnection>>,
}

/// A stream that is read by rations.
#[derive(Debug)]
pub(super) struct ThrottledReader<S> {
    stream: S,
    budget: Rc<ReadBudget>,
    alarm: Alarm,
}

// === impl ReadBudget ===

impl ReadBudget {
    /// Of a connection whose address pays `budget`, of which nothing is known yet.
    pub(super) fn new(budget: ResetBudget) -> Self {
        Self {
            budget,
            is_short: Cell::new(true),
            left: Cell::default(),
            due: Cell::default(),
            pause: RefCell::default(),
        }
    }

    /// Begins a turn; false: there will be none any more.
    pub(super) fn renew(&self) -> bool {
        if !self.is_short.get() {
            self.left.set(TURN);
            return true;
        }
        match self.budget.balance() {
            Ok(holding) => {
                self.due.set(None);
                self.pause.replace(None);
                self.left.set(match holding {
                    Balance::All => TURN,
                    Balance::Tokens(tokens) => {
                        usize::try_from(tokens).unwrap_or(TURN).saturating_mul(STREAM).clamp(LEAST, TURN)
                    }
                });
                self.is_short.set(holding != Balance::All);
                true
            }
            Err(wait) => {
                self.left.set(0);
                if self.due.replace(Some(Clock.mono() + wait)).is_none() {
                    self.pause.replace(self.budget.pause());
                }
                self.pause.borrow().is_some()
            }
        }
    }

    /// Whether streams were reset, and not long ago.
    pub(super) fn is_short(&self) -> bool {
        self.is_short.get()
    }

    /// A stream ended before its response.
    pub(super) fn debit(&self) {
        self.is_short.set(true);
        self.budget.debit();
    }

    /// The connection is ended for what its client did; up to `resets` of its streams were not charged.
    pub(super) fn end(&self, resets: usize) {
        self.budget.close_abusive(resets);
    }
}

// === impl ThrottledReader ===

impl<S> ThrottledReader<S> {
    pub(super) fn new(stream: S, budget: Rc<ReadBudget>) -> Self {
        Self { stream, budget, alarm: Alarm::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ThrottledReader<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = this.budget.left.get();
        if left == 0 {
            if let Some(due) = this.budget.due.get() {
                ready!(this.alarm.poll(cx, due));
            }
            // The next turn comes when others have had theirs.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = if left < buffer.remaining() {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left));
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
            count
        } else {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            buffer.filled().len() - before
        };
        this.budget.left.set(left - count);
        Poll::Ready(Ok(()))
    }
}

write_through!(ThrottledReader);
