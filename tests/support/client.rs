//! A client that sends exactly the bytes of a test and reads one response at a time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http1::{Framing, Message, Reader};
use super::within;

/// A connection over any kind of stream.
#[derive(Debug)]
pub(crate) struct Client {
    reader: Reader<Box<dyn Stream>>,
}

/// A stream that carries a connection.
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

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// The final status.
    pub(crate) status: u16,
    /// The final response as it was received.
    pub(crate) message: Message,
    /// The interim (1xx) responses before it.
    pub(crate) interim: Vec<Message>,
}

impl Request {
    /// Returns a request with no header but Host.
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

    /// Adds a header line. A `Host` replaces the existing one.
    #[must_use]
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if name.eq_ignore_ascii_case("host") {
            self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case("host"));
        }
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds a `Cookie` line: `name=value`, or several separated by `; `.
    #[must_use]
    pub(crate) fn cookie(self, cookie: &str) -> Self {
        self.header("Cookie", cookie)
    }

    /// Sends the request on a new connection and reads the response.
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

    /// Returns a client on an open connection.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { reader: Reader::new(Box::new(stream)) }
    }

    /// Sends a request and reads its response. The connection can be reused.
    pub(crate) async fn request(&mut self, request: &Request) -> Response {
        self.send(request.bytes()).await;
        let framing = (request.method == "HEAD").then_some(Framing::Length(0));
        self.read(framing).await.expect("a complete response")
    }

    /// Sends a request until a response has `Connection: close`.
    pub(crate) async fn request_until_close(&mut self, request: &Request) {
        let responses = async { while self.request(request).await.header("connection") != Some("close") {} };
        within("the last response of a connection", responses).await;
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.reader.stream().write_all(bytes.as_ref())).await.expect("sends");
    }

    /// Sends these bytes, or as many as it can until the gateway closes the connection.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) {
        let stream = self.reader.stream();
        let _closed = within("sending", stream.write_all(bytes)).await;
    }

    /// Sends one byte every 50 ms until there is a response. Returns the head of the response.
    pub(crate) async fn drip(self) -> Message {
        let (read, stream) = self.reader.into_parts();
        assert!(read.is_empty(), "unread bytes");
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
                head = from.read_head() => head,
                () = drip => unreachable!("this never ends"),
            }
        };
        within("a response", read).await.expect("reads").expect("a response")
    }

    /// Sends a request without reading its response.
    pub(crate) async fn send_request(&mut self, request: &Request) {
        self.send(request.bytes()).await;
    }

    /// Reads one response. Returns an error if it is incomplete.
    pub(crate) async fn read_response(&mut self) -> io::Result<Response> {
        self.read(None).await
    }

    /// Reads up to and including the first `text`, and returns all that was read.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let read = within(text, self.reader.read_through(text.as_bytes()))
            .await
            .expect("is received before the end");
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Reads until the gateway closes the connection, and returns all that was read.
    pub(crate) async fn read_to_end(&mut self) -> Vec<u8> {
        within("the end of the connection", self.reader.read_to_end()).await.expect("reads")
    }

    /// Waits for data or the end of the connection. Returns true if the connection ends before a response's head.
    pub(crate) async fn is_closed(&mut self) -> bool {
        match within("the end of the connection", self.reader.read_head()).await {
            Ok(head) => head.is_none(),
            Err(_) => true,
        }
    }

    async fn read(&mut self, framing: Option<Framing>) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let head = within("a response's head", self.reader.read_head()).await?;
            let mut message = head.ok_or(io::ErrorKind::ConnectionAborted)?;
            let status = status(&message);
            let bodiless = matches!(status, 100..=199 | 204 | 304);
            let framing = if bodiless { Some(Framing::Length(0)) } else { framing.or(message.framing()) };
            let body = self.reader.read_body(&mut message, framing.unwrap_or(Framing::UntilClose));
            within("a response's body", body).await?;
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

    /// Returns the `Set-Cookie` values.
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

/// Returns a `Set-Cookie` value with its attributes in alphabetical order, for comparison: their order has no meaning.
pub(crate) fn sorted_attributes(set_cookie: &str) -> String {
    let mut parts: Vec<_> = set_cookie.split("; ").collect();
    parts[1..].sort_unstable();
    parts.join("; ")
}

fn status(message: &Message) -> u16 {
    let code =
        ["HTTP/1.1 ", "HTTP/1.0 "].iter().find_map(|version| message.start.strip_prefix(version)?.get(..3));
    code.and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("not a status line: {:?}", message.start))
}
