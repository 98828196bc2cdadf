//! An embedded engine with DynamoDB's API, on SQLite: for demos, tests and small installations.
//!
//! The engine is Dynoxide, which is young, so only this module uses it: `dispatch` calls it, `connector` connects it to the
//! AWS SDK, `server` serves it to local apps. Streams are not supported, since each write would then cost time in
//! proportion to the table.

pub(super) mod connector;
pub mod dispatch;
mod engine;
pub(super) mod server;

pub use engine::{Engine, SWEEP_INTERVAL};
