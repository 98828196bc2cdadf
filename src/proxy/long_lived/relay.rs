//! The bytes of a tunnel, both ways.
//!
//! A tunnel that is silent holds no buffer: what can be read is read into its worker's one, and only what the other
//! side does not take at once is kept, at most one bufferful. Nothing more is read before that is gone, so who reads
//! slowly is sent slowly.

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

/// How much of a tunnel is read at a time.
const SCRATCH: usize = 16 * 1024;

impl Default for Scratch {
    fn default() -> Self {
        Self(RefCell::new(vec![0; SCRATCH].into()))
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    frames: Frames,
    /// What the other side has not taken yet.
    rest: Bytes,
    moved: u64,
    /// Whether a data frame has come since it was last asked.
    data: bool,
    unflushed: bool,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Open,
    /// The one side has said its last; the other is to be told.
    Ending,
    Ended,
}

/// Which side failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The one that is read from.
    From,
    /// The one that is written to.
    To,
}

impl Pipe {
    /// Moves what there is. Ready when `from` has ended and `to` has been told.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
        scratch: &Scratch,
    ) -> Poll<Result<(), Broken>> {
        self.poll_up_to(cx, from, to, scratch, |_| usize::MAX)
    }

    /// Moves the rest of the frame under way, and nothing after it. Ready when there is nothing to move.
    pub(super) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
        scratch: &Scratch,
    ) -> Poll<Result<(), Broken>> {
        let missing = |frames: &Frames| usize::try_from(frames.missing()).unwrap_or(usize::MAX);
        self.poll_up_to(cx, from, to, scratch, missing)
    }

    fn poll_up_to(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        to: &mut Side,
        scratch: &Scratch,
        limit: impl Fn(&Frames) -> usize,
    ) -> Poll<Result<(), Broken>> {
        loop {
            while !self.rest.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.rest));
                self.rest.advance(some(written).map_err(|_| Broken::To)?);
                self.unflushed = true;
            }
            match self.stage {
                Stage::Open => {}
                Stage::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| Broken::To)?;
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
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
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
            self.data |= self.frames.follow(bytes);
            self.unflushed = true;
            let written = match Pin::new(&mut *to).poll_write(cx, bytes) {
                Poll::Ready(written) => some(written).map_err(|_| Broken::To)?,
                Poll::Pending => 0,
            };
            self.rest = Bytes::copy_from_slice(bytes.get(written..).unwrap_or_default());
        }
    }

    /// Reads on without passing anything on. Ready when `from` has said its last: a Close frame, or nothing more.
    pub(super) fn poll_discard(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Side,
        scratch: &Scratch,
    ) -> Poll<()> {
        while !(self.is_closed() && self.frames.is_between()) {
            let mut scratch = scratch.0.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.frames.follow(buffer.filled());
        }
        Poll::Ready(())
    }

    /// Sends on what a layer below, such as TLS, may be holding back.
    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &mut Side) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx)).map_err(|_| Broken::To)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes have been read.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether a data frame has come since this was last asked.
    pub(super) fn take_data(&mut self) -> bool {
        std::mem::take(&mut self.data)
    }

    /// Whether `from` has ended.
    pub(super) fn is_ended(&self) -> bool {
        self.stage != Stage::Open
    }

    /// Whether a frame of ours may follow on what has been written.
    pub(super) fn takes_frame(&self) -> bool {
        self.stage == Stage::Open && self.rest.is_empty() && self.frames.is_between() && !self.is_closed()
    }

    /// Whether the side that is read from has sent a Close frame.
    pub(super) fn is_closed(&self) -> bool {
        self.frames.is_closed()
    }
}

/// A side that takes nothing is broken.
fn some(written: io::Result<usize>) -> io::Result<usize> {
    match written {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        written => written,
    }
}
