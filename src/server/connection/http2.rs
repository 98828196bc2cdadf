//! HTTP/2 on a client connection.
//!
//! hyper and h2 implement the protocol. This module limits what one connection may cost: streams, resets and flow-control
//! windows. An idle connection is closed with GOAWAY. A stream whose client does not read the response is reset, and the
//! other streams go on. Each stream that its client ends before its response takes a token from the client's address,
//! and the tokens limit what is read from the connection ([`throttled_reader`](super::throttled_reader)).

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::future::{poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::Either;
use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::activity::{Activity, Deadline, ResponseActivity, Wait};
use super::close::MAX_DISCARD;
use super::context::ConnectionContext;
use super::throttled_reader::{ReadBudget, ThrottledReader};
use super::tracked_io::TrackedIo;
use super::trailers::MarkedTrailers;
use crate::proxy::handle;
use crate::server::reset_budget::ResetBudget;
use crate::time::Clock;
use crate::upstream::{ClientBody, UnreadBody};

/// Flow-control window of a stream: the most bytes of a request body that are buffered.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Flow-control window of a connection: the most bytes of all its request bodies that are buffered.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Limit on the buffered bytes of one response.
const SEND_BUFFER: usize = 64 * 1024;
/// Limit on streams that the server resets because of protocol errors. Beyond it, the connection is closed
/// (CVE-2025-8671).
const MAX_STREAM_ERRORS: usize = 100;
/// Interval of PING frames to a silent client.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Timeout for the reply to a PING frame. After GOAWAY, also the timeout for the arrival of streams
/// that the client opened before it received the GOAWAY.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `stream`, from which `first` has already been read.
pub(super) async fn serve<S>(
    stream: S,
    first: Bytes,
    context: &ConnectionContext,
    budget: ResetBudget,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (limits, timeouts) = (&*context.limits, *context.timeouts);
    let activity = Rc::new(Activity::default());
    let budget = Rc::new(ReadBudget::new(budget));
    let executor = StreamExecutor {
        next: Rc::default(),
        send_timeout: timeouts.send,
        discard: timeouts.body.min(MAX_DISCARD),
        budget: Rc::clone(&budget),
    };
    let next = Rc::clone(&executor.next);
    // When streams that the client opens after GOAWAY are refused.
    let closing: Cell<Option<Instant>> = Cell::new(None);
    let service = service_fn(|mut request: Request<Incoming>| {
        if closing.get().is_some_and(|at| at <= Clock.mono()) {
            return Either::Left(ready(Err(h2::Error::from(h2::Reason::REFUSED_STREAM))));
        }
        let response_activity = Rc::new(ResponseActivity::default());
        let has_body = !request.body().is_end_stream();
        let unread = has_body.then(Rc::<UnreadBody>::default);
        next.replace(Some((Rc::clone(&response_activity), unread.clone())));
        let request_activity = activity.begin_request(Some(response_activity));
        let (context, activity) = (context.clone(), Rc::clone(&activity));
        let is_limited = budget.is_limited();
        let switched = (*request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
        Either::Right(async move {
            if is_limited {
                // The client may already have reset this stream, too. hyper checks that before it polls again, and drops
                // the request before it costs an upstream anything.
                tokio::task::yield_now().await;
            }
            let request = request.map(|body| ClientBody::http2(body, unread));
            let mut response = handle(&context.worker, &context.peer, request.into()).await;
            if let (Some(switched), Some(upgrade)) = (switched, response.body.take_upgrade()) {
                // This task ends when the response head is sent or the stream is reset.
                tokio::task::spawn_local(async move {
                    if let Ok(stream) = switched.await {
                        upgrade.complete(TokioIo::new(stream), activity.begin_request(None));
                    }
                });
            }
            Ok(Response::from(response.map(|body| request_activity.track(body))))
        })
    });
    let stream =
        ThrottledReader::new(TrackedIo::new(stream, first, Rc::clone(&activity)), Rc::clone(&budget));
    let connection = Builder::new(executor)
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(MAX_STREAM_ERRORS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(MarkedTrailers::new(stream)), service);
    let mut connection = pin!(connection);
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    let mut deadline = Deadline::default();
    let mut shutting_down = false;
    let served = poll_fn(|cx| {
        loop {
            if !budget.refill() {
                budget.close_abusive(0);
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(served) = connection.as_mut().poll(cx) {
                return Poll::Ready(served);
            }
            let wait = activity.wait();
            let timeout = match wait.0 {
                Wait::Nothing => None,
                Wait::Request if shutting_down => Some(PING_TIMEOUT),
                Wait::Request => Some(timeouts.idle),
                Wait::ClientRead => Some(timeouts.send),
            };
            let expired = deadline.poll(cx, wait, timeout).is_ready();
            if expired && (shutting_down || wait.0 == Wait::ClientRead) {
                return Poll::Ready(Ok(()));
            }
            if shutting_down || !(expired || stop.as_mut().poll(cx).is_ready()) {
                return Poll::Pending;
            }
            // Sends GOAWAY, so that the client opens no more streams. Streams that are already in transit are served,
            // and the connection ends with its last stream. h2 refuses new streams only once the client acknowledges a
            // PING, which it may never do.
            shutting_down = true;
            closing.set(Some(Clock.mono() + PING_TIMEOUT));
            deadline = Deadline::default();
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
    if let Err(error) = served {
        if is_client_fault(&error) {
            // Streams that were reset before h2 accepted them were not debited.
            budget.close_abusive(limits.resets + 1);
        }
        tracing::debug!(%error, "a connection ended");
    }
}

/// Returns whether h2 closed the connection because the client violated the protocol or a limit.
fn is_client_fault(error: &hyper::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(h2::Error::is_library)
}

/// The objects that the service passes to a stream's task: the response's activity, and the request body if there is one.
type StreamState = (Rc<ResponseActivity>, Option<Rc<UnreadBody>>);

/// Runs each stream as a separate task on the connection's thread.
#[derive(Clone, Debug)]
struct StreamExecutor {
    /// The state of the next stream to be executed: hyper executes it right after it has called the service.
    next: Rc<RefCell<Option<StreamState>>>,
    send_timeout: Duration,
    /// Limit on how long the rest of a request body is read and discarded after the response.
    discard: Duration,
    budget: Rc<ReadBudget>,
}

pin_project! {
    /// Task of one stream. It ends when the response is sent or the client has not read it in time. Dropping hyper's
    /// future resets the stream if its response is incomplete.
    struct StreamTask<F> {
        // hyper's future; `None` when it is complete.
        #[pin]
        stream: Option<F>,
        response: Option<Rc<ResponseActivity>>,
        unread: Option<Rc<UnreadBody>>,
        deadline: Deadline,
        send_timeout: Duration,
        discard: Duration,
        budget: Rc<ReadBudget>,
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, stream: F) {
        let (response, unread) = self.next.take().unzip();
        // The task ends with its connection, which is tracked.
        tokio::task::spawn_local(StreamTask {
            stream: Some(stream),
            response,
            unread: unread.flatten(),
            deadline: Deadline::default(),
            send_timeout: self.send_timeout,
            discard: self.discard,
            budget: Rc::clone(&self.budget),
        });
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let is_over = this.stream.as_mut().as_pin_mut().is_none_or(|stream| stream.poll(cx).is_ready());
        if is_over {
            // Drops the other users of the request body, so that its rest can be discarded.
            this.stream.set(None);
        } else if let Some(response) = this.response {
            response.poll_request(cx);
        }
        // Discarding reopens the flow-control window. Otherwise, a client that reads the response only after sending
        // the whole request would block.
        let rest = this.unread.as_ref().filter(|unread| unread.poll_discard(cx).is_pending());
        if is_over {
            if this.response.as_ref().is_some_and(|response| !response.is_done()) {
                this.budget.debit();
            } else if let Some(rest) = rest {
                // The task ends with its connection, which is tracked.
                tokio::task::spawn_local(discard(Rc::clone(rest), *this.discard));
            }
            return Poll::Ready(());
        }
        let Some(response) = this.response else { return Poll::Pending };
        let wait = response.wait();
        this.deadline.poll(cx, wait, (wait.0 == Wait::ClientRead).then_some(*this.send_timeout))
    }
}

/// Discards the rest of a request body after the response, until the client has sent all of it or `limit` has passed.
/// In the latter case, the stream is reset with NO_ERROR.
async fn discard(rest: Rc<UnreadBody>, limit: Duration) {
    let _ = tokio::time::timeout(limit, poll_fn(|cx| rest.poll_discard(cx))).await;
}
