//! What a server says in HTTP/1.1, read by our client and by a plain reading of the same bytes.
//!
//! The input's first line says how, and the rest is what the server says: `G`, `H` or `P`, the method; `c`, `o` or `r`,
//! whether the server closes the connection, stays silent, or says it all again and again; and letters that are the
//! lengths of the pieces in which all that comes and goes, in turn.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request};
use http_body::Body as _;
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::GatewayHeaders;
use crate::upstream::http1::Http1Connection;

/// What a server that does not come to an end says in all.
const ENDLESS: usize = 512 * 1024;
/// How many pieces of a body are enough to see of one that does not come to its end.
const PIECES: usize = 2_000;
/// The most that is held of what was read: a head that is nearly too large, and a read of the largest size.
const HELD: usize = (64 + 256) * 1024;

/// Reads an answer.
pub fn answer(input: &[u8]) {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return };
    let (how, said) = (input.get(..end).unwrap_or_default(), input.get(end + 1..).unwrap_or_default());
    let ([method, ending, lengths @ ..], false) = (how, said.is_empty()) else { return };
    let method = match method {
        b'H' => Method::HEAD,
        b'P' => Method::POST,
        _ => Method::GET,
    };
    let ending = match ending {
        b'c' => Ending::Closes,
        b'r' => Ending::Repeats,
        _ => Ending::Stays,
    };
    let whole = converse(&method, said, ending, &[]);
    if ending == Ending::Repeats {
        return;
    }
    let pieces = converse(&method, said, ending, lengths);
    let is_answer = |read: &Read| matches!(read, Read::Answer(..));
    if is_answer(&whole.answer) || is_answer(&pieces.answer) {
        assert_eq!(whole.answer, pieces.answer, "pieces make no difference");
    }
    // An answer may come before all of the request has gone, but only in pieces.
    assert!(whole.reusable || !pieces.reusable, "nor do they to the connection");
    let plain = plainly(&method, said, ending);
    match whole.answer {
        Read::Answer(status, body) => {
            let Some(plain) = plain else { unreachable!("it is read out of what is no answer") };
            assert_eq!((status, body), (plain.status, plain.body), "the answer is what the bytes say");
            let clean = plain.length == said.len() && plain.persists && ending == Ending::Stays;
            assert!(clean || !whole.reusable, "a connection is used again at a clean end");
        }
        Read::Refused => assert!(!whole.reusable, "a connection that went wrong is not used again"),
        Read::Unfinished => {
            assert!(plain.is_none(), "an answer that is all there is not waited for");
            assert!(!whole.reusable, "a connection in use is not used again");
        }
    }
}

/// What the server does when it has said it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Closes,
    Stays,
    Repeats,
}

/// How a conversation went.
struct Conversation {
    answer: Read,
    reusable: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Answer(u16, Vec<u8>),
    Refused,
    /// There is no end of it.
    Unfinished,
}

/// A server, who says what is written, in pieces, and falls silent between them.
struct Server<'s> {
    said: &'s [u8],
    ending: Ending,
    lengths: &'s [u8],
    /// How many pieces have come or gone.
    pieces: usize,
    /// How much has been said, and heard.
    at: usize,
    heard: usize,
    /// Whether it falls silent before the next piece.
    pauses: bool,
    paused: bool,
}

/// The client's end of the connection to it.
#[derive(Clone)]
struct Line<'s>(Rc<RefCell<Server<'s>>>);

fn converse(method: &Method, said: &[u8], ending: Ending, lengths: &[u8]) -> Conversation {
    let server = Server { said, ending, lengths, pieces: 0, at: 0, heard: 0, pauses: true, paused: false };
    let line = Line(Rc::new(RefCell::new(server)));
    let connection = Http1Connection::new(line.clone());
    let body = if *method == Method::POST { "name=value" } else { "" };
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method.clone();
    request.headers_mut().insert(HOST, HeaderValue::from_static("app.example"));
    let asked = format!("{method} / HTTP/1.1\r\nhost: app.example\r\n\r\n").len()
        + if body.is_empty() { 0 } else { "content-length: 10\r\n".len() + body.len() };
    connection.start(request, &GatewayHeaders::default());
    let answer = read(&connection, &line, said.len());
    let said_all = connection.is_reusable();
    // What the server has left to say, it has said by the time that the connection is wanted again.
    line.0.borrow_mut().pauses = false;
    let reusable = said_all && connection.is_open();
    assert!(!reusable || line.0.borrow().heard == asked, "the request is over, too");
    Conversation { answer, reusable }
}

fn read<'s>(connection: &Http1Connection<Line<'s>, Full<Bytes>>, line: &Line<'s>, length: usize) -> Read {
    // Each turn, something comes, goes or is silent for once.
    let mut turns = 1_000 + 4 * length.max(ENDLESS / 1024);
    let mut context = Context::from_waker(Waker::noop());
    let mut next = |line: &Line<'s>| {
        assert!(connection.buffered() <= HELD, "what is held is bounded");
        turns = turns.saturating_sub(1);
        assert!(turns > 0, "it comes to an end");
        line.is_over()
    };
    let response = loop {
        match connection.poll_response(&mut context) {
            Poll::Ready(Ok(response)) => break response,
            Poll::Ready(Err(_)) => return Read::Refused,
            Poll::Pending if next(line) => return Read::Unfinished,
            Poll::Pending => {}
        }
    };
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let (mut all, mut pieces, exact) = (Vec::new(), 0, body.size_hint().exact());
    loop {
        let ended = body.is_end_stream();
        match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => {
                assert!(!ended, "nothing comes after the end");
                pieces += 1;
                if pieces > PIECES {
                    return Read::Unfinished;
                }
                if let Ok(data) = frame.into_data() {
                    assert!(!data.is_empty(), "a piece is something");
                    all.extend_from_slice(&data);
                }
            }
            Poll::Ready(Some(Err(_))) => return Read::Refused,
            Poll::Ready(None) => break,
            Poll::Pending if next(line) => return Read::Unfinished,
            Poll::Pending => {}
        }
    }
    assert!(exact.is_none_or(|exact| exact == all.len() as u64), "a body is as long as it says");
    Read::Answer(status, all)
}

impl Line<'_> {
    /// Whether the server says nothing more.
    fn is_over(&self) -> bool {
        let server = self.0.borrow();
        let all = if server.ending == Ending::Repeats { ENDLESS } else { server.said.len() };
        server.at >= all && server.ending != Ending::Closes
    }
}

impl Server<'_> {
    /// The length of the next piece; none: first, there is silence.
    fn next(&mut self) -> Option<usize> {
        self.paused = self.pauses && !self.lengths.is_empty() && !self.paused;
        if self.paused {
            return None;
        }
        let length = self.lengths.get(self.pieces % self.lengths.len().max(1));
        self.pieces += 1;
        Some(length.map_or(usize::MAX, |&letter| usize::from(letter.saturating_sub(b'/')).max(1)))
    }
}

impl AsyncRead for Line<'_> {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut server = self.0.borrow_mut();
        let Some(length) = server.next() else { return Poll::Pending };
        let rest = match server.ending {
            Ending::Closes => server.said.get(server.at..),
            Ending::Stays if server.at == server.said.len() => return Poll::Pending,
            Ending::Stays => server.said.get(server.at..),
            Ending::Repeats if server.at >= ENDLESS => return Poll::Pending,
            Ending::Repeats => {
                while into.remaining() > 0 {
                    let rest = server.said.get(server.at % server.said.len()..).unwrap_or_default();
                    let piece = rest.get(..into.remaining().min(rest.len())).unwrap_or_default();
                    into.put_slice(piece);
                    server.at += piece.len();
                }
                return Poll::Ready(Ok(()));
            }
        };
        let rest = rest.unwrap_or_default();
        let piece = rest.get(..length.min(rest.len()).min(into.remaining())).unwrap_or_default();
        into.put_slice(piece);
        server.at += piece.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Line<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut server = self.0.borrow_mut();
        let Some(length) = server.next() else { return Poll::Pending };
        let length = length.min(bytes.len());
        server.heard += length;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An answer as whoever reads generously has it.
struct Plain {
    status: u16,
    body: Vec<u8>,
    persists: bool,
    /// How many of the bytes it is.
    length: usize,
}

/// What the bytes say to somebody who takes every line end for one, and believes what headers say.
fn plainly(method: &Method, said: &[u8], ending: Ending) -> Option<Plain> {
    let mut rest = said;
    let (status, version, headers) = loop {
        let head = head(&mut rest)?;
        if !(100..200).contains(&head.0) || head.0 == 101 {
            break head;
        }
    };
    let of = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut closed = false;
    let body = if *method == Method::HEAD || matches!(status, 101 | 204 | 304) {
        Vec::new()
    } else if of("transfer-encoding").is_some() {
        chunks(&mut rest)?
    } else if let Some(length) = of("content-length") {
        // Of several, one is as good as another: those that differ are refused.
        let length = length.split(',').next().unwrap_or_default().trim();
        take(&mut rest, length.parse().ok()?)?.to_vec()
    } else {
        closed = true;
        std::mem::take(&mut rest).to_vec()
    };
    if closed && ending != Ending::Closes {
        return None;
    }
    let connection = of("connection").unwrap_or_default();
    let is_new = version.starts_with("HTTP/1.") && version != "HTTP/1.0";
    let persists = !closed && status != 101 && (is_new || connection.contains("keep-alive"));
    let persists = persists && !connection.split(',').any(|word| word.trim() == "close");
    Some(Plain { status, body, persists, length: said.len() - rest.len() })
}

/// Names and values, in lower case.
type Lines = Vec<(String, String)>;

/// A head: the status, the version, and the headers.
fn head(rest: &mut &[u8]) -> Option<(u16, String, Lines)> {
    let first = loop {
        let line = line(rest)?;
        if !line.is_empty() {
            break line;
        }
    };
    let (version, status) = first.split_once([' ', '\t'])?;
    let status = status.trim_start().get(..3)?.parse().ok()?;
    Some((status, version.to_owned(), lines(rest)?))
}

/// Header lines, to the empty one.
fn lines(rest: &mut &[u8]) -> Option<Lines> {
    let mut lines = Lines::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Some(lines);
        }
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), lines.last_mut()) {
            let folded = format!("{value} {}", line.trim().to_ascii_lowercase());
            folded.trim().clone_into(value);
            continue;
        }
        let (name, value) = line.split_once(':').unwrap_or((&line, ""));
        lines.push((name.trim_end().to_ascii_lowercase(), value.trim().to_ascii_lowercase()));
    }
}

fn chunks(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let size = line(rest)?;
        let digits: String = size.chars().take_while(char::is_ascii_hexdigit).collect();
        let size = usize::from_str_radix(&digits, 16).ok()?;
        if size == 0 {
            lines(rest)?;
            return Some(all);
        }
        all.extend_from_slice(take(rest, size)?);
        line(rest)?;
    }
}

/// A line without its end.
fn line(rest: &mut &[u8]) -> Option<String> {
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
