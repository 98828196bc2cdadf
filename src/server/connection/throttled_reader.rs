//! Limits how much is read from an HTTP/2 connection, and when.
//!
//! 1. After a fixed amount, other tasks of the worker run first, because one read may contain hundreds of frames.
//! 2. A new connection, and one that has reset streams, is read only as far as its address has tokens for the streams
//!    that the bytes may reset ([`ResetBudget`]). Without tokens nothing is read, and TCP flow control stops the client.
//!    Once its address has had all tokens, a connection that resets nothing is not slowed down by other connections of
//!    the address.
//!
//! Writing responses is not limited.

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

/// Limit of the bytes that are read before other tasks run.
const MAX_READ: usize = 64 * 1024;
/// The fewest bytes that open and reset a stream: a HEADERS frame with four indexed fields, and an RST_STREAM frame.
const RESET_SIZE: usize = 9 + 4 + 9 + 4;
/// The fewest bytes that may be read if the address has a token.
const MIN_READ: usize = 10 * RESET_SIZE;

/// The number of bytes that may be read from a connection.
#[derive(Debug)]
pub(super) struct ReadBudget {
    reset_budget: ResetBudget,
    /// Whether the tokens of the address limit what is read.
    is_limited: Cell<bool>,
    /// Bytes that may still be read before the next [`Self::refill`].
    remaining: Cell<usize>,
    /// When the address has a token again; `None` if the connection is not paused.
    resume_at: Cell<Option<Instant>>,
    /// Held while the connection is paused.
    paused: RefCell<Option<PausedConnection>>,
}

/// A stream whose reads are limited by a [`ReadBudget`].
#[derive(Debug)]
pub(super) struct ThrottledReader<S> {
    stream: S,
    budget: Rc<ReadBudget>,
    alarm: Alarm,
}

// === impl ReadBudget ===

impl ReadBudget {
    /// Returns the budget of a new connection, which is limited by the tokens in `reset_budget`.
    pub(super) fn new(reset_budget: ResetBudget) -> Self {
        Self {
            reset_budget,
            is_limited: Cell::new(true),
            remaining: Cell::default(),
            resume_at: Cell::default(),
            paused: RefCell::default(),
        }
    }

    /// Refills the budget, or pauses the connection if the address has no token. Returns `false` if too many
    /// connections are paused, and the connection should be closed.
    pub(super) fn refill(&self) -> bool {
        if !self.is_limited.get() {
            self.remaining.set(MAX_READ);
            return true;
        }
        match self.reset_budget.balance() {
            Ok(balance) => {
                self.resume_at.set(None);
                self.paused.replace(None);
                self.remaining.set(match balance {
                    Balance::All => MAX_READ,
                    Balance::Tokens(tokens) => {
                        let bytes = usize::try_from(tokens).unwrap_or(MAX_READ).saturating_mul(RESET_SIZE);
                        bytes.clamp(MIN_READ, MAX_READ)
                    }
                });
                self.is_limited.set(balance != Balance::All);
                true
            }
            Err(wait) => {
                self.remaining.set(0);
                if self.resume_at.replace(Some(Clock.mono() + wait)).is_none() {
                    self.paused.replace(self.reset_budget.pause());
                }
                self.paused.borrow().is_some()
            }
        }
    }

    /// Returns whether the connection is new or has reset streams, and its address has not earned all tokens back.
    pub(super) fn is_limited(&self) -> bool {
        self.is_limited.get()
    }

    /// Takes a token for a stream that ended before its response was complete.
    pub(super) fn debit(&self) {
        self.is_limited.set(true);
        self.reset_budget.debit();
    }

    /// Counts a connection that is closed because of its client, and takes tokens for up to `resets` streams that were
    /// not debited.
    pub(super) fn close_abusive(&self, resets: usize) {
        self.reset_budget.close_abusive(resets);
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
        let remaining = this.budget.remaining.get();
        if remaining == 0 {
            if let Some(resume_at) = this.budget.resume_at.get() {
                ready!(this.alarm.poll(cx, resume_at));
            }
            // The connection's task refills the budget when it is polled again, after other tasks.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = if remaining < buffer.remaining() {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(remaining));
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buffer.advance(count);
            count
        } else {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            buffer.filled().len() - before
        };
        this.budget.remaining.set(remaining - count);
        Poll::Ready(Ok(()))
    }
}

write_through!(ThrottledReader);
