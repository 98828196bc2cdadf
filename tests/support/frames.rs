//! HTTP/2 as bytes: a client that sends what frames a test wants, and when. Heads are written without compression.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::within;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: u32 = 8;

/// A connection; what is asked of it goes out with the next [`Frames::send`].
#[derive(Debug)]
pub(crate) struct Frames {
    stream: TcpStream,
    unsent: Vec<u8>,
    next: u32,
}

impl Frames {
    /// A connection to `gateway` from `address`, one of the loopback network.
    pub(crate) async fn connect(address: &str, gateway: SocketAddr) -> Self {
        Self::over(connect(address, gateway).await)
    }

    /// The same over `stream`.
    pub(crate) fn over(stream: TcpStream) -> Self {
        let mut client = Self { stream, unsent: PREFACE.to_vec(), next: 1 };
        client.frame(SETTINGS, 0, 0, &[]);
        client
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        self.unsent.extend_from_slice(&length[1..]);
        self.unsent.extend_from_slice(&[kind, flags]);
        self.unsent.extend_from_slice(&stream.to_be_bytes());
        self.unsent.extend_from_slice(payload);
    }

    /// Asks for `path` on a stream of its own.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        let stream = self.next;
        self.next += 2;
        // GET and http are entries of HPACK's own table, as are the names of the others.
        let mut head = vec![0x82, 0x86];
        for (name, value) in [(4, path), (1, "gateway.test")] {
            head.extend_from_slice(&[name, u8::try_from(value.len()).expect("a short value")]);
            head.extend_from_slice(value.as_bytes());
        }
        self.frame(HEADERS, END_STREAM | END_HEADERS, stream, &head);
        stream
    }

    /// Gives `stream` up.
    pub(crate) fn reset(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }

    /// Sends all at once; what does not go because the gateway has closed the connection is lost.
    pub(crate) async fn send(&mut self) {
        let _ = within("frames to be taken", self.stream.write_all(&self.unsent)).await;
        self.unsent.clear();
    }

    /// Reads to the end of `stream`; false: the connection ends first.
    pub(crate) async fn ends(&mut self, stream: u32) -> bool {
        while let Some((kind, flags, of)) = within("a frame", self.read()).await {
            if of == stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return true;
            }
        }
        false
    }

    /// Reads to the connection's end.
    pub(crate) async fn closed(&mut self) {
        while within("a frame", self.read()).await.is_some() {}
    }

    async fn read(&mut self) -> Option<(u8, u8, u32)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }
}

/// A connection to `gateway` from `address`.
pub(crate) async fn connect(address: &str, gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::new(address.parse().expect("an address"), 0))
        .expect("an address of the loopback");
    within("a connection", socket.connect(gateway)).await.expect("a connection")
}
