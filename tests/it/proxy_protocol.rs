//! The client's address behind a proxy: PROXY protocol headers, Unix sockets, and X-Forwarded-For with both.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::net::UnixStream;

use crate::support::certificates::Authority;
use crate::support::client::{Client, Request};
use crate::support::gateway::{Builder, Gateway};
use crate::support::upstream::Upstream;
use crate::support::{eventually, program, tls, within};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn proxied_gateway(upstream: &Upstream, lines: &str) -> Builder {
    Gateway::builder()
        .listener(&format!("address = \"127.0.0.1:0\"\nproxy_protocol = true\n{lines}"))
        .upstream("app", upstream)
        .route("/", "public", "")
}

/// Returns a header of version 2 with this command and family and these bytes of addresses.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
}

#[tokio::test]
async fn client_address_is_the_one_in_the_proxy_header() {
    let upstream = Upstream::start();
    let gateway =
        proxied_gateway(&upstream, "trusted_proxies = [\"127.0.0.1\", \"192.0.2.7\"]").start().await;
    let four = [192, 0, 2, 9, 127, 0, 0, 1, 0x12, 0x34, 0, 80];
    let mut six = [0; 36];
    six[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    let with_tlvs = [&four[..], &[0x02, 0, 3, b'a', b'b', b'c', 0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
    let from_proxy = b"PROXY TCP4 192.0.2.7 127.0.0.1 5 80\r\n".to_vec();

    for (header, sent, address, forwarded_for) in [
        (b"PROXY TCP4 192.0.2.9 127.0.0.1 56324 80\r\n".to_vec(), "", "192.0.2.9", "192.0.2.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n".to_vec(), "", "2001:db8::9", "2001:db8::9"),
        (b"PROXY TCP6 ::ffff:192.0.2.9 ::1 1 2\r\n".to_vec(), "", "192.0.2.9", "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "", "127.0.0.1", "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "", "127.0.0.1", "127.0.0.1"),
        (v2(1, 0x11, &four), "", "192.0.2.9", "192.0.2.9"),
        (v2(1, 0x21, &six), "", "2001:db8::", "2001:db8::"),
        (v2(1, 0x11, &with_tlvs), "", "192.0.2.9", "192.0.2.9"),
        (v2(0, 0x00, &[]), "", "127.0.0.1", "127.0.0.1"),
        (v2(0, 0x11, &four), "", "127.0.0.1", "127.0.0.1"),
        (v2(1, 0x31, &[0; 216]), "", "127.0.0.1", "127.0.0.1"),
        (v2(1, 0x00, &[]), "", "127.0.0.1", "127.0.0.1"),
        // X-Forwarded-For counts only if the header's address, or the peer's if it has none, is a trusted proxy's.
        (v2(1, 0x11, &four), "203.0.113.1", "192.0.2.9", "192.0.2.9"),
        (from_proxy, "203.0.113.1", "203.0.113.1", "203.0.113.1, 192.0.2.7"),
        (v2(0, 0x00, &[]), "203.0.113.1", "203.0.113.1", "203.0.113.1, 127.0.0.1"),
    ] {
        let mut client = Client::connect(gateway.address()).await;
        let mut request = Request::get("/");
        if !sent.is_empty() {
            request = request.header("X-Forwarded-For", sent);
        }
        // In two pieces, the second right before the request.
        let (one, other) = header.split_at(header.len() / 2);
        client.send(one).await;
        client.send(other).await;
        assert_eq!(client.request(&request).await.status, 200, "{}", header.escape_ascii());
        assert_eq!(
            upstream.last_request().header("x-forwarded-for"),
            Some(forwarded_for),
            "{}",
            header.escape_ascii()
        );
        let forwarded = upstream.last_request().header("forwarded").map(str::to_owned).unwrap();
        assert!(forwarded.contains("proto=http") && !forwarded.contains("https"), "{forwarded}");
        assert_eq!(
            client.request(&Request::get("/again")).await.status,
            200,
            "the header is sent once for each connection"
        );
        let id = upstream.last_request().header("x-request-id").unwrap().to_owned();
        let line = gateway.wait_for_event("line", |event| event["id"] == id.as_str()).await;
        if sent.is_empty() {
            assert_eq!(line["client"], address);
        }
    }
}

#[tokio::test]
async fn connection_without_a_valid_header_is_closed() {
    let upstream = Upstream::start();
    let gateway = proxied_gateway(&upstream, "trusted_proxies = [\"127.0.0.1\"]")
        .server("workers = 1\nheader_timeout = \"300ms\"");
    let gateway = gateway.start().await;
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    let headers: [&[u8]; 14] = [
        b"",
        b"PROXY ",
        b"PROXY TCP4 192.0.2.9 127.0.0.1 56324 80\n",
        b"PROXY TCP4 192.0.2.9 ::1 1 2\r\n",
        b"PROXY TCP4 192.0.2.999 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 192.0.2.9 127.0.0.1 99999 2\r\n",
        b"PROXY UDP4 192.0.2.9 127.0.0.1 1 2\r\n",
        b"PROXY UNKNOWN 0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
          00000000",
        SIGNATURE,
        &v2(2, 0x11, &[0; 12]),
        &v2(1, 0x99, &[0; 12]),
        &v2(1, 0x11, &[0; 11]),
        &v2(1, 0x31, &[0; 100]),
        &v2(1, 0x00, &[0; 60_000]),
    ];
    for header in headers {
        let mut client = Client::connect(gateway.address()).await;
        client.try_send(header).await;
        client.try_send(request).await;
        assert_eq!(client.read_to_end().await, b"", "{}", header.get(..40).unwrap_or(header).escape_ascii());
    }
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn proxy_header_of_an_untrusted_address_closes_the_connection() {
    let upstream = Upstream::start();
    let gateway = proxied_gateway(&upstream, "trusted_proxies = [\"192.0.2.0/24\"]").start().await;
    let mut client = Client::connect(gateway.address()).await;
    client.try_send(b"PROXY TCP4 192.0.2.9 127.0.0.1 1 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.read_to_end().await, b"");
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn proxy_header_precedes_the_tls_handshake() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let lines = "trusted_proxies = [\"127.0.0.1\"]\n\
                 tls.certificates = [{ cert = \"app.pem\", key = \"app.key\" }]";
    let gateway =
        proxied_gateway(&upstream, lines).certificate("app", &authority.server(&["app.test"])).start().await;
    let mut stream = tokio::net::TcpStream::connect(gateway.addresses("https")[0]).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"PROXY TCP4 192.0.2.9 127.0.0.1 1 443\r\n")
        .await
        .unwrap();
    let connector = tokio_rustls::TlsConnector::from(tls::client_config(&authority, None));
    let stream =
        within("a handshake", connector.connect("app.test".try_into().unwrap(), stream)).await.unwrap();
    assert_eq!(Client::over(stream).request(&Request::get("/")).await.status, 200);
    let received = upstream.only_request();
    assert_eq!(received.header("forwarded"), Some("for=192.0.2.9;host=\"gateway.test\";proto=https"));
}

/// Returns a port that is free at the moment, because HAProxy does not report one that the system chose.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn haproxy_connects_with_both_versions_over_tcp_and_unix_sockets() {
    let upstream = Upstream::start();
    let gateway = proxied_gateway(&upstream, "trusted_proxies = [\"127.0.0.1\"]")
        .listener(
            "address = \"unix:in.sock\"\nproxy_protocol = true\ntrusted_proxies = [\"unix:\"]\nmode = \"0600\"",
        )
        .start()
        .await;
    let Some(mut haproxy) = program::command("haproxy") else { return };
    let directory = gateway.directory();
    let ports = [(); 3].map(|()| free_port());
    let servers = [
        format!("{} send-proxy", gateway.address()),
        format!("{} send-proxy-v2", gateway.address()),
        format!("unix@{}/in.sock send-proxy-v2", directory.display()),
    ];
    let mut file =
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n".to_owned();
    for (port, server) in ports.iter().zip(servers) {
        file += &format!("listen p{port}\n bind 127.0.0.1:{port}\n server gateway {server}\n");
    }
    std::fs::write(directory.join("haproxy.cfg"), file).unwrap();
    let mut running = haproxy.arg("-db").arg("-f").arg(directory.join("haproxy.cfg")).spawn().unwrap();

    for port in ports {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        eventually("haproxy", async || tokio::net::TcpStream::connect(at).await.is_ok()).await;
        // From another loopback address than HAProxy's.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.77:0".parse().unwrap()).unwrap();
        let mut client = Client::over(socket.connect(at).await.unwrap());
        assert_eq!(client.request(&Request::get("/")).await.status, 200);
        assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("127.0.0.77"), "{port}");
    }
    running.kill().await.unwrap();
}

#[tokio::test]
async fn unix_socket_listener_serves_and_has_its_mode() {
    let upstream = Upstream::start();
    let builder = |lines: &str| {
        Gateway::builder()
            .server("workers = 2")
            .listener(&format!("address = \"unix:in.sock\"\n{lines}"))
            .upstream("app", &upstream)
            .route("/", "public", "")
    };
    let request =
        Request::get("/").header("X-Forwarded-For", "203.0.113.1").header("X-Forwarded-Proto", "https");
    let connect =
        async |path: &Path| Client::over(within("a connection", UnixStream::connect(path)).await.unwrap());

    let gateway = builder("").start().await;
    let socket = gateway.directory().join("in.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    assert_eq!(connect(&socket).await.request(&request).await.status, 200);
    assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("unknown"));
    assert_eq!(
        upstream.last_request().header("forwarded"),
        Some("for=unknown;host=\"gateway.test\";proto=http")
    );

    let trusting = builder("trusted_proxies = [\"unix:\"]\nmode = \"0600\"").start().await;
    let other = trusting.directory().join("in.sock");
    assert_eq!(std::fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(connect(&other).await.request(&request).await.status, 200);
    assert_eq!(upstream.last_request().header("x-forwarded-for"), Some("203.0.113.1, unknown"));
    assert_eq!(upstream.last_request().header("x-forwarded-proto"), Some("https"));
    let line = trusting.wait_for_event("line", |event| event["message"] == "request").await;
    assert_eq!(line["client"], "203.0.113.1");
    drop(trusting);

    let (status, log) = gateway.terminate().await;
    assert!(status.success(), "{log}");
    assert!(!log.contains("could not be removed"), "{log}");
}

#[tokio::test]
async fn stale_unix_socket_is_replaced_and_one_in_use_is_not() {
    let upstream = Upstream::start();
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("in.sock");
    let builder = || {
        Gateway::builder()
            .listener(&format!("address = \"unix:{}\"", socket.display()))
            .upstream("app", &upstream)
            .route("/", "public", "")
    };

    let killed = builder().start().await;
    let failure = builder().fail_to_start().await;
    assert!(failure.log.contains("in use"), "{}", failure.log);
    // A killed gateway leaves its socket.
    drop(killed);
    assert!(socket.exists());
    let gateway = builder().start().await;
    let stream = UnixStream::connect(&socket).await.unwrap();
    assert_eq!(Client::over(stream).request(&Request::get("/")).await.status, 200);
    gateway.terminate().await;
    assert!(!socket.exists(), "the socket was not removed at exit");

    std::fs::write(&socket, "precious").unwrap();
    let failure = builder().fail_to_start().await;
    assert!(failure.log.contains("the file exists and is not a socket"), "{}", failure.log);
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}
