//! Bodies on their way through: never collected, never complete when they are not.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::bond::{self, Bond, Ending};
use super::handover::Handover;
use super::record::Entry;
use crate::headers;
use crate::time::Clock;
use crate::upstream::{Incoming, IncomingError, Lease, Progress, Sender};

/// A response's body on its way to the client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    sent: u64,
    /// Whether it was read to its end, which a chunked body shows in no other way.
    ended: bool,
    /// Written to the access log when the body has gone, or the client has.
    record: Option<Box<Entry>>,
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
    leash: Leash,
    /// Whether the client takes trailers.
    carries_trailers: bool,
}

/// The limit of waiting for the next piece.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// When the piece that is waited for is late.
    deadline: Option<Instant>,
}

/// What else may end a body.
enum Leash {
    /// Nothing.
    None,
    /// If it goes on, its session.
    Slack(Bond),
    /// This.
    Taut(Pin<Box<dyn Future<Output = Ending>>>),
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
    /// It could have gone on.
    #[error("{}", .0.label())]
    Ended(Ending),
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
        let idle = Idle { limit: idle_limit, sleep: None, deadline: None };
        let (lease, leash) = (Some(lease), Leash::None);
        let mut upstream = Upstream { incoming, lease, request, idle, leash, carries_trailers: false };
        if upstream.incoming.is_end_stream() {
            upstream.end();
        }
        Self { source: Source::Upstream(upstream), sent: 0, ended: false, record: None, handover: None }
    }

    /// What sends the rest of the request, if not all of it has been sent. It is needed while the client does not take this.
    pub(crate) fn request_sender(&self) -> Option<Sender> {
        match &self.source {
            Source::Upstream(upstream) if !upstream.request.is_done() => upstream.incoming.sender(),
            Source::Upstream(_) | Source::Full(_) => None,
        }
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

    /// Ties a body that goes on for long to its session.
    pub(super) fn bind(&mut self, bond: Bond) {
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.leash = Leash::Slack(bond);
        }
    }

    /// Lets the body be silent for `idle_limit`, and end with `ending`.
    pub(super) fn go_on(&mut self, idle_limit: Duration, ending: Pin<Box<dyn Future<Output = Ending>>>) {
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.idle.limit = idle_limit;
            upstream.leash = Leash::Taut(ending);
        }
    }

    /// Has `record` written when the body has gone.
    pub(super) fn record(&mut self, record: Box<Entry>) {
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
            if let Leash::Taut(ending) = &mut self.leash
                && let Poll::Ready(ending) = ending.as_mut().poll(cx)
            {
                self.leash = Leash::None;
                self.lease = None;
                return Poll::Ready(Some(Err(BodyError::Ended(ending))));
            }
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.deadline = None;
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
                    if ready!(self.idle.poll(cx, self.leash.due())) == Due::Look {
                        self.leash.draw();
                        continue;
                    }
                    self.lease = None;
                    return Poll::Ready(Some(Err(BodyError::Idle)));
                }
            }
        }
    }
}

impl Idle {
    /// Ready when nothing has come for too long, or it is time for the first look. One timer serves the whole body.
    fn poll(&mut self, cx: &mut Context<'_>, look: Option<Instant>) -> Poll<Due> {
        let limit = self.limit;
        let deadline = *self.deadline.get_or_insert_with(|| Clock.mono() + limit);
        let (at, due) = match look {
            Some(look) if look < deadline => (look.into(), Due::Look),
            Some(_) | None => (deadline.into(), Due::Late),
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx).map(|()| due)
    }
}

/// What a body's timer has gone off for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The next piece is late.
    Late,
    /// The session is to be looked after.
    Look,
}

impl Leash {
    /// When it is to be drawn.
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Slack(bond) => Some(bond.due()),
            Self::None | Self::Taut(_) => None,
        }
    }

    /// The body goes on for long: its session is looked after from now on.
    fn draw(&mut self) {
        if let Self::Slack(bond) = std::mem::replace(self, Self::None)
            && let Some(tie) = bond.tie()
        {
            *self = Self::Taut(Box::pin(bond::loosed(Some(tie))));
        }
    }
}

impl fmt::Debug for Leash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Slack(_) => "Slack",
            Self::Taut(_) => "Taut",
        })
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
            Some(Err(BodyError::Ended(ending))) => {
                this.record.iter_mut().for_each(|record| record.closed(ending.label()));
            }
            Some(Err(BodyError::Broken(_) | BodyError::Idle)) => {}
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
