//! The response of a scripted server: a status, headers and a body, which are framed here, or raw bytes.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::gate::Gate;
use super::http1::Reader;

/// A response and when to send its parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedResponse {
    before: Vec<Step>,
    message: Option<Message>,
    after: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Message {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Trailers of a chunked body; `None` for a body with a Content-Length.
    chunked: Option<Vec<(String, String)>>,
    /// Number of bytes of the framed body to send.
    limit: usize,
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<u8>),
    Wait(Gate),
    Echo,
    Close,
}

impl ScriptedResponse {
    /// Returns a response with this status and body.
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let message =
            Message { status, headers: vec![], body: body.into(), chunked: None, limit: usize::MAX };
        Self { message: Some(message), ..Self::default() }
    }

    /// Returns a 200 with this body.
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// Sends these bytes and nothing else, and closes the connection.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { before: vec![Step::Write(bytes.into())], ..Self::default() }.then_close()
    }

    /// Sends a 101, and then echoes every byte.
    pub(crate) fn upgrade(protocol: &str) -> Self {
        let head =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        Self { before: vec![Step::Write(head.into_bytes()), Step::Echo], ..Self::default() }
    }

    /// Sends these bytes, and then echoes every byte.
    pub(crate) fn raw_then_echo(head: &str) -> Self {
        Self { before: vec![Step::Write(head.into()), Step::Echo], ..Self::default() }
    }

    /// Waits until the gate is open and sends these bytes before it echoes.
    #[must_use]
    pub(crate) fn then_send_before_echo(mut self, gate: &Gate, bytes: &[u8]) -> Self {
        let echo = self.before.len() - 1;
        self.before.splice(echo..echo, [Step::Wait(gate.clone()), Step::Write(bytes.to_vec())]);
        self
    }

    /// Never responds.
    pub(crate) fn never() -> Self {
        Self::default().after(&Gate::closed())
    }

    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.framed().headers.push((name.into(), value.into()));
        self
    }

    /// Sends the body in chunks of at most 1,000 bytes, followed by these trailer lines.
    #[must_use]
    pub(crate) fn chunked(mut self, trailers: &[(&str, &str)]) -> Self {
        self.framed().chunked = Some(trailers.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
        self
    }

    /// Sends these bytes first, for example an interim response.
    #[must_use]
    pub(crate) fn preceded_by(mut self, bytes: &str) -> Self {
        self.before.push(Step::Write(bytes.into()));
        self
    }

    /// Waits until the gate is open before it sends anything.
    #[must_use]
    pub(crate) fn after(mut self, gate: &Gate) -> Self {
        self.before.insert(0, Step::Wait(gate.clone()));
        self
    }

    /// Sends only this many bytes of the framed body and closes the connection.
    #[must_use]
    pub(crate) fn truncated_to(mut self, bytes: usize) -> Self {
        self.framed().limit = bytes;
        self.then_close()
    }

    /// Sends only this many bytes of the framed body, and the rest when the gate is open.
    #[must_use]
    pub(crate) fn paused_after(mut self, bytes: usize, gate: &Gate) -> Self {
        let framed = self.framed().framed_body().1;
        self.framed().limit = bytes;
        self.after.extend([Step::Wait(gate.clone()), Step::Write(framed[bytes..].to_vec())]);
        self
    }

    /// Closes the connection after the response.
    #[must_use]
    pub(crate) fn then_close(mut self) -> Self {
        self.after.push(Step::Close);
        self
    }

    /// Returns the response to a HEAD request: the same head without the body.
    #[must_use]
    pub(crate) fn without_body(mut self) -> Self {
        if let Some(message) = &mut self.message {
            message.limit = 0;
        }
        self
    }

    /// Sends the response. Returns the connection, or `None` if no further request can follow.
    pub(crate) async fn write(self, mut to: Reader<TcpStream>) -> io::Result<Option<Reader<TcpStream>>> {
        let message = self.message.map(|message| Step::Write(message.bytes()));
        for step in self.before.into_iter().chain(message).chain(self.after) {
            match step {
                Step::Write(bytes) => to.stream().write_all(&bytes).await?,
                Step::Wait(gate) => gate.pass().await,
                Step::Close => return Ok(None),
                Step::Echo => {
                    let (early, mut stream) = to.into_parts();
                    stream.write_all(&early).await?;
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(to))
    }

    fn framed(&mut self) -> &mut Message {
        self.message.as_mut().expect("a response of raw bytes has no head to change")
    }
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let (framing, mut body) = self.framed_body();
        body.truncate(self.limit);
        [format!("{head}{framing}\r\n").into_bytes(), body].concat()
    }

    fn framed_body(&self) -> (String, Vec<u8>) {
        match &self.chunked {
            Some(trailers) => ("Transfer-Encoding: chunked\r\n".into(), chunks(&self.body, trailers)),
            None if matches!(self.status, 204 | 304) => (String::new(), vec![]),
            None => (format!("Content-Length: {}\r\n", self.body.len()), self.body.clone()),
        }
    }
}

fn chunks(body: &[u8], trailers: &[(String, String)]) -> Vec<u8> {
    let mut framed = Vec::new();
    for chunk in body.chunks(1000) {
        framed.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        framed.extend(chunk);
        framed.extend(b"\r\n");
    }
    framed.extend(b"0\r\n");
    for (name, value) in trailers {
        framed.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    framed.extend(b"\r\n");
    framed
}
