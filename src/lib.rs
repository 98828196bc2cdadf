//! sessiongate: a reverse proxy that puts DynamoDB-backed sessions in front of web apps that know nothing about them.
//!
//! The modules are listed in reading order: value types first, then each layer after those it depends on, except
//! `telemetry`, which `store`, `session` and `proxy` use.
//! Dependencies point one way: `cli, server, admin → proxy → session → {format, store} → value types`.

pub mod claims;
pub mod fields;
mod header_lines;
pub mod headers;
mod host;
mod http1;
pub mod item;
pub mod message;
pub mod path;
pub mod rate;
pub mod secret;
pub mod time;
pub mod tls;
mod unix_socket;

pub mod config;

pub mod format;
pub mod store;

pub mod session;

pub mod route;
pub mod upstream;

pub mod proxy;

pub mod telemetry;

pub mod admin;
pub mod demo;
pub mod server;

pub mod cli;

#[doc(hidden)]
pub mod fuzzing;
