//! Reads and handles the requests of a client's HTTP/1.1 connection, and sends the responses, one after the other.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, StatusCode, Version};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::super::context::ConnectionContext;
use super::super::first_bytes::LAST_REQUEST;
use super::encode::{Encoder, MAX_COPY, RequestInfo};
use super::io::{ConnectionIo, NoRequest};
use super::{Outcome, PARK_AFTER};
use crate::http1::{BadRequest, Decoder, HeadLimits, ParsedRequest};
use crate::message::{Request, Response};
use crate::proxy::{ResponseBody, handle, reject};
use crate::server::transport::ResetOnClose;
use crate::time::{Alarm, Clock};
use crate::upstream::ClientBody;

/// Limit on the queued bytes of a response. More of the response is read only below it.
const MAX_QUEUED: usize = 64 * 1024;

/// A connection, shared with the body of its current request.
type Io<S> = Rc<RefCell<ConnectionIo<S>>>;

/// The reason why no request head was read.
enum NoHead {
    Ended(Outcome),
    Rejected(BadRequest),
}

/// Error of a response that could not be sent completely.
struct Broken;

/// Whether the connection's acceptor is stopped, because the server drains or a reload has changed or removed the
/// listener. The next response is then the last.
struct Stop<F> {
    future: Pin<Box<F>>,
    /// Detects changes without polling `future`.
    changes: watch::Receiver<bool>,
    /// Whether `future` has been polled, and so wakes the connection's task.
    registered: bool,
    stopping: bool,
}

impl<F: Future> Stop<F> {
    /// Returns whether the acceptor was stopped since the last call.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.stopping || (self.registered && matches!(self.changes.has_changed(), Ok(false))) {
            return false;
        }
        self.registered = true;
        self.stopping = self.future.as_mut().poll(cx).is_ready();
        self.stopping
    }
}

/// Serves requests until the connection is to be closed, or has been idle for a while.
pub(super) async fn serve_requests<S>(
    io: &Io<S>,
    context: &ConnectionContext,
    stopped: &mut watch::Receiver<bool>,
) -> Outcome
where
    S: AsyncRead + AsyncWrite + ResetOnClose + Unpin + Debug + 'static,
{
    let changes = stopped.clone();
    let future = Box::pin(stopped.wait_for(|stopped| *stopped));
    let mut stop = Stop { future, changes, registered: false, stopping: false };
    let mut alarm = Alarm::default();
    loop {
        let parsed = match next_head(io, context, &mut stop, &mut alarm).await {
            Ok(parsed) => parsed,
            Err(NoHead::Ended(outcome)) => return outcome,
            Err(NoHead::Rejected(bad)) => {
                let response = reject(&context.worker, &context.peer, bad.into());
                let request_info =
                    RequestInfo { method: Method::GET, version: Version::HTTP_11, keep_alive: false };
                let sent = send(io, response, request_info, context, &mut alarm).await;
                return if sent.is_ok() { Outcome::MayBeSending } else { Outcome::Broken };
            }
        };
        let (method, version) = (parsed.head.method.clone(), parsed.head.version);
        let mut keep_alive = parsed.keep_alive;
        let request = begin(io, parsed);
        let Some(mut response) = respond(io, request, context, &mut stop).await else {
            return Outcome::Broken;
        };
        let upgrade = match response.status {
            StatusCode::SWITCHING_PROTOCOLS => response.body.take_upgrade(),
            _ => None,
        };
        // If the rest of the request body will not be read, the connection is closed after the response.
        let is_rest_unread = Rc::weak_count(io) == 0 && !io.borrow_mut().discard_body();
        keep_alive &= !stop.stopping && !is_rest_unread;
        let request_info = RequestInfo { method, version, keep_alive };
        let Ok(keep_alive) = send(io, response, request_info, context, &mut alarm).await else {
            return Outcome::Broken;
        };
        if let Some(upgrade) = upgrade {
            return Outcome::Upgraded(upgrade);
        }
        let mut io = io.borrow_mut();
        if !io.discard_body() || !keep_alive {
            return if io.may_be_sending() { Outcome::MayBeSending } else { Outcome::Closed };
        }
    }
}

/// Reads the head of the next request.
async fn next_head<S: AsyncRead + AsyncWrite + Unpin>(
    io: &Io<S>,
    context: &ConnectionContext,
    stop: &mut Stop<impl Future>,
    alarm: &mut Alarm,
) -> Result<ParsedRequest, NoHead> {
    let limits = HeadLimits { bytes: context.limits.header_bytes, lines: context.limits.headers };
    let timeouts = &context.timeouts;
    let mut has_begun = io.borrow().has_bytes();
    let mut due = None;
    poll_fn(|cx| {
        let mut io = io.borrow_mut();
        match io.poll_head(cx, limits) {
            Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head)),
            Poll::Ready(Err(NoRequest::Rejected(bad))) => return Poll::Ready(Err(NoHead::Rejected(bad))),
            Poll::Ready(Err(NoRequest::Closed)) => return Poll::Ready(Err(NoHead::Ended(Outcome::Closed))),
            Poll::Pending => {}
        }
        if !has_begun && io.has_bytes() {
            has_begun = true;
            due = None;
        }
        if stop.poll(cx) && !has_begun {
            due = None;
        }
        let (limit, outcome) = match (has_begun, stop.stopping) {
            (true, _) => (timeouts.header, Outcome::SlowHead),
            (false, true) => (timeouts.idle.min(LAST_REQUEST), Outcome::Closed),
            (false, false) => (timeouts.idle.min(PARK_AFTER), Outcome::Idle),
        };
        let due = *due.get_or_insert_with(|| Clock.mono() + limit);
        alarm.poll(cx, due).map(|()| Err(NoHead::Ended(outcome)))
    })
    .await
}

/// Begins a request.
fn begin<S>(io: &Io<S>, mut parsed: ParsedRequest) -> Request<ClientBody>
where
    S: AsyncRead + AsyncWrite + Unpin + Debug + 'static,
{
    let decoder = parsed.body.take();
    let version = parsed.head.version;
    let has_valid_framing = decoder.is_some();
    let decoder = decoder.unwrap_or_else(Decoder::empty);
    let remaining = decoder.remaining();
    let number = io.borrow_mut().begin(decoder, parsed.expects_continue, version == Version::HTTP_11);
    if !has_valid_framing {
        return parsed.into_request(ClientBody::with_invalid_framing());
    }
    if remaining == Some(0) && version == Version::HTTP_10 {
        // HTTP/1.0 has no interim responses (RFC 9110, 15.2), and there is nothing to read.
        return parsed.into_request(ClientBody::empty());
    }
    let connection: Weak<RefCell<ConnectionIo<S>>> = Rc::downgrade(io);
    parsed.into_request(ClientBody::http1(connection, number, remaining))
}

/// Handles a request. Returns `None` if the client disconnects before its response begins.
async fn respond<S: AsyncRead + AsyncWrite + Unpin>(
    io: &Io<S>,
    request: Request<ClientBody>,
    context: &ConnectionContext,
    stop: &mut Stop<impl Future>,
) -> Option<Response<ResponseBody>> {
    let mut handling = pin!(handle(&context.worker, &context.peer, request));
    poll_fn(|cx| {
        if let Poll::Ready(response) = handling.as_mut().poll(cx) {
            return Poll::Ready(Some(response));
        }
        stop.poll(cx);
        let has_reader = Rc::weak_count(io) > 0;
        let mut io = io.borrow_mut();
        // Writes interim responses.
        let written = io.poll_write(cx);
        let written = if let Poll::Ready(Ok(())) = written { io.poll_flush(cx) } else { written };
        let is_broken = matches!(written, Poll::Ready(Err(_)));
        if is_broken || io.poll_disconnected(cx, has_reader).is_ready() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// Sends a response. Returns whether another request may follow.
async fn send<S: AsyncRead + AsyncWrite + ResetOnClose + Unpin>(
    io: &Io<S>,
    response: Response<ResponseBody>,
    request_info: RequestInfo,
    context: &ConnectionContext,
    alarm: &mut Alarm,
) -> Result<bool, Broken> {
    let mut head = Vec::new();
    let encoder = Encoder::start(&response, &request_info, &mut head);
    let (keep_alive, ends_by_close) = (encoder.keep_alive, encoder.ends_by_close());
    // Sends the rest of the request while the client does not read its response.
    let sender = response.body.request_sender();
    let mut sending = Sending { head, body: response.body, encoder, ended: false, is_broken: false };
    if !sending.encoder.has_body() {
        sending.ended = true;
    }
    io.borrow_mut().begin_response();
    let send_timeout = context.timeouts.send;
    // The end of the send timeout, and the number of writes before it began. Each write restarts it.
    let mut due: Option<(Instant, u64)> = None;
    let mut silent: Option<(Instant, u64)> = None;
    let sent = poll_fn(|cx| {
        loop {
            let is_waiting = sending.poll_fill(io, cx);
            let mut borrowed = io.borrow_mut();
            let mut sent = borrowed.poll_write(cx);
            if matches!(sent, Poll::Ready(Ok(()))) {
                if !(is_waiting || sending.ended) {
                    continue;
                }
                sent = borrowed.poll_flush(cx);
            }
            match sent {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken)),
                Poll::Pending => {
                    drop(borrowed);
                    if let Some(sender) = &sender {
                        sender.poll_send(cx);
                    }
                    // Sending the request may have written, too.
                    let writes = io.borrow().writes();
                    if due.is_some_and(|(_, before)| before != writes) {
                        due = None;
                    }
                    let (due, _) = *due.get_or_insert_with(|| (Clock.mono() + send_timeout, writes));
                    return alarm.poll(cx, due).map(|()| Err(Broken));
                }
            }
            // The next blocked write gets the whole timeout, also after a blocked flush.
            due = None;
            if sending.is_broken {
                return Poll::Ready(Err(Broken));
            }
            if sending.ended {
                return Poll::Ready(Ok(keep_alive));
            }
            if borrowed.poll_disconnected(cx, Rc::weak_count(io) > 0).is_ready() {
                return Poll::Ready(Err(Broken));
            }
            if !borrowed.is_read_ahead_full() {
                return Poll::Pending;
            }
            // The client's disconnection is not noticed any more, so a response that stays silent this long is ended.
            let writes = borrowed.writes();
            if silent.is_none_or(|(_, before)| before != writes) {
                silent = Some((Clock.mono() + send_timeout, writes));
            }
            return silent.map_or(Poll::Pending, |(due, _)| alarm.poll(cx, due).map(|()| Err(Broken)));
        }
    })
    .await;
    if sent.is_err() && ends_by_close {
        // Otherwise, the client would take the end of the connection for the end of the body.
        io.borrow_mut().reset_on_close();
    }
    sent
}

/// A response that is being sent.
struct Sending {
    /// The head, and a first piece of the body, until they are queued.
    head: Vec<u8>,
    body: ResponseBody,
    encoder: Encoder,
    /// Whether the body is queued completely, or as far as it was received before it failed.
    ended: bool,
    /// Whether the body failed. The connection is then closed, so that the client notices that the body is incomplete.
    is_broken: bool,
}

impl Sending {
    /// Queues the available part of the response, up to [`MAX_QUEUED`]. Returns whether more of the body must be awaited.
    fn poll_fill<S: AsyncRead + AsyncWrite + Unpin>(&mut self, io: &Io<S>, cx: &mut Context<'_>) -> bool {
        let mut is_waiting = false;
        // `io` must not be borrowed here, because polling the body may read the rest of the request from it.
        while !self.ended && self.head.len() + io.borrow().queued() < MAX_QUEUED {
            let Self { head, body, encoder, .. } = self;
            let frame = match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    is_waiting = true;
                    break;
                }
            };
            let push = |piece: Bytes| push(head, io, piece);
            let encoded = match frame {
                Some(Ok(frame)) => encoder.encode(frame, push),
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response was cut off");
                    (self.ended, self.is_broken) = (true, true);
                    break;
                }
                None => {
                    self.ended = true;
                    encoder.finish(push)
                }
            };
            let encoded = match encoded {
                Ok(()) if !self.ended && self.body.is_end_stream() => {
                    self.ended = true;
                    self.encoder.finish(|piece| self::push(&mut self.head, io, piece))
                }
                encoded => encoded,
            };
            if let Err(error) = encoded {
                tracing::debug!(%error, "a response was cut off");
                (self.ended, self.is_broken) = (true, true);
            }
        }
        if !self.head.is_empty() {
            io.borrow_mut().queue(std::mem::take(&mut self.head).into());
        }
        is_waiting
    }
}

/// Queues a piece of a response's body, behind the head if that is not queued yet.
fn push<S>(head: &mut Vec<u8>, io: &Io<S>, piece: Bytes) {
    if head.is_empty() {
        io.borrow_mut().queue(piece);
    } else if piece.len() <= MAX_COPY {
        head.extend_from_slice(&piece);
    } else {
        let mut io = io.borrow_mut();
        io.queue(std::mem::take(head).into());
        io.queue(piece);
    }
}
