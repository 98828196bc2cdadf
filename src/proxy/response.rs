//! Responses: the upstream's on its way to the client, and the gateway's own.

mod body;
mod commands;
mod cookie_action;
mod grpc;
mod local;
mod refused;
mod respond;

pub use body::ResponseBody;
pub(super) use commands::apply_commands;
pub(super) use cookie_action::CookieAction;
pub(super) use local::local;
pub(super) use refused::{AcceptedErrors, refuse};
pub(super) use respond::respond;
