//! Response bodies. They are streamed, never collected. An incomplete body never looks complete to the client.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::headers;
use crate::proxy::log::LogEntry;
use crate::proxy::long_lived::{self, EndReason, SessionBinding, Upgrade};
use crate::time::Clock;
use crate::upstream::{BodyProgress, Incoming, IncomingError, Lease, RequestSender};

/// The body of a response to a client.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    sent: u64,
    /// Whether the body was read to its end.
    ended: bool,
    /// The entry of the access log, which is written when the body has been sent or the client has disconnected.
    record: Option<Box<LogEntry>>,
    /// Passes on the client's end of the tunnel once the head of this response is written; `None` without a tunnel.
    upgrade: Option<Box<Upgrade>>,
}

#[derive(Debug)]
enum Source {
    Full(Option<Bytes>),
    /// Boxed, since every step of the response moves it.
    Upstream(Box<Upstream>),
}

/// The body of an upstream's response.
#[derive(Debug)]
struct Upstream {
    incoming: Incoming,
    /// The connection, until the body has ended.
    lease: Option<Lease>,
    /// The progress of sending the request body.
    request: Rc<BodyProgress>,
    idle: Idle,
    binding: Binding,
    /// Whether the body was polled before.
    has_begun: bool,
    /// Whether trailers are forwarded, because the client accepts them.
    forwards_trailers: bool,
}

/// The timeout for the next piece of the body.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The end of the timeout for the next piece.
    deadline: Option<Instant>,
}

/// The binding of a body to its session.
enum Binding {
    /// The body is not bound.
    None,
    /// The binding becomes active if the body still streams when the session is due for its first recheck.
    Pending(SessionBinding),
    /// The body ends when this future is ready.
    Active(Pin<Box<dyn Future<Output = EndReason>>>),
}

/// The reason why a response body was cut off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The upstream closed the connection, or sent invalid HTTP.
    #[error("the upstream's response is incomplete or invalid")]
    Broken(#[source] IncomingError),
    /// The upstream sent nothing for too long.
    #[error("the upstream stopped sending")]
    Idle,
    /// The gateway ended the body.
    #[error("{}", .0.label())]
    Ended(EndReason),
}

impl ResponseBody {
    pub(in crate::proxy) fn full(bytes: Bytes) -> Self {
        Self { source: Source::Full(Some(bytes)), sent: 0, ended: false, record: None, upgrade: None }
    }

    /// Omits the content of a response that the gateway generates, since the request is HEAD. Returns its length.
    pub(in crate::proxy) fn omit_content(&mut self) -> Option<usize> {
        match &mut self.source {
            Source::Full(bytes) => bytes.take().map(|bytes| bytes.len()),
            Source::Upstream(_) => None,
        }
    }

    /// Returns the body of an upstream's response, which is read from the connection of `lease`. The connection returns to
    /// the pool at the body's end if the request has been sent completely by then.
    pub(in crate::proxy) fn upstream(
        incoming: Incoming,
        lease: Lease,
        request: Rc<BodyProgress>,
        idle_limit: Duration,
    ) -> Self {
        let idle = Idle { limit: idle_limit, sleep: None, deadline: None };
        let (lease, binding) = (Some(lease), Binding::None);
        let mut upstream = Box::new(Upstream {
            incoming,
            lease,
            request,
            idle,
            binding,
            has_begun: false,
            forwards_trailers: false,
        });
        if upstream.incoming.is_end_stream() {
            upstream.end();
        }
        Self { source: Source::Upstream(upstream), sent: 0, ended: false, record: None, upgrade: None }
    }

    /// Returns a handle that sends the rest of the request, if the request is incomplete. The caller polls it while the
    /// client does not read this body.
    pub(crate) fn request_sender(&self) -> Option<RequestSender> {
        match &self.source {
            Source::Upstream(upstream) if !upstream.request.is_done() => upstream.incoming.sender(),
            Source::Upstream(_) | Source::Full(_) => None,
        }
    }

    /// Forwards trailers to the client.
    pub(super) fn forward_trailers(&mut self) {
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.forwards_trailers = true;
        }
    }

    /// Passes the client's end of the tunnel to `upgrade` once the head of this response is written.
    pub(in crate::proxy) fn upgrade_with(&mut self, upgrade: Upgrade) {
        self.upgrade = Some(Box::new(upgrade));
    }

    /// Takes the [`Upgrade`] for the client's end of the tunnel, if this response opens a tunnel.
    pub fn take_upgrade(&mut self) -> Option<Box<Upgrade>> {
        self.upgrade.take()
    }

    /// Binds the body to its session, from the first recheck of the session on.
    pub(in crate::proxy) fn bind(&mut self, binding: SessionBinding) {
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.binding = Binding::Pending(binding);
        }
    }

    /// Sets the idle timeout of the body, and ends the body when `end` is ready.
    pub(in crate::proxy) fn stream_until(
        &mut self,
        idle_limit: Duration,
        end: Pin<Box<dyn Future<Output = EndReason>>>,
    ) {
        if let Source::Upstream(upstream) = &mut self.source {
            upstream.idle.limit = idle_limit;
            upstream.binding = Binding::Active(end);
        }
    }

    /// Writes `record` when the body has been sent.
    pub(in crate::proxy) fn record(&mut self, record: Box<LogEntry>) {
        self.record = Some(record);
    }
}

impl Upstream {
    /// Ends the body: returns the connection to the pool if the request is complete, and closes it otherwise.
    fn end(&mut self) {
        if let Some(lease) = self.lease.take()
            && self.request.is_done()
        {
            lease.release();
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // The timer for the first recheck is only polled while the upstream has sent nothing more. If the client is slower
        // than the upstream, that may never be the case.
        if self.has_begun && self.binding.due().is_some_and(|due| due <= Clock.mono()) {
            self.binding.activate();
        }
        self.has_begun = true;
        loop {
            if let Binding::Active(end) = &mut self.binding
                && let Poll::Ready(reason) = end.as_mut().poll(cx)
            {
                self.binding = Binding::None;
                self.lease = None;
                return Poll::Ready(Some(Err(BodyError::Ended(reason))));
            }
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.idle.deadline = None;
                    let frame = match frame.into_data() {
                        Ok(data) => Frame::data(data),
                        Err(frame) => {
                            let trailers = frame.into_trailers().ok().filter(|_| self.forwards_trailers);
                            let trailers =
                                trailers.and_then(|trailers| headers::retain(trailers, headers::is_trailer));
                            let Some(trailers) = trailers else { continue };
                            // Trailers are the last frame, and the caller may not poll again.
                            self.end();
                            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
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
                    if ready!(self.idle.poll(cx, self.binding.due())) == Due::Recheck {
                        self.binding.activate();
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
    /// Ready when the next piece is late, or when the session is due for its first recheck. One timer serves the whole
    /// body.
    fn poll(&mut self, cx: &mut Context<'_>, recheck: Option<Instant>) -> Poll<Due> {
        let limit = self.limit;
        let deadline = *self.deadline.get_or_insert_with(|| Clock.mono() + limit);
        let (at, due) = match recheck {
            Some(recheck) if recheck < deadline => (recheck.into(), Due::Recheck),
            Some(_) | None => (deadline.into(), Due::Late),
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx).map(|()| due)
    }
}

/// The reason why a body's timer fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// The next piece is late.
    Late,
    /// The session is due for its first recheck.
    Recheck,
}

impl Binding {
    /// Returns when a pending binding becomes active.
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Pending(binding) => Some(binding.due()),
            Self::None | Self::Active(_) => None,
        }
    }

    /// Monitors the session from now on, since the body is long-lived.
    fn activate(&mut self) {
        if let Self::Pending(binding) = std::mem::replace(self, Self::None)
            && let Some(active) = binding.activate()
        {
            *self = Self::Active(Box::pin(long_lived::session_end(Some(active))));
        }
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Pending(_) => "Pending",
            Self::Active(_) => "Active",
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
            Some(Err(BodyError::Ended(reason))) => {
                this.record.iter_mut().for_each(|record| record.set_closed(reason.label()));
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
