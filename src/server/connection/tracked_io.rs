//! A connection's stream under hyper: it gives back what was read ahead, and tells what comes and what gets stuck.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::request_line::QueryScan;

/// A stream, and who is told of it.
#[derive(Debug)]
pub(super) struct TrackedIo<S> {
    stream: S,
    /// Read already, and to be read again first.
    ahead: Bytes,
    activity: Rc<Activity>,
    /// Follows the lines of HTTP/1.1 requests.
    scan: Option<QueryScan>,
}

impl<S> TrackedIo<S> {
    pub(super) fn new(stream: S, ahead: Bytes, activity: Rc<Activity>) -> Self {
        Self { stream, ahead, activity, scan: None }
    }

    /// A stream of HTTP/1.1 requests. It gives nothing more once [`Activity::is_line_withheld`]: the end of a request line whose
    /// query has to be encoded has come.
    pub(super) fn of_requests(stream: S, ahead: Bytes, activity: Rc<Activity>) -> Self {
        Self { scan: Some(QueryScan::Off), ..Self::new(stream, ahead, activity) }
    }

    /// The stream, and what was read of it and not given.
    pub(super) fn into_parts(self) -> (S, Bytes) {
        (self.stream, self.ahead)
    }

    /// Whether what was `read` ends a request line whose query has to be encoded. `is_first`: it begins the line.
    fn ends_line_to_mend(&mut self, is_first: bool, read: &[u8]) -> bool {
        let Some(scan) = &mut self.scan else { return false };
        if !self.activity.expects_head() {
            *scan = QueryScan::Off;
        } else if is_first {
            *scan = QueryScan::Before;
        }
        scan.advance(read)
    }
}

impl<S: AsyncWrite + Unpin> TrackedIo<S> {
    fn write<T>(&mut self, write: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let written = write(Pin::new(&mut self.stream));
        self.activity.record_write(written.is_pending());
        written
    }
}
impl<S: AsyncRead + Unpin> AsyncRead for TrackedIo<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.activity.is_line_withheld() {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let is_first = !this.activity.has_received();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let count = this.ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.ahead.split_to(count));
            if !this.ahead.has_remaining() && buffer.remaining() > 0 {
                // What is here of the rest comes along, which saves a parser a try at a part. An end or an error shows
                // again at the next read.
                let _ = Pin::new(&mut this.stream).poll_read(cx, buffer);
            }
        }
        let read = buffer.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            this.activity.record_end();
            return Poll::Ready(Ok(()));
        }
        this.activity.record_read();
        if this.ends_line_to_mend(is_first, read) {
            this.ahead = [read, &this.ahead].concat().into();
            buffer.set_filled(before);
            // Nobody is woken by this stream: the connection's task looks at it after each turn.
            this.activity.withhold_line();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().write(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().write(|stream| stream.poll_write_vectored(cx, bytes))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write(|stream| stream.poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LINE: &[u8] = b"GET /?q=\"a\" HTTP/1.1\r\n";

    /// What of [`LINE`] is given, and given back, when `before` has happened on the connection.
    fn read(before: impl FnOnce(&Rc<Activity>), ahead: &'static [u8]) -> (Vec<u8>, Vec<u8>) {
        let (near, mut far) = tokio::io::duplex(1024);
        far.write_all(LINE.get(ahead.len()..).unwrap()).now_or_never().unwrap().unwrap();
        let activity = Rc::new(Activity::default());
        before(&activity);
        let mut stream = TrackedIo::of_requests(near, Bytes::from_static(ahead), Rc::clone(&activity));
        let mut given = Vec::new();
        while let Some(count) = stream.read_buf(&mut given).now_or_never() {
            assert!(count.unwrap() > 0);
        }
        assert_eq!(activity.is_line_withheld(), given.len() < LINE.len());
        (given, stream.into_parts().1.into())
    }

    #[test]
    fn a_line_to_mend_is_given_back_where_a_head_is_expected() {
        for cut in [0, 3, LINE.len()] {
            let (given, back) = read(|_| (), LINE.get(..cut).unwrap());
            assert_eq!((given.len(), &*back), (0, LINE), "with {cut} read ahead");
        }
        let (given, back) = read(|activity| drop(activity.begin_request(false, None)), b"");
        assert_eq!((given.len(), &*back), (0, LINE), "after a request");
    }

    #[test]
    fn a_body_is_never_taken_for_a_request_line() {
        let (given, back) = read(|activity| std::mem::forget(activity.begin_request(true, None)), b"");
        assert_eq!((&*given, back.len()), (LINE, 0), "during a request");
        let (given, back) = read(|activity| drop(activity.begin_request(true, None)), b"");
        assert_eq!((&*given, back.len()), (LINE, 0), "after a request whose body has not come to its end");
        let (given, back) = read(|activity| activity.record_write(true), b"");
        assert_eq!((&*given, back.len()), (LINE, 0), "while a response waits for its client");
    }
}
