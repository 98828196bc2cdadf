//! Decoders for untrusted payloads. Memory, stack and time are bounded, whatever lengths the payload declares.

pub(super) mod inflate;
pub(super) mod json;
pub(super) mod msgpack;
