//! Decoders for payloads that somebody else wrote. Their rule: what decoding costs in memory, stack and time has a bound
//! of its own, whatever the payload says of itself.

pub(super) mod inflate;
pub(super) mod json;
pub(super) mod msgpack;
