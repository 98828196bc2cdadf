//! Responses of HTTP/1.1 servers, parsed by the gateway's client and by a simple parser, whose results must agree.
//!
//! The first line of the input controls the run, and the rest is the server's output. The line consists of the method
//! (`G`, `H` or `P`); what the server does after its output (`c` closes the connection, `o` stays silent, `r` repeats the
//! output endlessly); and letters that give the sizes of reads and writes in turn.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method};
use http_body::Body as _;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::GatewayHeaders;
use crate::upstream::http1::Http1Connection;

/// Maximum output of a server that repeats its output endlessly, in bytes.
const MAX_OUTPUT: usize = 512 * 1024;
/// Number of body frames after which an endless body is abandoned.
const MAX_FRAMES: usize = 2_000;
/// Maximum size of the client's read buffer, in bytes: a head that is almost too large, and one read of the largest size.
const MAX_BUFFERED: usize = (64 + 256) * 1024;

/// Parses a response.
pub fn response(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let (control, output) = (input.get(..end).unwrap_or_default(), input.get(end + 1..).unwrap_or_default());
    let ([method, ending, sizes @ ..], false) = (control, output.is_empty()) else { return };
    let method = match method {
        b'H' => Method::HEAD,
        b'P' => Method::POST,
        _ => Method::GET,
    };
    let ending = match ending {
        b'c' => Ending::Closes,
        b'r' => Ending::Repeats,
        _ => Ending::StaysOpen,
    };
    let whole = exchange(&method, output, ending, &[]);
    if ending == Ending::Repeats {
        return;
    }
    let in_pieces = exchange(&method, output, ending, sizes);
    let is_response = |outcome: &Outcome| matches!(outcome, Outcome::Response(..));
    if is_response(&whole.outcome) || is_response(&in_pieces.outcome) {
        assert_eq!(whole.outcome, in_pieces.outcome, "the sizes of reads do not change the response");
    }
    // In pieces, the response may arrive before the whole request is sent. The connection is then not reusable.
    assert!(whole.reusable || !in_pieces.reusable, "the sizes of reads do not make a connection reusable");
    let simple = parse_simply(&method, output, ending);
    match whole.outcome {
        Outcome::Response(status, body) => {
            let Some(simple) = simple else { unreachable!("the client parsed an incomplete response") };
            assert_eq!((status, body), (simple.status, simple.body), "both parsers agree");
            let is_clean = simple.length == output.len() && simple.persists && ending == Ending::StaysOpen;
            assert!(is_clean || !whole.reusable, "a connection is reused only after a clean end");
        }
        Outcome::Rejected => assert!(!whole.reusable, "a connection is not reused after an error"),
        Outcome::Unfinished => {
            assert!(simple.is_none(), "the client does not wait for more after a complete response");
            assert!(!whole.reusable, "a connection in use is not reused");
        }
    }
}

/// The server's behavior after its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Closes,
    StaysOpen,
    Repeats,
}

/// The result of one request.
struct Exchange {
    outcome: Outcome,
    /// Whether the client would reuse the connection.
    reusable: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Status and body.
    Response(u16, Vec<u8>),
    Rejected,
    /// The client waits for more, or the body does not end.
    Unfinished,
}

/// A server that writes `output` in pieces, and is silent for one poll before each piece.
struct Server<'s> {
    output: &'s [u8],
    ending: Ending,
    sizes: &'s [u8],
    /// Number of reads and writes so far.
    pieces: usize,
    /// Bytes that the client has read.
    sent: usize,
    /// Bytes that the client has written.
    received: usize,
    /// Whether the server is silent before each piece.
    pauses: bool,
    /// Whether it was silent in the last poll.
    paused: bool,
}

/// The client's end of the connection.
#[derive(Clone)]
struct ClientEnd<'s>(Rc<RefCell<Server<'s>>>);

/// Sends a request to the server, and reads the response.
fn exchange(method: &Method, output: &[u8], ending: Ending, sizes: &[u8]) -> Exchange {
    let server =
        Server { output, ending, sizes, pieces: 0, sent: 0, received: 0, pauses: true, paused: false };
    let client_end = ClientEnd(Rc::new(RefCell::new(server)));
    let connection = Http1Connection::new(client_end.clone());
    let body = if *method == Method::POST { "name=value" } else { "" };
    let mut request = http::Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method.clone();
    request.headers_mut().insert(HOST, HeaderValue::from_static("app.example"));
    let request_length = format!("{method} / HTTP/1.1\r\nhost: app.example\r\n\r\n").len()
        + if body.is_empty() { 0 } else { "content-length: 10\r\n".len() + body.len() };
    connection.start(request.into(), &GatewayHeaders::default());
    let outcome = read_response(&connection, &client_end, output.len());
    let is_reusable = connection.is_reusable();
    // The rest of the output has arrived by the time that the connection is needed again.
    client_end.0.borrow_mut().pauses = false;
    let reusable = is_reusable && connection.is_open();
    assert!(
        !reusable || client_end.0.borrow().received == request_length,
        "a reusable connection has sent the whole request"
    );
    Exchange { outcome, reusable }
}

fn read_response<'s>(
    connection: &Http1Connection<ClientEnd<'s>, Full<Bytes>>,
    client_end: &ClientEnd<'s>,
    length: usize,
) -> Outcome {
    // Each poll reads, writes or pauses once, so the number of polls is limited.
    let mut polls = 1_000 + 4 * length.max(MAX_OUTPUT / 1024);
    let mut context = Context::from_waker(Waker::noop());
    // Returns whether no more output will arrive.
    let mut has_ended = |client_end: &ClientEnd<'s>| {
        assert!(connection.buffered() <= MAX_BUFFERED, "the read buffer is limited");
        polls = polls.saturating_sub(1);
        assert!(polls > 0, "the client makes progress in each poll");
        client_end.has_ended()
    };
    let response = loop {
        match connection.poll_response(&mut context, &mut |_, _| ()) {
            Poll::Ready(Ok((response, _))) => break response,
            Poll::Ready(Err(_)) => return Outcome::Rejected,
            Poll::Pending if has_ended(client_end) => return Outcome::Unfinished,
            Poll::Pending => {}
        }
    };
    let status = response.status.as_u16();
    let mut body = response.body;
    let (mut content, mut frames, exact) = (Vec::new(), 0, body.size_hint().exact());
    loop {
        let ended = body.is_end_stream();
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                assert!(!ended, "no frame follows the end of the body");
                frames += 1;
                if frames > MAX_FRAMES {
                    return Outcome::Unfinished;
                }
                if let Ok(data) = frame.into_data() {
                    assert!(!data.is_empty(), "no data frame is empty");
                    content.extend_from_slice(&data);
                }
            }
            Poll::Ready(Some(Err(_))) => return Outcome::Rejected,
            Poll::Ready(None) => break,
            Poll::Pending if has_ended(client_end) => return Outcome::Unfinished,
            Poll::Pending => {}
        }
    }
    assert!(exact.is_none_or(|exact| exact == content.len() as u64), "the body has the announced length");
    Outcome::Response(status, content)
}

impl ClientEnd<'_> {
    /// Returns whether no more output will arrive, and the connection stays open.
    fn has_ended(&self) -> bool {
        let server = self.0.borrow();
        let all = if server.ending == Ending::Repeats { MAX_OUTPUT } else { server.output.len() };
        server.sent >= all && server.ending != Ending::Closes
    }
}

impl Server<'_> {
    /// Returns the limit of the next read or write, or `None` for a pause.
    fn next_size(&mut self) -> Option<usize> {
        self.paused = self.pauses && !self.sizes.is_empty() && !self.paused;
        if self.paused {
            return None;
        }
        let size = self.sizes.get(self.pieces % self.sizes.len().max(1));
        self.pieces += 1;
        Some(size.map_or(usize::MAX, |&letter| usize::from(letter.saturating_sub(b'/')).max(1)))
    }
}

impl AsyncRead for ClientEnd<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut server = self.0.borrow_mut();
        let Some(size) = server.next_size() else { return Poll::Pending };
        let rest = match server.ending {
            Ending::Closes => server.output.get(server.sent..),
            Ending::StaysOpen if server.sent == server.output.len() => return Poll::Pending,
            Ending::StaysOpen => server.output.get(server.sent..),
            Ending::Repeats if server.sent >= MAX_OUTPUT => return Poll::Pending,
            Ending::Repeats => {
                while buffer.remaining() > 0 {
                    let rest = server.output.get(server.sent % server.output.len()..).unwrap_or_default();
                    let piece = rest.get(..buffer.remaining().min(rest.len())).unwrap_or_default();
                    buffer.put_slice(piece);
                    server.sent += piece.len();
                }
                return Poll::Ready(Ok(()));
            }
        };
        let rest = rest.unwrap_or_default();
        let piece = rest.get(..size.min(rest.len()).min(buffer.remaining())).unwrap_or_default();
        buffer.put_slice(piece);
        server.sent += piece.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientEnd<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut server = self.0.borrow_mut();
        let Some(size) = server.next_size() else { return Poll::Pending };
        let written = size.min(bytes.len());
        server.received += written;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A response as the simple parser reads it.
struct SimpleResponse {
    status: u16,
    body: Vec<u8>,
    persists: bool,
    /// Length of the response in the output.
    length: usize,
}

/// Parses a response without checking it: accepts bare line feeds, and trusts all headers. Returns `None` if the output
/// contains no complete response.
fn parse_simply(method: &Method, output: &[u8], ending: Ending) -> Option<SimpleResponse> {
    let mut rest = output;
    let (status, version, headers) = loop {
        let head = parse_head(&mut rest)?;
        if !(100..200).contains(&head.0) || head.0 == 101 {
            break head;
        }
    };
    let header =
        |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut until_close = false;
    let body = if *method == Method::HEAD || matches!(status, 101 | 204 | 304) {
        Vec::new()
    } else if header("transfer-encoding").is_some() {
        parse_chunks(&mut rest)?
    } else if let Some(length) = header("content-length") {
        // Any of several values will do, since the client rejects those that differ.
        let length = length.split(',').next().unwrap_or_default().trim();
        take(&mut rest, length.parse().ok()?)?.to_vec()
    } else {
        until_close = true;
        std::mem::take(&mut rest).to_vec()
    };
    if until_close && ending != Ending::Closes {
        return None;
    }
    let connection = header("connection").unwrap_or_default();
    let is_http11 = version.starts_with("HTTP/1.") && version != "HTTP/1.0";
    let persists = !until_close && status != 101 && (is_http11 || connection.contains("keep-alive"));
    let persists = persists && !connection.split(',').any(|option| option.trim() == "close");
    Some(SimpleResponse { status, body, persists, length: output.len() - rest.len() })
}

/// Names and values of headers, in lower case.
type SimpleHeaders = Vec<(String, String)>;

/// Parses a head into status, version and headers.
fn parse_head(rest: &mut &[u8]) -> Option<(u16, String, SimpleHeaders)> {
    let first = loop {
        let line = take_line(rest)?;
        if !line.is_empty() {
            break line;
        }
    };
    let (version, status) = first.split_once([' ', '\t'])?;
    let status = status.trim_start().get(..3)?.parse().ok()?;
    Some((status, version.to_owned(), parse_headers(rest)?))
}

/// Parses headers or trailers, up to the empty line.
fn parse_headers(rest: &mut &[u8]) -> Option<SimpleHeaders> {
    let mut headers = SimpleHeaders::new();
    loop {
        let line = take_line(rest)?;
        if line.is_empty() {
            return Some(headers);
        }
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), headers.last_mut()) {
            let folded = format!("{value} {}", line.trim().to_ascii_lowercase());
            folded.trim().clone_into(value);
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        headers.push((name.trim_end().to_ascii_lowercase(), value.trim().to_ascii_lowercase()));
    }
}

/// Parses a chunked body with its trailers.
fn parse_chunks(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let size = take_line(rest)?;
        let digits: String = size.chars().take_while(char::is_ascii_hexdigit).collect();
        let size = usize::from_str_radix(&digits, 16).ok()?;
        if size == 0 {
            parse_headers(rest)?;
            return Some(content);
        }
        content.extend_from_slice(take(rest, size)?);
        take_line(rest)?;
    }
}

/// Takes a line, and returns it without its line break.
fn take_line(rest: &mut &[u8]) -> Option<String> {
    let end = rest.iter().position(|&byte| byte == b'\n')?;
    let line = take(rest, end + 1)?;
    let line = line.strip_suffix(b"\n")?;
    Some(line.strip_suffix(b"\r").unwrap_or(line).iter().map(|&byte| char::from(byte)).collect())
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}
