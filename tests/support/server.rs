//! A small HTTP/1.1 server in the test's process: it passes each received request to a handler and writes exactly the
//! scripted response. It can stop listening and listen on the same port again.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use socket2::{Domain, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::http1::{Framing, Message, Reader};
use super::scripted_response::ScriptedResponse;
use super::within;

/// A running server, which stops when this value is dropped.
pub(crate) struct Server {
    address: SocketAddr,
    handler: Arc<Handler>,
    connections: Arc<AtomicUsize>,
    running: Option<Running>,
    /// Bound to the port but never listening: while the server is stopped, connections are refused and no other process gets
    /// the port.
    _reservation: Socket,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) message: Message,
    /// The number of its connection, counted from 0.
    pub(crate) connection: usize,
}

type Handler = dyn Fn(ReceivedRequest) -> BoxFuture<'static, ScriptedResponse> + Send + Sync;

struct Running {
    stop: oneshot::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts a server on a free port of the loopback interface.
    pub(crate) fn start(
        handler: impl Fn(ReceivedRequest) -> BoxFuture<'static, ScriptedResponse> + Send + Sync + 'static,
    ) -> Self {
        let reservation = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("binds");
        let address = reservation.local_addr().expect("is bound").as_socket().expect("is an address");
        let mut server = Self {
            address,
            handler: Arc::new(handler),
            connections: Arc::default(),
            running: None,
            _reservation: reservation,
        };
        server.resume();
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the number of connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Closes every connection and refuses new ones.
    pub(crate) async fn stop(&mut self) {
        let running = self.running.take().expect("is running");
        running.stop.send(()).expect("the accept loop waits for this");
        within("stopping a server", running.accepting).await.expect("stops");
    }

    /// Listens on the same port again.
    pub(crate) fn resume(&mut self) {
        assert!(self.running.is_none(), "is running");
        let socket = bind(self.address).expect("binds");
        socket.listen(1024).expect("listens");
        let listener = TcpListener::from_std(socket.into()).expect("is a listener");
        let (stop, stopped) = oneshot::channel();
        let accepting =
            tokio::spawn(accept(listener, self.handler.clone(), self.connections.clone(), stopped));
        self.running = Some(Running { stop, accepting });
    }
}

impl ReceivedRequest {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.message.header(name)
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.message.all(name)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    // Connections of the previous listener stay in TIME_WAIT for a while.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    handler: Arc<Handler>,
    count: Arc<AtomicUsize>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // Also if the server was dropped.
            _ = &mut stop => break,
        };
        let Ok((stream, _)) = accepted else { break };
        let number = count.fetch_add(1, Ordering::Relaxed);
        // Some tests break connections on purpose. They check what the client received.
        connections.spawn(connection(stream, number, handler.clone()));
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, connection: usize, handler: Arc<Handler>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    while let Some(mut message) = reader.read_head().await? {
        if message.header("expect").is_some() {
            reader.stream().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let framing = message.framing().unwrap_or(Framing::Length(0));
        reader.read_body(&mut message, framing).await?;
        let mut words = message.start.split(' ').map(str::to_owned);
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let head_only = method == "HEAD";
        let response = handler(ReceivedRequest { method, target, message, connection }).await;
        let response = if head_only { response.without_body() } else { response };
        match response.write(reader).await? {
            Some(next) => reader = next,
            None => return Ok(()),
        }
    }
    Ok(())
}
