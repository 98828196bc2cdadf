//! Bodies on their way through: never collected, never complete when they are not.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::handover::Handover;
use super::record::Record;
use crate::headers;
use crate::upstream::{Incoming, IncomingError, Lease, Progress};

/// A response's body on its way to the client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    sent: u64,
    /// Whether it was read to its end, which a chunked body shows in no other way.
    ended: bool,
    /// Written to the access log when the body has gone, or the client has.
    record: Option<Box<Record>>,
    /// Of a 101: who gets the connection.
    handover: Option<Box<Handover>>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    Upstream(Upstream),
}

/// A body that comes from an upstream.
#[derive(Debug)]
struct Upstream {
    incoming: Incoming,
    /// The connection, until the body has ended.
    lease: Option<Lease>,
    /// How far the request's body has come.
    request: Rc<Progress>,
    idle: Idle,
    /// Whether the client takes trailers.
    carries_trailers: bool,
}

/// The limit of waiting for the next piece.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

/// Why a response's body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream closed the connection, or sent what is not HTTP.
    #[error("the upstream broke off")]
    Broken(#[source] IncomingError),
    /// The upstream sent nothing for too long.
    #[error("the upstream stopped sending")]
    Idle,
}

impl ResponseBody {
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { source: Source::Full(Some(bytes)), sent: 0, ended: false, record: None, handover: None }
    }

    /// The body of an upstream's response, which comes over `lease`. That is put back at the body's end if by then the
    /// request's has ended too.
    pub(super) fn upstream(
        incoming: Incoming,
        lease: Lease,
        request: Rc<Progress>,
        idle_limit: Duration,
    ) -> Self {
        let idle = Idle { limit: idle_limit, sleep: None, waiting: false };
        let mut upstream = Upstream { incoming, lease: Some(lease), request, idle, carries_trailers: false };
        if upstream.incoming.is_end_stream() {
            upstream.end();
        }
        Self { source: Source::Upstream(upstream), sent: 0, ended: false, record: None, handover: None }
    }

    /// Passes trailers on, to a client that takes them.
    pub(super) fn carry_trailers(&mut self) {
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.carries_trailers = true;
        }
    }

    /// Has the client's connection given away once the head of this response, a 101, is written.
    pub fn hand_over(&mut self, handover: Handover) {
        self.handover = Some(Box::new(handover));
    }

    /// Who gets the client's connection.
    pub fn take_handover(&mut self) -> Option<Box<Handover>> {
        self.handover.take()
    }

    /// Has `record` written when the body has gone.
    pub(super) fn record(&mut self, record: Box<Record>) {
        self.record = Some(record);
    }
}

impl Upstream {
    /// The body has ended. What is missing of the request's is not waited for: its connection is closed.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.request.is_done()
        {
            lease.release();
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.waiting = false;
                    let frame = match frame.into_data() {
                        Ok(data) => Frame::data(data),
                        Err(frame) => {
                            let said = frame.into_trailers().ok().filter(|_| self.carries_trailers);
                            let said = said.and_then(|said| headers::kept(said, headers::is_trailer));
                            let Some(said) = said else { continue };
                            // Nothing comes after them, and nobody asks whether something does.
                            self.end();
                            return Poll::Ready(Some(Ok(Frame::trailers(said))));
                        }
                    };
                    if self.incoming.is_end_stream() {
                        self.end();
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.lease = None;
                    return Poll::Ready(Some(Err(BodyError::Broken(error))));
                }
                Poll::Ready(None) => {
                    self.end();
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    ready!(self.idle.poll(cx));
                    self.lease = None;
                    return Poll::Ready(Some(Err(BodyError::Idle)));
                }
            }
        }
    }
}

impl Idle {
    /// Ready when nothing has come for too long. One timer serves the whole body.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            let deadline = tokio::time::Instant::from_std(crate::time::Clock.mono()) + limit;
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = match &mut this.source {
            Source::Full(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Source::Upstream(upstream) => ready!(upstream.poll_frame(cx)),
        };
        match &polled {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) => this.sent += data.len() as u64,
                None => this.ended = true,
            },
            Some(Err(_)) => {}
            None => this.ended = true,
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Full(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Source::Upstream(upstream) => upstream.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Source::Upstream(upstream) => upstream.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            record.write(self.sent, self.ended || self.is_end_stream());
        }
    }
}
