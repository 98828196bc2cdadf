//! Reads HTTP/1.1 messages from a stream and keeps them as they were received, with header lines in order and in their own
//! case. It deliberately shares no code with the gateway, whose messages it checks.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// A message as it was received.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The head's bytes, the empty line included.
    pub(crate) head: Vec<u8>,
    /// The request or status line.
    pub(crate) start: String,
    /// Header lines in order, names in their own case.
    pub(crate) headers: Vec<(String, String)>,
    /// The body without its chunked framing.
    pub(crate) body: Vec<u8>,
    /// Trailer lines of a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// How the end of a message's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A stream and the bytes read from it after the last message.
#[derive(Debug)]
pub(crate) struct Reader<S> {
    stream: S,
    buffer: Vec<u8>,
}

impl Message {
    /// Returns the only value of the header `name`, or `None` if it is absent. Panics if there are several: use
    /// [`Message::all`].
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "more than one {name}: {all:?}");
        all.first().copied()
    }

    /// Returns all values of the header `name`, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    /// Returns the body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// Returns the framing that the head declares, if it declares one.
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

    /// Returns the stream, to write to it.
    pub(crate) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Returns the bytes read after the last message, and the stream.
    pub(crate) fn into_parts(self) -> (Vec<u8>, S) {
        (self.buffer, self.stream)
    }

    /// Reads a head. Returns `None` if the peer closed the connection between messages.
    pub(crate) async fn read_head(&mut self) -> io::Result<Option<Message>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill().await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(unexpected_end()) };
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let mut lines = lines(&head);
        let start = lines.next().unwrap_or_default();
        Ok(Some(Message { start, headers: fields(lines), head, ..Message::default() }))
    }

    /// Reads up to and including the first `text`.
    pub(crate) async fn read_through(&mut self, text: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = find(&self.buffer, text) {
                return Ok(self.buffer.drain(..at + text.len()).collect());
            }
            if self.fill().await? == 0 {
                return Err(unexpected_end());
            }
        }
    }

    /// Reads the body into `message`.
    pub(crate) async fn read_body(&mut self, message: &mut Message, framing: Framing) -> io::Result<()> {
        match framing {
            Framing::Length(length) => message.body = self.read_exactly(length).await?,
            Framing::UntilClose => message.body = self.read_to_end().await?,
            Framing::Chunked => loop {
                let size = self.read_line().await?;
                let digits = size.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(digits, 16).map_err(io::Error::other)?;
                if size == 0 {
                    break message.trailers = self.read_trailers().await?;
                }
                message.body.extend(self.read_exactly(size).await?);
                self.read_exactly(2).await?;
            },
        }
        Ok(())
    }

    /// Reads to the end of the stream. A reset counts as the end, too.
    pub(crate) async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
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

    async fn read_trailers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut trailers = Vec::new();
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                return Ok(fields(trailers.into_iter()));
            }
            trailers.push(line);
        }
    }

    async fn read_line(&mut self) -> io::Result<String> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                break at;
            }
            if self.fill().await? == 0 {
                return Err(unexpected_end());
            }
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        Ok(text(&line[..end]))
    }

    async fn read_exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            if self.fill().await? == 0 {
                return Err(unexpected_end());
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
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header line: {line:?}"));
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        })
        .collect()
}

/// Decodes UTF-8, or Latin-1 if it is not valid UTF-8, so that no byte is lost.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().copied().map(char::from).collect(),
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn unexpected_end() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ended in the middle of a message")
}
