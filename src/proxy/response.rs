//! Responses to clients: those of upstreams, and those that the gateway generates.

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
