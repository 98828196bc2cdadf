//! One client connection, from its first byte to its last: which protocol it speaks, and what it is waited for.
//!
//! 1. Nothing is set aside for a connection that has not said anything: hyper comes in with the first byte.
//! 2. Every wait for a client has a limit (`Activity` says which wait it is); none is for the upstream's slowness.
//! 3. A client that is answered before it has sent all gets to read the response: the rest is discarded for a while before
//!    the connection closes, or the stream.
//!
//! What a request comes to is `proxy`'s to say.

mod activity;
mod http1;
mod http2;
mod throttled_reader;
mod tracked_io;
mod trailers;

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::reset_budget::ResetBudget;
use crate::config::{Limits, Timeouts};
use crate::proxy::{Peer, Worker};

/// What an HTTP/2 client begins with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long a connection that is to end may stay idle. To close it at once could meet a request that is on its way; the
/// answer to one that comes within this time tells the client that it is the last.
const LAST_REQUEST: Duration = Duration::from_secs(2);
/// How long a farewell may take where no body is being sent, and the end of an encrypted stream.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long the body of a request that has been answered is read and discarded at most. Clients that look for the
/// response only when they have sent all, or that lose it to a reset, get it in this time.
const DISCARD: Duration = Duration::from_secs(10);

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientProtocol {
    /// HTTP/1.1 and nothing else.
    Http1,
    /// HTTP/2, as was negotiated.
    Http2,
    /// HTTP/2 if the client begins with its preface, HTTP/1.1 if with anything else.
    Unknown,
}

/// What all requests of a connection have in common.
#[derive(Clone, Debug)]
struct Terms {
    peer: Rc<Peer>,
    worker: Rc<Worker>,
    limits: Limits,
    timeouts: Timeouts,
}

/// Serves `stream` until either side has had enough.
pub(super) async fn serve<S>(
    mut stream: S,
    protocol: ClientProtocol,
    peer: Peer,
    worker: Rc<Worker>,
    budget: ResetBudget,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (limits, timeouts) = {
        let gateway = &worker.snapshot().gateway;
        (gateway.limits, gateway.timeouts)
    };
    let terms = Terms { peer: Rc::new(peer), worker, limits, timeouts };
    let first = match protocol {
        ClientProtocol::Http2 => {
            return Box::pin(http2::serve(stream, Bytes::new(), &terms, budget, stopped)).await;
        }
        ClientProtocol::Http1 => first_bytes(&mut stream, &[], timeouts.header, &mut stopped).await,
        ClientProtocol::Unknown => first_bytes(&mut stream, PREFACE, timeouts.header, &mut stopped).await,
    };
    match first {
        First::Nothing => close(&mut stream).await,
        First::Partial => Box::pin(http1::refuse_slow(&mut stream)).await,
        First::Bytes(bytes) if protocol == ClientProtocol::Unknown && bytes == PREFACE => {
            Box::pin(http2::serve(stream, bytes, &terms, budget, stopped)).await;
        }
        First::Bytes(bytes) => http1::serve(stream, bytes, &terms, stopped).await,
    }
}

/// What a connection begins with.
enum First {
    /// Nothing, and nothing is waited for any more.
    Nothing,
    /// A part of what might have become the preface of HTTP/2.
    Partial,
    /// These bytes; the preface as a whole, if they are that.
    Bytes(Bytes),
}

/// Reads the first bytes: no more than are needed to tell whether they are `preface`.
async fn first_bytes<S: AsyncRead + Unpin>(
    stream: &mut S,
    preface: &[u8],
    limit: Duration,
    stopped: &mut watch::Receiver<bool>,
) -> First {
    let mut buffer = [0; PREFACE.len()];
    let mut length = 0;
    let read = async {
        loop {
            let Some(free) = buffer.get_mut(length..) else { break true };
            match stream.read(free).await {
                Ok(0) | Err(_) => break false,
                Ok(count) => length += count,
            }
            let so_far = buffer.get(..length).unwrap_or_default();
            if length >= preface.len() || !preface.starts_with(so_far) {
                break true;
            }
        }
    };
    let mut read = pin!(read);
    let read = tokio::select! {
        read = tokio::time::timeout(limit, read.as_mut()) => read,
        // Who has been accepted may have asked already, though nothing has arrived yet.
        _ = stopped.wait_for(|stopped| *stopped) => tokio::time::timeout(LAST_REQUEST.min(limit), read).await,
    };
    match read {
        Ok(true) => First::Bytes(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())),
        Err(_) if length > 0 => First::Partial,
        Ok(false) | Err(_) => First::Nothing,
    }
}

/// Ends a connection that has nothing more to say.
async fn close<S: AsyncWrite + Unpin>(stream: &mut S) {
    // Who does not take the end of its stream is closed without.
    let _ = tokio::time::timeout(FAREWELL, stream.shutdown()).await;
}

/// Ends a connection whose client may still be sending. To close at once would reset it, and the client's system would
/// throw away the answer that it has not read yet (RFC 9112, 9.6). What it sends for `limit` is discarded.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, limit: Duration) {
    let farewell = async {
        stream.shutdown().await?;
        let mut buffer = [0; 8 * 1024];
        while stream.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    // Its end is all that was wanted, however it came.
    let _ = tokio::time::timeout(limit, farewell).await;
}
