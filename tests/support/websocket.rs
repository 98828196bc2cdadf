//! WebSockets by a library that shares no code with the gateway: a server behind it, and clients in front.

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

/// A server that sends every message back. It stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Echo {
    address: SocketAddr,
    seen: Arc<watch::Sender<Seen>>,
    accepting: JoinHandle<()>,
}

/// What an echo server has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The headers of each handshake.
    pub(crate) handshakes: Vec<HeaderMap>,
    /// How each socket ended: by this code, or without a Close frame.
    pub(crate) ends: Vec<Option<u16>>,
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// The headers of the 101.
    pub(crate) headers: HeaderMap,
}

impl Echo {
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

    /// Waits until `count` sockets have ended.
    pub(crate) async fn ends(&self, count: usize) -> Vec<Option<u16>> {
        let mut seen = self.seen.subscribe();
        let seen = within("the end of a socket", seen.wait_for(|seen| seen.ends.len() >= count)).await;
        seen.expect("the sender lives").ends.clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn echo(stream: TcpStream, seen: Arc<watch::Sender<Seen>>) {
    #[expect(clippy::result_large_err, reason = "the library's callback")]
    let note = |request: &Request, response: Response| {
        seen.send_modify(|seen| seen.handshakes.push(request.headers().clone()));
        Ok(response)
    };
    let accepted = tokio_tungstenite::accept_hdr_async(stream, note).await;
    let Ok(mut socket) = accepted else { return };
    let mut end = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Close(frame) => end = frame.map(|frame| frame.code.into()),
            Message::Text(_) | Message::Binary(_) => {
                let _gone = socket.send(message).await;
            }
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    seen.send_modify(|seen| seen.ends.push(end));
}

impl Socket {
    /// Opens a socket through the gateway with these headers.
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

    /// The same with this session's cookie, which must succeed.
    pub(crate) async fn with_cookie(gateway: &Gateway, target: &str, cookie: &str) -> Self {
        Self::open(gateway, target, &[("Cookie", cookie)]).await.expect("opens")
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        within("sending", self.stream.send(message.into())).await.expect("sends");
    }

    /// The next message; none: the connection has ended without a Close frame.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        within("a message", self.stream.next()).await?.ok()
    }

    /// Sends a message and waits for it to come back.
    pub(crate) async fn echo(&mut self, text: &str) {
        self.send(text).await;
        assert_eq!(self.next().await, Some(Message::text(text)));
    }

    /// Waits for the Close frame, past what else comes.
    pub(crate) async fn close(&mut self) -> Option<(u16, String)> {
        loop {
            if let Message::Close(frame) = self.next().await? {
                let frame = frame?;
                return Some((frame.code.into(), frame.reason.to_string()));
            }
        }
    }

    /// Closes the socket and waits until the other end has too.
    pub(crate) async fn finish(mut self, code: u16) {
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: CloseCode::from(code),
            reason: "".into(),
        };
        within("closing", self.stream.close(Some(frame))).await.expect("closes");
        while self.next().await.is_some() {}
    }
}

/// The status of a handshake that was refused.
pub(crate) fn refused(opened: Result<Socket, Box<Error>>) -> u16 {
    match opened.map_err(|error| *error) {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("no refusal: {other:?}"),
    }
}
