//! Long-lived responses: event streams, long downloads and WebSocket tunnels. They end when their session ends.

mod bind;
mod binding;
mod frames;
mod relay;
mod tunnel;
mod upgrade;
mod websocket;

pub(super) use bind::bind;
pub(super) use binding::{EndReason, SessionBinding, session_end};
pub(super) use relay::Scratch;
pub(super) use tunnel::Tunnel;
pub use tunnel::Tunnels;
pub use upgrade::{Upgrade, UpgradedIo};
pub(super) use websocket::{conclude_handshake, looks_accepted};
