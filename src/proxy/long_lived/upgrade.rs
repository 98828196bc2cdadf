//! Upgraded IO: the client's end of a tunnel, passed from the connection that served HTTP to the tunnel.
//!
//! Over HTTP/1.1 that is the whole connection, once the 101 response is written. Over HTTP/2 it is one stream.

use std::any::Any;
use std::fmt;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;

/// A bidirectional byte stream.
pub trait Duplex: AsyncRead + AsyncWrite {}

impl<S: AsyncRead + AsyncWrite> Duplex for S {}

/// Passes the client's end of a tunnel to the tunnel.
#[derive(Debug)]
pub struct Upgrade(oneshot::Sender<UpgradedIo>);

/// The client's end of a tunnel: a connection from the first byte after the head of the 101, or an HTTP/2 stream.
pub struct UpgradedIo {
    pub(super) stream: Pin<Box<dyn Duplex>>,
    /// A value that lives as long as the stream is in use: over HTTP/2, the activity that keeps the connection from
    /// counting as idle.
    pub(super) hold: Box<dyn Any>,
}

impl Upgrade {
    /// Returns a connected sender and receiver. The receiver fails if the connection ends first.
    #[must_use]
    pub fn channel() -> (Self, oneshot::Receiver<UpgradedIo>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Sends `stream` to the tunnel, which keeps `hold` as long as the stream. If the tunnel has ended, both are dropped,
    /// which closes the stream.
    pub fn complete<S: Duplex + 'static>(self, stream: S, hold: impl Any) {
        let _ = self.0.send(UpgradedIo { stream: Box::pin(stream), hold: Box::new(hold) });
    }
}

impl fmt::Debug for UpgradedIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpgradedIo").finish_non_exhaustive()
    }
}
