//! Tracks the boundaries of WebSocket frames (RFC 6455, 5.2). Payloads are neither decoded nor kept.
//!
//! The gateway may send a Close frame only between two frames. A stream with invalid frames is relayed nevertheless, but
//! the gateway adds no frame to it.

/// The frames in one direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Frames {
    stage: Stage,
    closed: bool,
}

/// The position within a frame.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// In the header, of which `received` bytes have arrived.
    Header { bytes: [u8; MAX_HEADER], received: usize },
    /// In the payload, of which `missing` bytes have not arrived.
    Payload { missing: u64, is_data: bool },
    /// A frame was invalid, so that the boundaries are unknown.
    Invalid,
}

/// Length of the longest header: two bytes, an 8-byte length and a 4-byte mask.
const MAX_HEADER: usize = 14;

/// The status code and reason with which the gateway closes a WebSocket (RFC 6455, 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// 1001: the client may connect again.
    GoingAway(&'static str),
    /// 1008: the client is no longer allowed.
    PolicyViolation(&'static str),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Header { bytes: [0; MAX_HEADER], received: 0 }
    }
}

impl Frames {
    /// Advances by `bytes`. Returns whether any of them belong to a data frame. Control frames do not count, since
    /// browsers send pongs without user activity.
    pub(super) fn advance(&mut self, mut bytes: &[u8]) -> bool {
        let mut data = false;
        while let [first, rest @ ..] = bytes {
            match &mut self.stage {
                Stage::Invalid => return data,
                Stage::Header { bytes: header, received } => {
                    if let Some(byte) = header.get_mut(*received) {
                        *byte = *first;
                    }
                    *received += 1;
                    bytes = rest;
                    let (header, received) = (*header, *received);
                    if received == header_length(&header, received) {
                        data |= self.begin_payload(&header);
                    }
                }
                Stage::Payload { missing, is_data } => {
                    let count = usize::try_from(*missing).unwrap_or(usize::MAX).min(bytes.len());
                    data |= *is_data;
                    *missing -= count as u64;
                    if *missing == 0 {
                        self.stage = Stage::default();
                    }
                    bytes = bytes.get(count..).unwrap_or_default();
                }
            }
        }
        data
    }

    /// Begins the payload after a complete header. Returns whether this is a data frame.
    fn begin_payload(&mut self, header: &[u8; MAX_HEADER]) -> bool {
        let [first, second, a, b, c, d, e, f, g, h, ..] = *header;
        let missing = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([a, b])),
            127 => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            short => u64::from(short),
        };
        let opcode = first & 0x0f;
        let is_data = opcode < 8;
        self.closed |= opcode == 8;
        self.stage = match missing {
            0 => Stage::default(),
            // RFC 6455, 5.2: the most significant bit must be 0.
            too_long if too_long > i64::MAX as u64 => Stage::Invalid,
            missing => Stage::Payload { missing, is_data },
        };
        is_data
    }

    /// Returns whether the position is between two frames.
    pub(super) fn is_between_frames(&self) -> bool {
        matches!(self.stage, Stage::Header { received: 0, .. })
    }

    /// Returns how many bytes can be read without going beyond the end of the current frame: 0 between frames, or if a
    /// frame was invalid.
    pub(super) fn missing(&self) -> u64 {
        match &self.stage {
            Stage::Header { received: 0, .. } | Stage::Invalid => 0,
            Stage::Header { bytes, received } => {
                header_length(bytes, *received).saturating_sub(*received) as u64
            }
            Stage::Payload { missing, .. } => *missing,
        }
    }

    /// Returns whether a Close frame has arrived, after which no frame may follow.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Returns the length of a header, as far as its first `received` bytes determine it.
fn header_length(header: &[u8; MAX_HEADER], received: usize) -> usize {
    let [_, second, ..] = header;
    if received < 2 {
        return 2;
    }
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

impl Close {
    /// Returns the Close frame. Clients must mask their frames, servers must not.
    pub(super) fn frame(self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let (code, reason) = match self {
            Self::GoingAway(reason) => (1001_u16, reason),
            Self::PolicyViolation(reason) => (1008, reason),
        };
        let payload: Vec<u8> = code.to_be_bytes().into_iter().chain(reason.bytes()).collect();
        // Every reason is shorter than the 125 bytes that a control frame may hold.
        let length = u8::try_from(payload.len()).unwrap_or(2) & 0x7f;
        let mut frame = vec![0x88, length | if mask.is_some() { 0x80 } else { 0 }];
        frame.extend(mask.into_iter().flatten());
        let mask = mask.unwrap_or_default();
        frame.extend(payload.into_iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a frame with a payload of `length` bytes.
    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ ..126), _) => frame.push(mask | short),
            (_, Ok(middle)) => {
                frame.push(mask | 126);
                frame.extend(middle.to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0x7f, length + if masked { 4 } else { 0 }));
        frame
    }

    fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let length = prop_oneof![0..130_usize, Just(65_535), Just(65_536)];
        let one = (prop_oneof![Just(0), Just(1), Just(2), Just(9), Just(10)], length, any::<bool>());
        let one = one.prop_map(|(opcode, length, masked)| frame(opcode, length, masked));
        prop::collection::vec(one, 1..6)
    }

    proptest! {
        #[test]
        fn is_between_frames_exactly_at_frame_ends(frames in frames(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
            let ends: Vec<_> = frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            let all = frames.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(all.len() + 1)).chain([all.len()]).collect();
            cuts.sort_unstable();
            let (mut tracker, mut at) = (Frames::default(), 0);
            for cut in cuts {
                tracker.advance(&all[at..cut]);
                at = cut;
                prop_assert_eq!(tracker.is_between_frames(), at == 0 || ends.contains(&at), "at {}", at);
                let end = ends.iter().find(|end| **end >= at).copied().unwrap_or(at);
                prop_assert!(tracker.missing() <= (end - at) as u64);
                prop_assert_eq!(tracker.missing() == 0, tracker.is_between_frames());
            }
        }

        #[test]
        fn missing_bytes_end_exactly_at_the_frame_end(frames in frames(), start in any::<prop::sample::Index>()) {
            let all = frames.concat();
            let mut at = start.index(all.len());
            let mut tracker = Frames::default();
            tracker.advance(&all[..at]);
            let mut steps = 0;
            while tracker.missing() > 0 {
                let next = at + usize::try_from(tracker.missing()).unwrap();
                tracker.advance(&all[at..next]);
                at = next;
                steps += 1;
            }
            prop_assert!(tracker.is_between_frames() && steps <= 3);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut tracker = Frames::default();
            for piece in &pieces {
                tracker.advance(piece);
                prop_assert!(!tracker.is_between_frames() || tracker.missing() == 0);
            }
        }

        #[test]
        fn close_is_a_single_complete_frame(mask in any::<Option<[u8; 4]>>()) {
            let frame = Close::PolicyViolation("the session has ended").frame(mask);
            let mut tracker = Frames::default();
            prop_assert!(!tracker.advance(&frame) && tracker.is_between_frames() && tracker.is_closed());
            let (payload, key) = match mask { Some(mask) => (&frame[6..], mask), None => (&frame[2..], [0; 4]) };
            let plain: Vec<_> = payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect();
            prop_assert_eq!(plain, b"\x03\xf0the session has ended");
        }
    }

    #[test]
    fn only_data_frames_count_as_data() {
        for (opcode, expected) in [(0, true), (1, true), (2, true), (8, false), (9, false), (10, false)] {
            assert_eq!(Frames::default().advance(&frame(opcode, 3, true)), expected, "{opcode}");
        }
        let mut tracker = Frames::default();
        assert!(tracker.advance(&frame(2, 300, true)[..2]) || tracker.advance(&frame(2, 300, true)[2..100]));
        assert!(tracker.advance(&[0; 10]), "the middle of a data frame");
    }

    #[test]
    fn invalid_length_ends_tracking() {
        let mut tracker = Frames::default();
        tracker.advance(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!tracker.is_between_frames() && tracker.missing() == 0);
        tracker.advance(&frame(1, 3, false));
        assert!(!tracker.is_between_frames());
    }
}
