//! The bytes that have been read from a connection but not parsed yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncRead;

/// Limits on the size of a read. The size grows while reads fill the buffer, so that large bodies need fewer reads.
const MIN_READ: usize = 8 * 1024;
const MAX_READ: usize = 256 * 1024;

/// The bytes that have been read from a connection but not parsed yet.
#[derive(Debug)]
pub(crate) struct ReadBuffer {
    pub(crate) bytes: BytesMut,
    /// The size of the allocation of `bytes`. `bytes.capacity()` excludes the consumed part.
    allocated: usize,
    /// The size of the next read.
    read_size: usize,
    /// Number of bytes that have been searched for the end of a head.
    searched: usize,
}

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self { bytes: BytesMut::new(), allocated: 0, read_size: MIN_READ, searched: 0 }
    }

    /// Returns the size of the buffer's allocation.
    #[cfg(test)]
    pub(crate) fn allocated(&self) -> usize {
        self.allocated
    }

    /// Reads more bytes. Returns how many; 0 is the end of the stream.
    pub(crate) fn poll_fill<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.bytes.reserve(self.read_size);
        let free = self.bytes.capacity() - self.bytes.len();
        self.allocated = self.allocated.max(self.bytes.capacity());
        let read = tokio_util::io::poll_read_buf(Pin::new(stream), cx, &mut self.bytes);
        if let Poll::Ready(Ok(count)) = read {
            if count == free {
                self.read_size = (self.read_size * 2).min(MAX_READ);
            } else if count < self.read_size / 4 {
                self.read_size = (self.read_size / 2).max(MIN_READ);
            }
        }
        read
    }

    /// Returns whether the buffer may hold a complete head of up to `limit` bytes. Without this check, a head that
    /// arrives byte by byte would be parsed from its beginning after each byte.
    pub(crate) fn may_hold_head(&self, limit: usize) -> bool {
        let length = self.bytes.len();
        if self.searched == 0 || length >= limit {
            return length > 0;
        }
        let new = self.bytes.get(self.searched.saturating_sub(2)..).unwrap_or_default();
        new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
    }

    /// Returns the number of bytes that have been searched for the end of a head.
    #[cfg(test)]
    pub(crate) fn searched(&self) -> usize {
        self.searched
    }

    /// Records that the buffer holds no complete head.
    pub(crate) fn set_searched(&mut self) {
        self.searched = self.bytes.len();
    }

    /// Records that a head was taken from the buffer.
    pub(crate) fn reset_search(&mut self) {
        self.searched = 0;
    }

    /// Frees the buffer if it is empty.
    pub(crate) fn free_if_empty(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
            self.allocated = 0;
        }
    }

    /// Frees the buffer if it is empty and larger than the next message is likely to need.
    pub(crate) fn free_if_large(&mut self) {
        if self.allocated > 2 * MIN_READ {
            self.free_if_empty();
        }
    }
}
