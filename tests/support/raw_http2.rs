//! An HTTP/2 client that sends the frames that a test asks for. It encodes header values without Huffman coding.

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
/// Error codes of RFC 9113, 7.
const NO_ERROR: u32 = 0;
const CANCEL: u32 = 8;
/// Indexed fields of HPACK's static table (RFC 7541, A): `:method: GET` and `:method: POST`.
const GET: u8 = 0x82;
const POST: u8 = 0x83;

/// A connection. Its frames are queued until [`RawHttp2::send`].
#[derive(Debug)]
pub(crate) struct RawHttp2 {
    stream: TcpStream,
    unsent: Vec<u8>,
    next: u32,
}

impl RawHttp2 {
    /// Connects to `gateway` from `address`, which is a loopback address.
    pub(crate) async fn connect(address: &str, gateway: SocketAddr) -> Self {
        Self::over(connect(address, gateway).await)
    }

    /// Starts HTTP/2 on `stream`.
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

    /// Queues a GET of `path` and returns its stream id.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.request(GET, path, END_STREAM)
    }

    /// Queues a POST to `path` with the beginning of its body, and returns its stream id.
    pub(crate) fn begin_post(&mut self, path: &str, body: &[u8]) -> u32 {
        let stream = self.request(POST, path, 0);
        self.frame(DATA, 0, stream, body);
        stream
    }

    fn request(&mut self, method: u8, path: &str, flags: u8) -> u32 {
        let stream = self.next;
        self.next += 2;
        // The method, http and the names of the other fields are entries of HPACK's static table.
        let mut head = vec![method, 0x86];
        for (name, value) in [(4, path), (1, "gateway.test")] {
            head.extend_from_slice(&[name, u8::try_from(value.len()).expect("a short value")]);
            head.extend_from_slice(value.as_bytes());
        }
        self.frame(HEADERS, flags | END_HEADERS, stream, &head);
        stream
    }

    /// Queues a reset of `stream`.
    pub(crate) fn reset(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    }

    /// Queues a reset of `stream` with NO_ERROR.
    pub(crate) fn give_up(&mut self, stream: u32) {
        self.frame(RST_STREAM, 0, stream, &NO_ERROR.to_be_bytes());
    }

    /// Sends all queued frames. Drops those that cannot be sent because the gateway has closed the connection.
    pub(crate) async fn send(&mut self) {
        let _ = within("sending frames", self.stream.write_all(&self.unsent)).await;
        self.unsent.clear();
    }

    /// Reads until the end of `stream`. Returns false if the connection ends first.
    pub(crate) async fn reads_to_end_of(&mut self, stream: u32) -> bool {
        while let Some((kind, flags, id)) = within("a frame", self.read()).await {
            if id == stream && matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return true;
            }
        }
        false
    }

    /// Reads until the connection ends.
    pub(crate) async fn wait_for_close(&mut self) {
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

/// Connects to `gateway` from `address`, which is a loopback address.
pub(crate) async fn connect(address: &str, gateway: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(address.parse().expect("an address"), 0)).expect("a loopback address");
    within("a connection", socket.connect(gateway)).await.expect("a connection")
}
