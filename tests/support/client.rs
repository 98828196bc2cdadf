//! A client that sends exactly the bytes it is told to, and reads answers one at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::{Framing, Message, Reader};
use super::within;

/// One connection, of whatever kind.
#[derive(Debug)]
pub(crate) struct Client {
    reader: Reader<Box<dyn Stream>>,
}

/// What a connection is made over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Stream for S {}

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The final status.
    pub(crate) status: u16,
    /// The final answer as it came.
    pub(crate) message: Message,
    /// The answers with a status of 1xx that came before it.
    pub(crate) interim: Vec<Message>,
}

impl Request {
    /// A request with nothing but a Host line.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self { method: method.into(), target: target.into(), headers: vec![], body: vec![] }
            .header("Host", "gateway.test")
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn post(target: &str, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self { body, ..Self::new("POST", target) }.header("Content-Length", &length)
    }

    /// Adds a header line. `Host` replaces the one that is there.
    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if name.eq_ignore_ascii_case("host") {
            self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case("host"));
        }
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a `Cookie` line: `name=value`, or several with `; ` between them.
    #[must_use]
    pub(crate) fn cookie(self, cookie: &str) -> Self {
        self.header("Cookie", cookie)
    }

    /// Sends it on a new connection.
    pub(crate) async fn send(&self, address: SocketAddr) -> Response {
        Client::connect(address).await.request(self).await
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("connects");
        Self::over(stream)
    }

    /// A client on a connection that is there already.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { reader: Reader::new(Box::new(stream)) }
    }

    /// Sends a request and reads its answer; the connection can be used again.
    pub(crate) async fn request(&mut self, request: &Request) -> Response {
        self.send(request.bytes()).await;
        let framing = (request.method == "HEAD").then_some(Framing::Length(0));
        self.read(framing).await.expect("a complete answer")
    }

    /// Sends these bytes and no others.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.reader.stream().write_all(bytes.as_ref())).await.expect("sends");
    }

    /// Sends as much of these bytes as the gateway takes.
    pub(crate) async fn send_what_is_taken(&mut self, bytes: &[u8]) {
        let stream = self.reader.stream();
        let _refused = within("sending", stream.write_all(bytes)).await;
    }

    /// Sends a byte at a time, each of which is a short wait, until there is an answer; its head.
    pub(crate) async fn drip(self) -> Message {
        let (read, stream) = self.reader.into_parts();
        assert!(read.is_empty(), "bytes are left");
        let (from, mut to) = tokio::io::split(stream);
        let mut from = Reader::new(from);
        let drip = async {
            loop {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if to.write_all(b"x").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let read = async {
            tokio::select! {
                head = from.head() => head,
                () = drip => unreachable!("it never ends"),
            }
        };
        within("an answer", read).await.expect("reads").expect("an answer")
    }

    /// Sends a request without reading its answer.
    pub(crate) async fn start(&mut self, request: &Request) {
        self.send(request.bytes()).await;
    }

    /// Reads one answer. An error: it was broken off, or the connection was.
    pub(crate) async fn answer(&mut self) -> io::Result<Response> {
        self.read(None).await
    }

    /// Reads through the first `text` in what comes next; all that was read.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let read = within(text, self.reader.through(text.as_bytes())).await.expect("comes before the end");
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the gateway closes the connection.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        within("the end of the connection", self.reader.rest()).await.expect("reads")
    }

    /// Whether the gateway has closed the connection, or does so before it sends anything.
    pub(crate) async fn is_closed(&mut self) -> bool {
        match within("the connection's end", self.reader.head()).await {
            Ok(head) => head.is_none(),
            Err(_) => true,
        }
    }

    async fn read(&mut self, framing: Option<Framing>) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = within("an answer's head", self.reader.head()).await?;
            let mut message = head.ok_or(io::ErrorKind::ConnectionAborted)?;
            let status = status(&message);
            let bodiless = matches!(status, 100..=199 | 204 | 304);
            let framing = if bodiless { Some(Framing::Length(0)) } else { framing.or(message.framing()) };
            let body = self.reader.body(&mut message, framing.unwrap_or(Framing::UntilClose));
            within("an answer's body", body).await?;
            if status == 101 || !(100..200).contains(&status) {
                return Ok(Response { status, message, interim });
            }
            interim.push(message);
        }
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.message.all(name)
    }

    /// The `Set-Cookie` lines.
    pub(crate) fn set_cookies(&self) -> Vec<&str> {
        self.message.all("set-cookie")
    }

    pub(crate) fn text(&self) -> String {
        self.message.text()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        self.message.json()
    }
}

/// A `Set-Cookie` line with its attributes in alphabetical order, since their order means nothing.
pub(crate) fn sorted(set_cookie: &str) -> String {
    let mut parts: Vec<_> = set_cookie.split("; ").collect();
    parts[1..].sort_unstable();
    parts.join("; ")
}

fn status(message: &Message) -> u16 {
    let code = message.start.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status line: {:?}", message.start))
}
