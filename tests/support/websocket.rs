//! A WebSocket server and client of a library that shares no code with the gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::gateway::Gateway;
use super::within;

/// A server that echoes every message. It stops when this value is dropped.
#[derive(Debug)]
pub(crate) struct EchoServer {
    address: SocketAddr,
    seen: Arc<watch::Sender<Seen>>,
    accepting: JoinHandle<()>,
}

/// The handshakes and ends of connections that an echo server has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The headers of each handshake.
    pub(crate) handshakes: Vec<HeaderMap>,
    /// The code of each connection's Close frame, or `None` for a connection that ended without one.
    pub(crate) ends: Vec<Option<u16>>,
}

/// A client connection.
#[derive(Debug)]
pub(crate) struct WebSocket {
    stream: WebSocketStream<TcpStream>,
    /// The headers of the 101.
    pub(crate) headers: HeaderMap,
}

impl EchoServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("is bound");
        let seen = Arc::new(watch::Sender::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let accepting = tokio::spawn(async move {
            let mut sockets = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                sockets.spawn(echo(stream, Arc::clone(&shared)));
            }
        });
        Self { address, seen, accepting }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until `count` connections have ended, and returns their codes.
    pub(crate) async fn wait_for_ends(&self, count: usize) -> Vec<Option<u16>> {
        let mut seen = self.seen.subscribe();
        let seen = within("the end of a connection", seen.wait_for(|seen| seen.ends.len() >= count)).await;
        seen.expect("the sender is alive").ends.clone()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn echo(stream: TcpStream, seen: Arc<watch::Sender<Seen>>) {
    #[expect(clippy::result_large_err, reason = "the library's callback")]
    let record = |request: &Request, response: Response| {
        seen.send_modify(|seen| seen.handshakes.push(request.headers().clone()));
        Ok(response)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(stream, record).await;
    let Ok(mut socket) = accepted else { return };
    let mut end = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Close(frame) => end = frame.map(|frame| frame.code.into()),
            Message::Text(_) | Message::Binary(_) => {
                let _disconnected = socket.send(message).await;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    seen.send_modify(|seen| seen.ends.push(end));
}

impl WebSocket {
    /// Opens a WebSocket through the gateway with these headers.
    pub(crate) async fn open(
        gateway: &Gateway,
        target: &str,
        lines: &[(&str, &str)],
    ) -> Result<Self, Box<Error>> {
        let address = gateway.address();
        let mut request = format!("ws://{address}{target}").into_client_request().expect("a request");
        for (name, value) in lines {
            let name: HeaderName = name.parse().expect("a name");
            request.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
        }
        let stream = within("a connection", TcpStream::connect(address)).await.expect("connects");
        let opened = within("a handshake", tokio_tungstenite::client_async(request, stream)).await;
        let (stream, response) = opened.map_err(Box::new)?;
        Ok(Self { stream, headers: response.headers().clone() })
    }

    /// Opens a WebSocket with this session cookie. Panics if that fails.
    pub(crate) async fn with_cookie(gateway: &Gateway, target: &str, cookie: &str) -> Self {
        Self::open(gateway, target, &[("Cookie", cookie)]).await.expect("opens")
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        within("sending", self.stream.send(message.into())).await.expect("sends");
    }

    /// Reads the next message. Returns `None` if the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        within("a message", self.stream.next()).await?.ok()
    }

    /// Sends a message and asserts that it is echoed.
    pub(crate) async fn echo(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.next().await, Some(Message::text(text)));
    }

    /// Skips messages until the Close frame, and returns its code and reason. Returns `None` if the connection ends without
    /// one.
    pub(crate) async fn read_close(&mut self) -> Option<(u16, String)> {
        loop {
            if let Message::Close(frame) = self.next().await? {
                let frame = frame?;
                return Some((frame.code.into(), frame.reason.to_string()));
            }
        }
    }

    /// Sends a Close frame with this code and waits until the connection has ended.
    pub(crate) async fn close(mut self, code: u16) {
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        };
        within("closing", self.stream.close(Some(frame))).await.expect("closes");
        while self.next().await.is_some() {}
    }
}

/// Returns the status of a rejected handshake.
pub(crate) fn rejected_status(opened: Result<WebSocket, Box<Error>>) -> u16 {
    match opened.map_err(|error| *error) {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("not rejected: {other:?}"),
    }
}
