//! Pseudo-header fields in the trailers of HTTP/2 requests.
//!
//! They make a request malformed (RFC 9113, 8.1), but h2 drops them and hands over the rest. What h2 does refuse is a
//! pseudo-header field after a regular one. So a regular field is put in front of all trailers on their way to it: one
//! byte, an entry of HPACK's static table, which changes no state of the compression. Nothing but frame heads has to
//! be read for that, and h2 judges each field as it always does. The field goes with those that no trailers may hold.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use super::first_bytes::PREFACE;
use super::write_through::write_through;

/// A frame's head: three bytes of length, the type, the flags, and four of the stream's id.
const HEAD: usize = 9;
/// The largest frame that h2 takes; beyond it, it ends the connection.
const MAX_FRAME: usize = 16 * 1024;
/// A frame's type that begins a header block.
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `host` without a value, by its index in the static table (RFC 7541, A). `headers::is_trailer` takes none.
const MARK: u8 = 0x80 | 38;

/// A client's frames, with a mark in front of the fields of all trailers.
#[derive(Debug)]
pub(super) struct MarkedTrailers<S> {
    stream: S,
    frames: Frames,
    /// What was read and not passed on: the beginning of a frame's head, or trailers and what came with them.
    held: BytesMut,
    /// How much of that may be passed on.
    ready: usize,
}

/// How far the frames were followed.
#[derive(Debug)]
struct Frames {
    /// What is left of the preface, or of a frame.
    left: usize,
    /// The latest stream: a client opens each with a higher number than the one before, by its first header block.
    latest: u32,
}

impl<S> MarkedTrailers<S> {
    /// The frames that come over `stream`, of which nothing has been read.
    pub(super) fn new(stream: S) -> Self {
        let frames = Frames { left: PREFACE.len(), latest: 0 };
        Self { stream, frames, held: BytesMut::new(), ready: 0 }
    }

    /// Finds out how much of what is held may be passed on, and marks trailers that are there as a whole.
    fn follow(&mut self) {
        loop {
            let rest = self.held.get(self.ready..).unwrap_or_default();
            self.ready += self.frames.skip(rest);
            let rest = self.held.get(self.ready..).unwrap_or_default();
            let Some(length) = frame_length(rest).filter(|length| rest.len() >= HEAD + length) else {
                return;
            };
            let mark = mark_at(rest.get(..HEAD + length).unwrap_or_default());
            let Some(mark) = mark else {
                self.ready += HEAD + length;
                continue;
            };
            let after = self.held.split_off(self.ready + mark);
            for (byte, new) in self.held.iter_mut().skip(self.ready).zip(length_bytes(length + 1)) {
                *byte = new;
            }
            self.held.extend_from_slice(&[MARK]);
            self.held.extend_from_slice(&after);
            self.ready += HEAD + length + 1;
        }
    }
}

impl Frames {
    /// How many of `bytes` may be passed on: up to a head that is not there as a whole, or trailers.
    fn skip(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        loop {
            let count = self.left.min(bytes.len() - passed);
            passed += count;
            self.left -= count;
            let rest = bytes.get(passed..).unwrap_or_default();
            let [a, b, c, kind, _, id @ ..] = rest else { return passed };
            let Some(id) = id.first_chunk() else { return passed };
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            let id = u32::from_be_bytes(*id) & (u32::MAX >> 1);
            if *kind == HEADERS {
                if id <= self.latest && length <= MAX_FRAME {
                    return passed;
                }
                self.latest = self.latest.max(id);
            }
            passed += HEAD;
            self.left = length;
        }
    }
}

/// The length of the frame whose head `bytes` begins with.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let [a, b, c, ..] = bytes.get(..HEAD)? else { return None };
    Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
}

fn length_bytes(length: usize) -> impl Iterator<Item = u8> {
    let [.., a, b, c] = length.to_be_bytes();
    [a, b, c].into_iter()
}

/// Where in a frame of headers its first field begins: behind padding, priority, and what is said of the table's size.
/// None: the frame is broken, as h2 will find.
fn mark_at(frame: &[u8]) -> Option<usize> {
    let flags = *frame.get(4)?;
    let mut at = HEAD;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    let mut block = frame.get(at..end)?;
    // A size is 001 and five bits, or all of these set and more bytes, of which the last has no highest bit.
    while let Some((first, more)) = block.split_first().filter(|(first, _)| **first & 0xe0 == 0x20) {
        let count = match first & 0x1f {
            0x1f => more.iter().position(|byte| byte & 0x80 == 0).map(|last| last + 1),
            _ => Some(0),
        };
        // One that goes on in the next frame comes after the mark, where h2 may refuse it.
        let Some(after) = count.and_then(|count| more.get(count..)) else { break };
        block = after;
    }
    Some(end - block.len())
}

impl<S: AsyncRead + Unpin> AsyncRead for MarkedTrailers<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.ready > 0 {
                let count = this.ready.min(buffer.remaining());
                buffer.put_slice(this.held.get(..count).unwrap_or_default());
                this.held.advance(count);
                this.ready -= count;
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                let before = buffer.filled().len();
                ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
                let read = buffer.filled().get(before..).unwrap_or_default();
                let passed = this.frames.skip(read);
                if passed == read.len() {
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(read.get(passed..).unwrap_or_default());
                buffer.set_filled(before + passed);
                this.follow();
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut more = [0; 1024];
                let mut more = ReadBuf::new(&mut more);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut more))?;
                this.held.extend_from_slice(more.filled());
                if more.filled().is_empty() {
                    // The client has ended in the middle of a frame.
                    this.ready = this.held.len();
                } else {
                    this.follow();
                }
            }
        }
    }
}

write_through!(MarkedTrailers);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let length: Vec<u8> = length_bytes(payload.len()).collect();
        [&length[..], &[kind, flags], &id.to_be_bytes(), payload].concat()
    }

    /// What comes out when `pieces` go in.
    fn through(pieces: &[&[u8]]) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut marked = MarkedTrailers::new(near);
            let mut all = Vec::new();
            let mut read = async |all: &mut Vec<u8>| {
                let mut buffer = [0; 4096];
                match futures_util::FutureExt::now_or_never(marked.read(&mut buffer)) {
                    Some(count) => all.extend_from_slice(&buffer[..count.unwrap()]),
                    None => return false,
                }
                true
            };
            for piece in pieces {
                far.write_all(piece).await.unwrap();
                while read(&mut all).await {}
            }
            drop(far);
            loop {
                let before = all.len();
                assert!(read(&mut all).await);
                if all.len() == before {
                    return all;
                }
            }
        })
    }

    #[test]
    fn only_trailers_are_marked_behind_what_comes_before_their_fields() {
        let data = [frame(4, 0, 0, b"settings"), frame(0, 0, 1, b"data")].concat();
        for (flags, payload, marked) in [
            (0, &b"\x81"[..], &b"\xa6\x81"[..]),
            (0, b"", b"\xa6"),
            (PADDED, b"\x02\x81\0\0", b"\x02\xa6\x81\0\0"),
            (PRIORITY, b"\0\0\0\0\x10\x81", b"\0\0\0\0\x10\xa6\x81"),
            (PADDED | PRIORITY, b"\x01\0\0\0\0\x10\x81\0", b"\x01\0\0\0\0\x10\xa6\x81\0"),
            (0, b"\x20\x3f\xe1\x1f\x81", b"\x20\x3f\xe1\x1f\xa6\x81"),
            (0, b"\x20\x3f\xe1", b"\x20\xa6\x3f\xe1"),
            (PADDED, b"\x09\x81", b"\x09\x81"),
            (PRIORITY, b"\0", b"\0"),
        ] {
            let rest = [frame(HEADERS, flags, 3, payload), frame(0, 1, 3, b"x")].concat();
            let sent = [PREFACE, &data, &frame(HEADERS, 0, 1, b"\x81"), &data].concat();
            let trailers = |payload| frame(HEADERS, flags, 1, payload);
            let (sent, expected) = (
                [&sent[..], &trailers(payload), &rest, &frame(HEADERS, 0, 1, b"")].concat(),
                [&sent[..], &trailers(marked), &rest, &frame(HEADERS, 0, 1, b"\xa6")].concat(),
            );
            assert_eq!(through(&[&sent]), expected, "{flags} {payload:?}");
            let bytes: Vec<&[u8]> = sent.chunks(1).collect();
            assert_eq!(through(&bytes), expected, "{flags} {payload:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_nothing_else_is_changed(
            frames in prop::collection::vec((0_u8..3, any::<u8>(), 0_u32..5, 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..60, 0..30),
            end in 0_usize..30,
        ) {
            let frames = frames.iter().map(|(kind, flags, id, length)| frame(*kind, *flags, *id, &vec![0x81; *length]));
            let mut sent = [PREFACE, &frames.collect::<Vec<_>>().concat()].concat();
            sent.truncate(sent.len() - end.min(sent.len()));
            let whole = through(&[&sent]);
            let (mut pieces, mut rest) = (Vec::new(), &sent[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(&through(&pieces), &whole);
            prop_assert!(whole.len() >= sent.len());
            let marks = whole.iter().filter(|byte| **byte == MARK).count();
            prop_assert_eq!(whole.len() - marks, sent.len() - sent.iter().filter(|byte| **byte == MARK).count());
        }

        #[test]
        fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(through(&[&bytes]).len() >= bytes.len());
        }
    }
}
