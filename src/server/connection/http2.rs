//! HTTP/2 on a connection.
//!
//! hyper and h2 read frames and hold clients to the protocol; the bounds here are what one connection may cost:
//! streams, resets, windows. A connection on which nothing happens is told to go, and a stream whose client does not
//! take its response is reset, without harm to the others. Streams that end before their responses are charged to the
//! client's address, and what is read of a connection goes by what that can pay ([`intake`](super::throttled_reader)).

use std::cell::RefCell;
use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::activity::{Activity, Deadline, Reader, Wait};
use super::close::MAX_DISCARD;
use super::context::ConnectionContext;
use super::throttled_reader::{ReadBudget, ThrottledReader};
use super::tracked_io::TrackedIo;
use super::trailers::MarkedTrailers;
use crate::proxy::handle;
use crate::server::reset_budget::ResetBudget;
use crate::upstream::{ClientBody, UnreadBody};

/// What a client may send of one request's body before any of it is taken.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all requests of a connection: what their bodies may cost in memory.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is buffered of one response.
const SEND_BUFFER: usize = 64 * 1024;
/// Streams of a connection that may break the protocol before the connection is done with (CVE-2025-8671).
const MISTAKES: usize = 100;
/// How often a silent client is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);
/// And how long it has to say so.
const PONG: Duration = Duration::from_secs(10);

/// Serves `stream`, of which `first` has been read already.
pub(super) async fn serve<S>(
    stream: S,
    first: Bytes,
    context: &ConnectionContext,
    budget: ResetBudget,
    mut stopped: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (limits, timeouts) = (context.limits, context.timeouts);
    let activity = Rc::new(Activity::default());
    let budget = Rc::new(ReadBudget::new(budget));
    let streams = Streams {
        next: Rc::default(),
        send_timeout: timeouts.send,
        discard: timeouts.body.min(MAX_DISCARD),
        budget: Rc::clone(&budget),
    };
    let next = Rc::clone(&streams.next);
    let service = service_fn(|mut request: Request<Incoming>| {
        let reader = Rc::new(Reader::default());
        let has_body = !request.body().is_end_stream();
        let unread = has_body.then(Rc::<UnreadBody>::default);
        next.replace(Some((Rc::clone(&reader), unread.clone())));
        let exchange = activity.begin(has_body, Some(reader));
        let (context, activity) = (context.clone(), Rc::clone(&activity));
        let is_short = budget.is_short();
        let switched = (*request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
        async move {
            if is_short {
                // Who has reset streams may have reset this one: hyper looks before it asks again, and what is dropped
                // here has cost no upstream anything.
                tokio::task::yield_now().await;
            }
            let request = request.map(|body| ClientBody::new(body, unread));
            let mut response = handle(&context.worker, &context.peer, request).await;
            if let (Some(switched), Some(upgrade)) = (switched, response.body_mut().take_upgrade()) {
                // It is over as soon as the response's head is on its way, or the stream has been reset.
                tokio::task::spawn_local(async move {
                    if let Ok(stream) = switched.await {
                        upgrade.complete(TokioIo::new(stream), activity.begin(false, None));
                    }
                });
            }
            Ok::<_, Infallible>(response.map(|body| exchange.watch(body)))
        }
    });
    let stream =
        ThrottledReader::new(TrackedIo::new(stream, first, Rc::clone(&activity)), Rc::clone(&budget));
    let connection = Builder::new(streams)
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams)
        .max_pending_accept_reset_streams(limits.resets)
        .max_local_error_reset_streams(MISTAKES)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .serve_connection(TokioIo::new(MarkedTrailers::new(stream)), service);
    let mut connection = pin!(connection);
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    let mut deadline = Deadline::default();
    let mut leaving = false;
    let served = poll_fn(|cx| {
        loop {
            if !budget.renew() {
                budget.end(0);
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(served) = connection.as_mut().poll(cx) {
                return Poll::Ready(served);
            }
            let wait = activity.wait();
            let limit = match wait.0 {
                Wait::Nothing => None,
                Wait::Request | Wait::Head if leaving => Some(PONG),
                Wait::Request | Wait::Head => Some(timeouts.idle),
                Wait::Reader => Some(timeouts.send),
            };
            let expired = deadline.poll(cx, wait, limit).is_ready();
            if expired && (leaving || wait.0 == Wait::Reader) {
                return Poll::Ready(Ok(()));
            }
            if leaving || !(expired || stop.as_mut().poll(cx).is_ready()) {
                return Poll::Pending;
            }
            // New streams are refused, those under way are finished, and with them the connection.
            leaving = true;
            deadline = Deadline::default();
            connection.as_mut().graceful_shutdown();
        }
    })
    .await;
    if let Err(error) = served {
        if is_misbehaviour(&error) {
            // Streams that were reset before they were taken have gone with the connection.
            budget.end(limits.resets + 1);
        }
        tracing::debug!(%error, "a connection ended");
    }
}

/// Whether h2 ended the connection for what its client did.
fn is_misbehaviour(error: &hyper::Error) -> bool {
    error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(h2::Error::is_library)
}

/// What is known of a stream before it is run: whether it waits for its client, and where the rest of its body goes.
type Next = (Rc<Reader>, Option<Rc<UnreadBody>>);

/// Runs each stream as a task of its own on the connection's thread.
#[derive(Clone, Debug)]
struct Streams {
    /// Of the stream that is about to be run: the service has just been called for it.
    next: Rc<RefCell<Option<Next>>>,
    send_timeout: Duration,
    /// How long the body of a request that has been answered is read.
    discard: Duration,
    budget: Rc<ReadBudget>,
}

pin_project! {
    /// A stream, until its response has been taken or its client has been waited for in vain. To drop it resets it.
    struct Stream<F> {
        #[pin]
        stream: Option<F>,
        reader: Option<Rc<Reader>>,
        unread: Option<Rc<UnreadBody>>,
        deadline: Deadline,
        send_timeout: Duration,
        discard: Duration,
        budget: Rc<ReadBudget>,
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (reader, unread) = self.next.take().unzip();
        let unread = unread.flatten();
        let (deadline, send_timeout, discard) = (Deadline::default(), self.send_timeout, self.discard);
        // It ends with its connection, which is tracked.
        let budget = Rc::clone(&self.budget);
        tokio::task::spawn_local(Stream {
            stream: Some(stream),
            reader,
            unread,
            deadline,
            send_timeout,
            discard,
            budget,
        });
    }
}

impl<F: Future<Output = ()>> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let is_over = this.stream.as_mut().as_pin_mut().is_none_or(|stream| stream.poll(cx).is_ready());
        if is_over {
            // With it goes whoever could still want the request's body.
            this.stream.set(None);
        } else if let Some(reader) = this.reader {
            reader.poll_request(cx);
        }
        // A client that has to send before it reads would otherwise wait for a window that nobody opens.
        let rest = this.unread.as_ref().filter(|unread| unread.poll_discard(cx).is_pending());
        if is_over {
            if this.reader.as_ref().is_some_and(|reader| !reader.is_done()) {
                this.budget.debit();
            } else if let Some(rest) = rest {
                // It ends with its connection, which is tracked.
                tokio::task::spawn_local(discard(Rc::clone(rest), *this.discard));
            }
            return Poll::Ready(());
        }
        let Some(reader) = this.reader else { return Poll::Pending };
        let wait = reader.wait();
        this.deadline.poll(cx, wait, (wait.0 == Wait::Reader).then_some(*this.send_timeout))
    }
}

/// Discards the rest of the body of a request that has been answered, until its client sends no more or has had time
/// to read the response. What is left then is reset, with NO_ERROR.
async fn discard(rest: Rc<UnreadBody>, limit: Duration) {
    let _ = tokio::time::timeout(limit, poll_fn(|cx| rest.poll_discard(cx))).await;
}
