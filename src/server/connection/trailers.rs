//! Makes h2 reject pseudo-header fields in the trailers of HTTP/2 requests.
//!
//! Such a field makes a request malformed (RFC 9113, 8.1), but h2 drops it and delivers the other fields. However, h2
//! rejects a pseudo-header field after a regular field. So a regular field, the marker, is inserted before the fields of
//! all trailers. The marker is one byte that refers to HPACK's static table, and does not change the compression state.
//! Only frame headers and the start of a header block are parsed here. h2 still validates each field. The marker is later
//! removed, together with other fields that are not allowed in trailers.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, ReadBuf};

use super::first_bytes::PREFACE;
use super::write_through::write_through;

/// Length of a frame header: three bytes of length, the type, the flags, and four bytes of the stream id.
const FRAME_HEADER: usize = 9;
/// The largest payload that h2 accepts. It ends the connection after a larger one.
const MAX_FRAME: usize = 16 * 1024;
/// The type of HEADERS frames, which begin a header block.
const HEADERS: u8 = 1;
/// The type of CONTINUATION frames, which continue a header block.
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// An empty `host` field, by its index in the static table (RFC 7541, A). `headers::is_trailer` does not allow `host`.
const MARKER: u8 = 0x80 | 38;

/// A stream that inserts the marker before the fields of all trailers that a client sends.
#[derive(Debug)]
pub(super) struct MarkedTrailers<S> {
    stream: S,
    frames: FramePosition,
    /// Bytes that were read but not passed on: an incomplete frame header, or trailers and the bytes after them.
    held: BytesMut,
    /// Number of held bytes that may be passed on.
    ready: usize,
}

/// The position among the client's frames.
#[derive(Debug)]
struct FramePosition {
    /// Number of bytes that are left of the preface or of the current frame.
    left: usize,
    /// The highest stream id so far. The first header block of each stream has a higher id than all earlier streams.
    latest: u32,
}

impl<S> MarkedTrailers<S> {
    /// Wraps `stream`, from which nothing has been read.
    pub(super) fn new(stream: S) -> Self {
        let frames = FramePosition { left: PREFACE.len(), latest: 0 };
        Self { stream, frames, held: BytesMut::new(), ready: 0 }
    }

    /// Updates the number of held bytes that may be passed on, and marks trailers that have arrived completely.
    fn process_held(&mut self) {
        loop {
            let rest = self.held.get(self.ready..).unwrap_or_default();
            self.ready += self.frames.skip(rest);
            let rest = self.held.get(self.ready..).unwrap_or_default();
            let Some(length) = frame_length(rest).filter(|length| rest.len() >= FRAME_HEADER + length) else {
                return;
            };
            let frame = rest.get(..FRAME_HEADER + length).unwrap_or_default();
            let Some(position) = marker_position(frame) else {
                self.ready += FRAME_HEADER + length;
                continue;
            };
            if length == MAX_FRAME {
                let marked = marked_without_padding(frame, position);
                let after = self.held.split_off(self.ready + frame.len());
                self.held.truncate(self.ready);
                self.held.extend_from_slice(&marked);
                self.held.extend_from_slice(&after);
                self.ready += marked.len();
                continue;
            }
            let after = self.held.split_off(self.ready + position);
            for (byte, new) in self.held.iter_mut().skip(self.ready).zip(length_bytes(length + 1)) {
                *byte = new;
            }
            self.held.extend_from_slice(&[MARKER]);
            self.held.extend_from_slice(&after);
            self.ready += FRAME_HEADER + length + 1;
        }
    }
}

impl FramePosition {
    /// Returns how many of `bytes` may be passed on: all before an incomplete frame header or trailers.
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
            passed += FRAME_HEADER;
            self.left = length;
        }
    }
}

/// Returns the payload length of the frame at the beginning of `bytes`, or `None` if its header is incomplete.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let [a, b, c, ..] = bytes.get(..FRAME_HEADER)? else { return None };
    Some(usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c))
}

/// Returns the length field of a frame header.
fn length_bytes(length: usize) -> impl Iterator<Item = u8> {
    let [.., a, b, c] = length.to_be_bytes();
    [a, b, c].into_iter()
}

/// Returns the frames that replace a HEADERS frame of the largest size, with the marker at `position`: the frame without
/// padding and priority, which h2 ignores here, and a CONTINUATION frame if it would still be too large.
fn marked_without_padding(frame: &[u8], position: usize) -> Vec<u8> {
    let Some((&[.., kind, flags, a, b, c, d], range)) =
        frame.first_chunk::<FRAME_HEADER>().zip(header_block(frame))
    else {
        return frame.to_vec();
    };
    let updates = frame.get(range.start..position).unwrap_or_default();
    let fields = frame.get(position..range.end).unwrap_or_default();
    let block = [updates, &[MARKER], fields].concat();
    let (first, rest) = block.split_at_checked(MAX_FRAME).unwrap_or((&block, &[]));
    let write = |kind, flags, payload: &[u8]| {
        let length: SmallVec<[u8; 3]> = length_bytes(payload.len()).collect();
        [&length[..], &[kind, flags, a, b, c, d], payload].concat()
    };
    let flags = flags & !(PADDED | PRIORITY);
    if rest.is_empty() {
        return write(kind, flags, first);
    }
    [write(kind, flags & !END_HEADERS, first), write(CONTINUATION, flags & END_HEADERS, rest)].concat()
}

/// Returns the position of the first field in a HEADERS frame: after the pad length, the priority, and updates of the
/// dynamic table's size. Returns `None` if the frame is invalid, which h2 reports.
fn marker_position(frame: &[u8]) -> Option<usize> {
    let range = header_block(frame)?;
    let end = range.end;
    let mut block = frame.get(range)?;
    // A size update (RFC 7541, 6.3) has the prefix 001 and five bits. If all five are set, more bytes follow, and the
    // last of them has its highest bit clear.
    while let Some((first, more)) = block.split_first().filter(|(first, _)| **first & 0xe0 == 0x20) {
        let count = match first & 0x1f {
            0x1f => more.iter().position(|byte| byte & 0x80 == 0).map(|last| last + 1),
            _ => Some(0),
        };
        // An update that continues in the next frame ends up after the marker, where h2 may reject it.
        let Some(after) = count.and_then(|count| more.get(count..)) else { break };
        block = after;
    }
    Some(end - block.len())
}

/// Returns the position of the header block in a HEADERS frame, between the pad length and the priority, and the padding.
/// Returns `None` if the frame is invalid.
fn header_block(frame: &[u8]) -> Option<Range<usize>> {
    let flags = *frame.get(4)?;
    let mut at = FRAME_HEADER;
    let mut end = frame.len();
    if flags & PADDED != 0 {
        end = end.checked_sub(usize::from(*frame.get(at)?))?;
        at += 1;
    }
    if flags & PRIORITY != 0 {
        at += 5;
    }
    (at <= end).then_some(at..end)
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
                this.process_held();
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut more = [0; 1024];
                let mut more = ReadBuf::new(&mut more);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut more))?;
                this.held.extend_from_slice(more.filled());
                if more.filled().is_empty() {
                    // The client has closed the stream in the middle of a frame.
                    this.ready = this.held.len();
                } else {
                    this.process_held();
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

    /// Returns the bytes that are passed on after `pieces` arrive one by one.
    fn pass_through(pieces: &[&[u8]]) -> Vec<u8> {
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
    fn marker_is_inserted_before_the_first_field_of_trailers_only() {
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
            assert_eq!(pass_through(&[&sent]), expected, "{flags} {payload:?}");
            let bytes: Vec<&[u8]> = sent.chunks(1).collect();
            assert_eq!(pass_through(&bytes), expected, "{flags} {payload:?}");
        }
    }

    #[test]
    fn marked_frames_do_not_exceed_the_largest_size() {
        let fields = |count| vec![0x81; count];
        let start = [PREFACE, &frame(HEADERS, 0, 1, b"\x81")].concat();
        let mut block = fields(MAX_FRAME);
        block.insert(0, MARKER);
        let last = block.split_off(MAX_FRAME);
        for flags in [0, 1, END_HEADERS, END_HEADERS | 1] {
            let sent =
                [&start[..], &frame(HEADERS, flags, 1, &fields(MAX_FRAME)), &frame(0, 1, 3, b"x")].concat();
            let expected = [
                &start[..],
                &frame(HEADERS, flags & 1, 1, &block),
                &frame(CONTINUATION, flags & END_HEADERS, 1, &last),
                &frame(0, 1, 3, b"x"),
            ];
            assert_eq!(pass_through(&[&sent]), expected.concat(), "{flags}");
        }
        let padded = [&[2], &fields(MAX_FRAME - 3)[..], &[0, 0]].concat();
        let sent = [&start[..], &frame(HEADERS, PADDED | END_HEADERS, 1, &padded)].concat();
        let marked = [&[MARKER], &fields(MAX_FRAME - 3)[..]].concat();
        let expected = [&start[..], &frame(HEADERS, END_HEADERS, 1, &marked)].concat();
        assert_eq!(pass_through(&[&sent]), expected);
    }

    proptest! {
        #[test]
        fn output_does_not_depend_on_splitting_and_has_only_markers_added(
            frames in prop::collection::vec((0_u8..3, any::<u8>(), 0_u32..5, 0_usize..40), 0..20),
            cuts in prop::collection::vec(1_usize..60, 0..30),
            end in 0_usize..30,
        ) {
            let frames = frames.iter().map(|(kind, flags, id, length)| frame(*kind, *flags, *id, &vec![0x81; *length]));
            let mut sent = [PREFACE, &frames.collect::<Vec<_>>().concat()].concat();
            sent.truncate(sent.len() - end.min(sent.len()));
            let whole = pass_through(&[&sent]);
            let (mut pieces, mut rest) = (Vec::new(), &sent[..]);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            prop_assert_eq!(&pass_through(&pieces), &whole);
            prop_assert!(whole.len() >= sent.len());
            let marks = whole.iter().filter(|byte| **byte == MARKER).count();
            prop_assert_eq!(whole.len() - marks, sent.len() - sent.iter().filter(|byte| **byte == MARKER).count());
        }

        #[test]
        fn arbitrary_bytes_are_passed_on(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(pass_through(&[&bytes]).len() >= bytes.len());
        }
    }
}
