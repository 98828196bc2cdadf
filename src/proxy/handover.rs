//! A client's connection that ceases to be HTTP's: what the connection gives up, and what whoever asked for it gets.
//!
//! Over HTTP/1.1 the whole connection is handed over, once its 101 is written; over HTTP/2, one stream of it.

use std::any::Any;
use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Duplex for S {}

/// Gives a connection to whoever waits for it.
#[derive(Debug)]
pub struct Handover(oneshot::Sender<Handed>);

/// A connection, from the first byte after the 101's head; or a stream of one.
pub struct Handed {
    pub(super) stream: Pin<Box<dyn Duplex>>,
    /// What is to be kept for as long as it is in use.
    pub(super) hold: Box<dyn Any>,
}

impl Handover {
    /// What gives, and what gets; nothing comes if the connection ends before.
    #[must_use]
    pub fn channel() -> (Self, oneshot::Receiver<Handed>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Gives `stream`, and `hold` to be kept with it. Whoever waited may have left, which closes it.
    pub fn give<S: Duplex + 'static>(self, stream: S, hold: impl Any) {
        let _ = self.0.send(Handed { stream: Box::pin(stream), hold: Box::new(hold) });
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed").finish_non_exhaustive()
    }
}
