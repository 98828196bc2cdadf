//! HTTP/1.1 as bytes: reads one message at a time from a stream and keeps it as it came, header lines in order and in
//! their own case. Deliberately not hyper: what the gateway sends is judged by a reader that shares no code with it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A message as it stood on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The head's bytes, the empty line included.
    pub(crate) head: Vec<u8>,
    /// The request or status line.
    pub(crate) start: String,
    /// Header lines in order, names in their own case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body, with chunked framing taken off.
    pub(crate) body: Vec<u8>,
    /// Trailer lines of a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// Where a message's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A stream with what was read of it beyond the last message.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Message {
    /// The only value of the header `name`; none if it is absent. Two are a failed test: use [`Message::all`].
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "more than one {name}: {all:?}");
        all.first().copied()
    }

    /// All values of the header `name`, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The framing that the head declares, if it declares one.
    pub(crate) fn framing(&self) -> Option<Framing> {
        if let Some(coding) = self.header("transfer-encoding") {
            assert!(coding.eq_ignore_ascii_case("chunked"), "transfer-encoding: {coding}");
            return Some(Framing::Chunked);
        }
        self.header("content-length").map(|length| Framing::Length(length.parse().expect("a content length")))
    }
}

impl<S: AsyncRead + Unpin> Reader<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The stream, to write to.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// What was read beyond the last message, and the stream.
    pub(crate) fn into_parts(self) -> (Vec<u8>, S) {
        (self.buffer, self.stream)
    }

    /// Reads a head. `None`: the peer closed between messages.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(broken_off()) };
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut lines = lines(&head);
        let start = lines.next().unwrap_or_default();
        Ok(Some(Message { start, headers: fields(lines), head, ..Message::default() }))
    }

    /// Reads through the first `text`.
    pub(crate) async fn through(&mut self, text: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, text) {
                return Ok(self.buffer.drain(..at + text.len()).collect());
            }
            if self.fill().await? == 0 {
                return Err(broken_off());
            }
        }
    }

    /// Reads the body into `message`.
    pub(crate) async fn body(&mut self, message: &mut Message, framing: Framing) -> io::Result<()> {
        match framing {
            Framing::Length(length) => message.body = self.exactly(length).await?,
            Framing::UntilClose => message.body = self.rest().await?,
            Framing::Chunked => loop {
                let size = self.line().await?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    break message.trailers = self.trailers().await?;
                }
                message.body.extend(self.exactly(size).await?);
                self.exactly(2).await?;
            },
        }
        Ok(())
    }

    /// Everything up to the end of the stream. A reset ends it too: what arrived before it is what is asked for.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill().await {
                Ok(0) => return Ok(std::mem::take(&mut self.buffer)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn trailers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut trailers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(fields(trailers.into_iter()));
            }
            trailers.push(line);
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            if self.fill().await? == 0 {
                return Err(broken_off());
            }
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Ok(text(&line[..end]))
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Err(broken_off());
            }
        }
        Ok(self.buffer.drain(..count).collect())
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = String> {
    text(head)
        .split("\r\n")
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

fn fields(lines: impl Iterator<Item = String>) -> Vec<(String, String)> {
    lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header line: {line:?}"));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        })
        .collect()
}

/// UTF-8 as it is; anything else byte for byte as Latin-1, so that nothing is lost.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn broken_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the message is broken off")
}
