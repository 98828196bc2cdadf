//! The queue of bytes to be written to a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use smallvec::SmallVec;
use tokio::io::AsyncWrite;

/// Maximum number of pieces of one write (`IOV_MAX` on Linux).
const MAX_SLICES: usize = 1024;

/// A queue of bytes to be written in order.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    pieces: SmallVec<[Bytes; 4]>,
    /// Number of bytes of all pieces.
    bytes: usize,
}

impl WriteQueue {
    /// Appends a piece.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Returns the number of pieces.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Returns the number of bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Performs one write of as many bytes as the connection accepts. The queue must not be empty.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = Pin::new(stream);
        let mut written = if let [piece] = &*self.pieces {
            // A plain write is cheaper than a vectored one.
            ready!(stream.poll_write(cx, piece))?
        } else {
            let slices: SmallVec<[IoSlice<'_>; 4]> =
                self.pieces.iter().take(MAX_SLICES).map(|piece| IoSlice::new(piece)).collect();
            ready!(stream.poll_write_vectored(cx, &slices))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.bytes -= written;
        self.pieces.retain(|piece| {
            let count = written.min(piece.len());
            piece.advance(count);
            written -= count;
            !piece.is_empty()
        });
        Poll::Ready(Ok(()))
    }
}
