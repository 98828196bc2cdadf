//! Context shared by the requests of a connection.

use std::rc::Rc;

use crate::config::{Limits, Timeouts};
use crate::proxy::{Peer, Worker};

/// Context shared by the requests of a connection. The limits and timeouts are those of the configuration that was in
/// force when the connection was accepted.
#[derive(Clone, Debug)]
pub(super) struct ConnectionContext {
    pub(super) peer: Rc<Peer>,
    pub(super) worker: Rc<Worker>,
    pub(super) limits: Rc<Limits>,
    pub(super) timeouts: Rc<Timeouts>,
}
