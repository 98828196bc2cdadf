//! Relays the bytes of a tunnel in both directions.
//!
//! An idle tunnel has no buffer, since all tunnels of a worker read into a shared one. Only bytes that the other side
//! does not accept at once are kept, at most one buffer. No more is read until they are written, so that a slow reader
//! slows down the sender.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use super::upgrade::Duplex;

/// One side of a tunnel.
pub(super) type Side = Pin<Box<dyn Duplex>>;

/// The read buffer that the tunnels of a worker share.
#[derive(Debug)]
pub(crate) struct Scratch(RefCell<Box<[u8]>>);

/// Size of a read, in bytes.
const SCRATCH_SIZE: usize = 16 * 1024;

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH_SIZE].into()))
    }
}

/// One direction of a tunnel.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    frames: Frames,
    /// Bytes that the other side has not accepted yet.
    unwritten: Bytes,
    /// Number of bytes that have been read.
    moved: u64,
    /// Whether a data frame has arrived since the last `take_data`.
    data: bool,
    unflushed: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The side that is read from has ended, and the other side is being shut down.
    Ending,
    Ended,
}

/// The side of a pipe that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailedSide {
    /// The side that is read from.
    From,
    /// The side that is written to.
    To,
}

impl Pipe {
    /// Relays bytes. Ready when `from` has ended and `to` has been shut down.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
        scratch: &Scratch,
    ) -> Poll<Result<(), FailedSide>> {
        self.poll_up_to(cx, from, to, scratch, |_| usize::MAX)
    }

    /// Relays the rest of an incomplete frame, and nothing after it. Ready when the frame is complete.
    pub(super) fn poll_finish_frame(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
        scratch: &Scratch,
    ) -> Poll<Result<(), FailedSide>> {
        let missing = |frames: &Frames| usize::try_from(frames.missing()).unwrap_or(usize::MAX);
        self.poll_up_to(cx, from, to, scratch, missing)
    }

    /// Relays at most as many bytes at a time as `limit` returns. Ready when that is 0.
    fn poll_up_to(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
        scratch: &Scratch,
        limit: impl Fn(&Frames) -> usize,
    ) -> Poll<Result<(), FailedSide>> {
        loop {
            while !self.unwritten.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.unwritten));
                self.unwritten.advance(reject_zero(written).map_err(|_| FailedSide::To)?);
                self.unflushed = true;
            }
            match self.stage {
                Stage::Open => {}
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| FailedSide::To)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
            let limit = limit(&self.frames);
            if limit == 0 {
                return self.poll_flush(cx, to);
            }
            let mut scratch = scratch.0.borrow_mut();
            let space = scratch.len().min(limit);
            let mut buffer = ReadBuf::new(scratch.get_mut(..space).unwrap_or_default());
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(FailedSide::From)),
                Poll::Pending => {
                    ready!(self.poll_flush(cx, to))?;
                    return Poll::Pending;
                }
            }
            let bytes = buffer.filled();
            if bytes.is_empty() {
                self.stage = Stage::Ending;
                continue;
            }
            self.moved += bytes.len() as u64;
            self.data |= self.frames.advance(bytes);
            self.unflushed = true;
            let written = match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(written) => reject_zero(written).map_err(|_| FailedSide::To)?,
                Poll::Pending => 0,
            };
            self.unwritten = Bytes::copy_from_slice(bytes.get(written..).unwrap_or_default());
        }
    }

    /// Reads and discards bytes. Ready when `from` has sent a Close frame, or has ended.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        scratch: &Scratch,
    ) -> Poll<()> {
        while !(self.is_closed() && self.frames.is_between_frames()) {
            let mut scratch = scratch.0.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.frames.advance(buffer.filled());
        }
        Poll::Ready(())
    }

    /// Flushes bytes that a lower layer, such as TLS, may buffer.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Side) -> Poll<Result<(), FailedSide>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx)).map_err(|_| FailedSide::To)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Returns the number of bytes that have been read.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Returns whether a data frame has arrived since the last call.
    pub(super) fn take_data(&mut self) -> bool {
        std::mem::take(&mut self.data)
    }

    /// Returns whether `from` has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Returns whether the gateway can insert a frame now: between two frames, before a Close frame.
    pub(super) fn can_send_frame(&self) -> bool {
        self.stage == Stage::Open
            && self.unwritten.is_empty()
            && self.frames.is_between_frames()
            && !self.is_closed()
    }

    /// Returns whether the side that is read from has sent a Close frame.
    pub(super) fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }
}

/// Turns a write of zero bytes into an error.
fn reject_zero(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}
