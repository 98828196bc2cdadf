//! What all requests of a connection share.

use std::rc::Rc;

use crate::config::{Limits, Timeouts};
use crate::proxy::{Peer, Worker};

/// What all requests of a connection share. The limits and timeouts are those of when the connection was accepted.
#[derive(Clone, Debug)]
pub(super) struct ConnectionContext {
    pub(super) peer: Rc<Peer>,
    pub(super) worker: Rc<Worker>,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
}
