//! Finds where WebSocket frames begin and end (RFC 6455, 5.2). Payloads are neither decoded nor kept.
//!
//! The gateway may send a Close frame between two frames and nowhere else. A stream that is not made of frames is relayed
//! all the same, but the gateway sends nothing of its own on it.

/// Follows one direction of a WebSocket.
#[derive(Debug, Default)]
pub(super) struct Frames {
    stage: Stage,
    closed: bool,
}

/// The position within a frame.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// In the header, of which these bytes have arrived.
    Header { bytes: [u8; LONGEST], have: usize },
    /// In the payload, of which `missing` bytes are still to come.
    Payload { missing: u64, is_data: bool },
    /// The stream is not made of frames.
    Lost,
}

/// Length of the longest header: two bytes, an 8-byte length and a mask.
const LONGEST: usize = 14;

/// The gateway's reasons to close a WebSocket (RFC 6455, 7.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// 1001: the client may connect again.
    GoingAway(&'static str),
    /// 1008: the client is no longer allowed.
    PolicyViolation(&'static str),
}

impl Default for Stage {
    fn default() -> Self {
        Self::Header { bytes: [0; LONGEST], have: 0 }
    }
}

impl Frames {
    /// Goes on by `bytes`; whether any of them belong to a data frame. Pings and pongs come by themselves.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut data = false;
        while let [first, rest @ ..] = bytes {
            match &mut self.stage {
                Stage::Lost => return data,
                Stage::Header { bytes: header, have } => {
                    if let Some(place) = header.get_mut(*have) {
                        *place = *first;
                    }
                    *have += 1;
                    bytes = rest;
                    let (header, have) = (*header, *have);
                    if have == header_length(&header, have) {
                        data |= self.begin(&header);
                    }
                }
                Stage::Payload { missing, is_data } => {
                    let here = usize::try_from(*missing).unwrap_or(usize::MAX).min(bytes.len());
                    data |= *is_data;
                    *missing -= here as u64;
                    if *missing == 0 {
                        self.stage = Stage::default();
                    }
                    bytes = bytes.get(here..).unwrap_or_default();
                }
            }
        }
        data
    }

    /// A header is complete; whether it is a data frame's.
    fn begin(&mut self, header: &[u8; LONGEST]) -> bool {
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
            too_long if too_long > i64::MAX as u64 => Stage::Lost,
            missing => Stage::Payload { missing, is_data },
        };
        is_data
    }

    /// Returns whether the last frame is complete.
    pub(super) fn is_between(&self) -> bool {
        matches!(self.stage, Stage::Header { have: 0, .. })
    }

    /// Returns how many bytes can be read without going beyond the end of the current frame; 0 between frames.
    pub(super) fn missing(&self) -> u64 {
        match &self.stage {
            Stage::Header { have: 0, .. } | Stage::Lost => 0,
            Stage::Header { bytes, have } => header_length(bytes, *have).saturating_sub(*have) as u64,
            Stage::Payload { missing, .. } => *missing,
        }
    }

    /// Returns whether a Close frame has arrived, after which no frame may follow.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}

/// Returns the length of the header, as far as its first `have` bytes determine it.
fn header_length(header: &[u8; LONGEST], have: usize) -> usize {
    let [_, second, ..] = header;
    if have < 2 {
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
    /// Returns the Close frame: unmasked as a server sends it, or masked as a client does.
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

    /// A frame with a payload of `length` bytes.
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
        fn it_is_between_frames_exactly_at_their_ends(frames in frames(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
            let ends: Vec<_> = frames.iter().scan(0, |at, frame| { *at += frame.len(); Some(*at) }).collect();
            let all = frames.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(all.len() + 1)).chain([all.len()]).collect();
            cuts.sort_unstable();
            let (mut follower, mut at) = (Frames::default(), 0);
            for cut in cuts {
                follower.follow(&all[at..cut]);
                at = cut;
                prop_assert_eq!(follower.is_between(), at == 0 || ends.contains(&at), "at {}", at);
                let end = ends.iter().find(|end| **end >= at).copied().unwrap_or(at);
                prop_assert!(follower.missing() <= (end - at) as u64);
                prop_assert_eq!(follower.missing() == 0, follower.is_between());
            }
        }

        #[test]
        fn what_is_missing_leads_to_the_end_and_not_beyond(frames in frames(), start in any::<prop::sample::Index>()) {
            let all = frames.concat();
            let mut at = start.index(all.len());
            let mut follower = Frames::default();
            follower.follow(&all[..at]);
            let mut steps = 0;
            while follower.missing() > 0 {
                let next = at + usize::try_from(follower.missing()).unwrap();
                follower.follow(&all[at..next]);
                at = next;
                steps += 1;
            }
            prop_assert!(follower.is_between() && steps <= 3);
        }

        #[test]
        fn anything_can_be_followed(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut follower = Frames::default();
            for piece in &pieces {
                follower.follow(piece);
                prop_assert!(!follower.is_between() || follower.missing() == 0);
            }
        }

        #[test]
        fn a_close_is_one_frame(mask in any::<Option<[u8; 4]>>()) {
            let frame = Close::PolicyViolation("the session has ended").frame(mask);
            let mut follower = Frames::default();
            prop_assert!(!follower.follow(&frame) && follower.is_between() && follower.is_closed());
            let (payload, key) = match mask { Some(mask) => (&frame[6..], mask), None => (&frame[2..], [0; 4]) };
            let plain: Vec<_> = payload.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect();
            prop_assert_eq!(plain, b"\x03\xf0the session has ended");
        }
    }

    #[test]
    fn data_counts_and_control_does_not() {
        for (opcode, expected) in [(0, true), (1, true), (2, true), (8, false), (9, false), (10, false)] {
            assert_eq!(Frames::default().follow(&frame(opcode, 3, true)), expected, "{opcode}");
        }
        let mut follower = Frames::default();
        assert!(follower.follow(&frame(2, 300, true)[..2]) || follower.follow(&frame(2, 300, true)[2..100]));
        assert!(follower.follow(&[0; 10]), "the middle of a data frame");
    }

    #[test]
    fn an_impossible_length_is_the_end_of_following() {
        let mut follower = Frames::default();
        follower.follow(&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]);
        assert!(!follower.is_between() && follower.missing() == 0);
        follower.follow(&frame(1, 3, false));
        assert!(!follower.is_between());
    }
}
