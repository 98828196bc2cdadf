//! TLS listeners: certificates, client certificates, other protocols, reloads and redirects to HTTPS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::certificates::{Authority, Identity};
use crate::support::client::{Client, Request};
use crate::support::gateway::{Builder, Gateway, field};
use crate::support::upstream::Upstream;
use crate::support::{eventually, program, tls, within};

/// Returns a gateway whose listener has these lines in `[listeners.tls]`.
fn tls_gateway(upstream: &Upstream, lines: &str) -> Builder {
    Gateway::builder()
        .listener(&format!("address = \"127.0.0.1:0\"\n[listeners.tls]\n{lines}"))
        .upstream("app", upstream)
        .route("/", "public", "")
}

const APP: &str = "certificates = [{ cert = \"app.pem\", key = \"app.key\" }]";

fn address(gateway: &Gateway) -> std::net::SocketAddr {
    gateway.addresses("https")[0]
}

#[tokio::test]
async fn curl_is_served_over_both_versions_and_the_upstream_gets_the_scheme() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway =
        tls_gateway(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;
    authority.write(&gateway.directory().join("ca.pem"));
    let port = address(&gateway).port();

    for version in ["1.2", "1.3"] {
        let Some(mut curl) = program::command("curl") else { return };
        curl.current_dir(gateway.directory()).args(["-sS", "--cacert", "ca.pem", "--resolve"]);
        curl.arg(format!("app.test:{port}:127.0.0.1")).arg(format!("--tlsv{version}"));
        curl.args(["--tls-max", version]).arg(format!("https://app.test:{port}/x"));
        let (success, stdout, stderr) = program::run(&mut curl, "").await;
        assert_eq!((success, stdout.as_str()), (true, "ok"), "{version}: {stderr}");
    }
    let received = upstream.last_request();
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert!(received.header("forwarded").is_some_and(|forwarded| forwarded.ends_with("proto=https")));
}

#[tokio::test]
async fn certificate_is_chosen_by_server_name_and_the_first_is_the_default() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway = tls_gateway(
        &upstream,
        "certificates = [\n\
         { cert = \"app.pem\", key = \"app.key\" },\n\
         { cert = \"wild.pem\", key = \"wild.key\" },\n\
         { cert = \"exact.pem\", key = \"exact.key\" },\n]",
    )
    .certificate("app", &authority.server(&["app.test"]))
    .certificate("wild", &authority.server(&["*.app.test"]))
    .certificate("exact", &authority.server(&["x.app.test"]))
    .start()
    .await;

    for (name, subject) in [
        (Some("app.test"), "DNS:app.test"),
        (Some("a.app.test"), "DNS:*.app.test"),
        (Some("X.app.test"), "DNS:x.app.test"),
        (Some("a.b.app.test"), "DNS:app.test"),
        (Some("other.test"), "DNS:app.test"),
        (None, "DNS:app.test"),
    ] {
        let Some(mut openssl) = program::command("openssl") else { return };
        openssl.args(["s_client", "-connect", &address(&gateway).to_string()]);
        match name {
            Some(name) => openssl.args(["-servername", name]),
            None => openssl.arg("-noservername"),
        };
        let output = program::run(&mut openssl, "").await.1;
        let Some(mut x509) = program::command("openssl") else { return };
        x509.args(["x509", "-noout", "-ext", "subjectAltName"]);
        let names = program::run(&mut x509, &output).await.1;
        assert_eq!(names.lines().last().map(str::trim), Some(subject), "{name:?}");
    }
}

#[tokio::test]
async fn http2_is_negotiated_unless_it_is_off() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let identity = authority.server(&["app.test"]);
    for (listener, option, version) in
        [("", "--http2", "2"), ("", "--http1.1", "1.1"), ("http2 = false", "--http2", "1.1")]
    {
        let gateway = Gateway::builder()
            .listener(&format!("address = \"127.0.0.1:0\"\n{listener}\n[listeners.tls]\n{APP}"))
            .upstream("app", &upstream)
            .route("/", "public", "")
            .certificate("app", &identity)
            .start()
            .await;
        let Some(mut curl) = program::command("curl") else { return };
        curl.args(["-sSk", option, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]);
        let (_, stdout, stderr) = program::run(curl.arg(format!("https://{}/", address(&gateway))), "").await;
        assert_eq!(stdout, format!("{version} 200"), "{stderr}");
    }
}

#[tokio::test]
async fn version_below_min_version_is_rejected() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let lines = format!("min_version = \"1.3\"\n{APP}");
    let gateway =
        tls_gateway(&upstream, &lines).certificate("app", &authority.server(&["app.test"])).start().await;

    for (flag, is_served) in [("-tls1_2", false), ("-tls1_3", true)] {
        let Some(mut openssl) = program::command("openssl") else { return };
        openssl.args(["s_client", "-connect", &address(&gateway).to_string(), flag]);
        assert_eq!(program::run(&mut openssl, "").await.0, is_served, "{flag}");
    }
}

#[tokio::test]
async fn tls_sessions_are_resumed_in_both_versions() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway =
        tls_gateway(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;
    let client = tls::client_config(&authority, None);

    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = tls::handshake(address(&gateway), "app.test", &client).await.unwrap();
        let mut first = Client::over(stream);
        // The session tickets arrive before the response.
        assert_eq!(first.request(&Request::get("/")).await.status, 200);
        drop(first);
        let stream = tls::handshake(address(&gateway), "app.test", &client).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Resumed); 2]);

    let Some(mut openssl) = program::command("openssl") else { return };
    openssl.args(["s_client", "-connect", &address(&gateway).to_string(), "-tls1_2", "-reconnect"]);
    let (_, stdout, _) = program::run(&mut openssl, "").await;
    assert_eq!(stdout.matches("Reused, TLSv1.2").count(), 5, "{stdout}");
}

#[tokio::test]
async fn client_certificate_is_verified_and_required_unless_optional() {
    let (upstream, authority, other_authority) =
        (Upstream::start(), Authority::new("Test CA"), Authority::new("Other CA"));
    let (alice, mallory) = (authority.client("alice", &[]), other_authority.client("alice", &[]));
    for (auth, without) in
        [("", false), ("client_auth = \"required\"\n", false), ("client_auth = \"optional\"\n", true)]
    {
        let gateway = tls_gateway(&upstream, &format!("client_ca = \"clients.pem\"\n{auth}{APP}"))
            .certificate("app", &authority.server(&["app.test"]))
            .file("clients.pem", authority.pem())
            .start()
            .await;
        for (identity, expected) in [(Some(&alice), true), (Some(&mallory), false), (None, without)] {
            let client = tls::client_config(&authority, identity);
            // In TLS 1.3, the client's handshake succeeds before the server rejects its certificate.
            let served = match tls::handshake(address(&gateway), "app.test", &client).await {
                Ok(stream) => is_served(Client::over(stream)).await,
                Err(_) => false,
            };
            assert_eq!(served, expected, "{auth:?} {:?}", identity.map(|_| ()));
        }
    }
}

/// Returns whether a request on this connection gets a 200.
async fn is_served(mut client: Client) -> bool {
    client.send_request(&Request::get("/").header("Host", "app.test")).await;
    client.read_response().await.is_ok_and(|response| response.status == 200)
}

#[tokio::test]
async fn certificate_headers_have_the_verified_certificate_and_cannot_be_forged() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let headers = "[routes.headers]\nX-Subject = { tls = \"subject\" }\nX-Issuer = { tls = \"issuer\" }\n\
                   X-Serial = { tls = \"serial\" }\nX-Fingerprint = { tls = \"fingerprint\" }\n\
                   X-Names = { tls = \"san\" }";
    let gateway = Gateway::builder()
        .listener(&format!(
            "address = \"127.0.0.1:0\"\n[listeners.tls]\nclient_ca = \"clients.pem\"\nclient_auth = \"optional\"\n{APP}"
        ))
        .listener("address = \"127.0.0.1:0\"")
        .upstream("app", &upstream)
        .route("/", "public", headers)
        .route("/other", "public", "")
        .certificate("app", &authority.server(&["app.test"]))
        .file("clients.pem", authority.pem())
        .start()
        .await;
    let zoe = authority.client("Zoë 100%", &["zoe.test", "10.0.0.7", "::1"]);
    let forged = |path: &str| {
        let names = ["X-Subject", "X-Issuer", "x-serial", "X_Fingerprint", "X-Names"];
        names.into_iter().fold(Request::get(path), |request, name| request.header(name, "forged"))
    };

    let with_certificate = tls::client_config(&authority, Some(&zoe));
    let mut client = tls::connect(address(&gateway), "app.test", &with_certificate).await;
    assert_eq!(client.request(&forged("/")).await.status, 200);
    let received = upstream.last_request();
    assert_eq!(received.all("x-subject"), ["CN=Zo%C3%AB 100%25,O=Acme\\, Inc."]);
    assert_eq!(received.all("x-issuer"), ["CN=Test CA"]);
    assert_eq!(received.all("x-names"), ["DNS:zoe.test,IP:10.0.0.7,IP:::1"]);
    let (serial, fingerprint) =
        (received.header("x-serial").unwrap(), received.header("x-fingerprint").unwrap());
    if let Some(mut openssl) = program::command("openssl") {
        openssl.args(["x509", "-noout", "-serial", "-fingerprint", "-sha256"]);
        let (_, output, _) = program::run(&mut openssl, &zoe.certificate).await;
        assert!(output.contains(&format!("serial={serial}\n")), "{serial} {output}");
        assert!(output.replace(':', "").to_lowercase().contains(fingerprint), "{fingerprint} {output}");
    }
    // A resumed session has the certificate of the first handshake.
    drop(client);
    let stream = tls::handshake(address(&gateway), "app.test", &with_certificate).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(Client::over(stream).request(&forged("/")).await.status, 200);
    assert_eq!(upstream.last_request().all("x-subject").len(), 1);

    // Without a certificate, without TLS, or on a route without these headers, the client's are removed.
    let mut anonymous =
        tls::connect(address(&gateway), "app.test", &tls::client_config(&authority, None)).await;
    assert_eq!(anonymous.request(&forged("/")).await.status, 200);
    let without = [upstream.last_request()];
    assert_eq!(gateway.send(&forged("/")).await.status, 200);
    let plain = [upstream.last_request()];
    let mut client = tls::connect(address(&gateway), "app.test", &with_certificate).await;
    assert_eq!(client.request(&forged("/other")).await.status, 200);
    for received in without.iter().chain(&plain).chain([&upstream.last_request()]) {
        for name in ["x-subject", "x-issuer", "x-serial", "x_fingerprint", "x-fingerprint", "x-names"] {
            assert_eq!(received.header(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn request_for_a_host_with_other_client_certificate_rules_is_421() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway = tls_gateway(
        &upstream,
        "certificates = [\n\
         { cert = \"open.pem\", key = \"open.key\" },\n\
         { cert = \"also.pem\", key = \"also.key\" },\n\
         { cert = \"shut.pem\", key = \"shut.key\", client_ca = \"clients.pem\" },\n]",
    )
    .certificate("open", &authority.server(&["open.test"]))
    .certificate("also", &authority.server(&["also.test"]))
    .certificate("shut", &authority.server(&["shut.test", "*.shut.test"]))
    .file("clients.pem", authority.pem())
    .start()
    .await;
    let alice = tls::client_config(&authority, Some(&authority.client("alice", &[])));
    let anonymous = tls::client_config(&authority, None);

    for (client, name, host, status) in [
        (&anonymous, "open.test", "open.test", 200),
        (&anonymous, "open.test", "also.test:443", 200),
        (&anonymous, "open.test", "unknown.test", 200),
        (&anonymous, "open.test", "shut.test", 421),
        (&anonymous, "open.test", "SHUT.test.", 421),
        (&anonymous, "open.test", "x.shut.test:8443", 421),
        (&anonymous, "open.test", "x.y.shut.test", 421),
        (&alice, "shut.test", "shut.test", 200),
        (&alice, "shut.test", "x.shut.test", 200),
        (&alice, "shut.test", "open.test", 421),
        (&alice, "shut.test", "unknown.test", 421),
    ] {
        let mut client = tls::connect(address(&gateway), name, client).await;
        let response = client.request(&Request::get("/").header("Host", host)).await;
        assert_eq!(response.status, status, "{name} {host}");
        let next = client.request(&Request::get("/").header("Host", name)).await;
        assert_eq!(next.status, 200, "the connection was closed");
    }
    let mut refused = tls::connect(address(&gateway), "shut.test", &anonymous).await;
    assert!(refused.is_closed().await, "served without a certificate");
    // Without a server name, the first certificate's rules apply.
    let Some(mut curl) = program::command("curl") else { return };
    curl.args(["-sSk", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: shut.test"]);
    let (_, stdout, stderr) = program::run(curl.arg(format!("https://{}/", address(&gateway))), "").await;
    assert_eq!(stdout, "421", "{stderr}");
}

/// A client may use one HTTP/2 connection for all hosts that the server's certificate names (RFC 9113, section 9.1.1).
/// A 421 tells it to open another connection.
#[tokio::test]
async fn coalesced_http2_request_for_a_host_with_other_client_rules_is_421() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway = tls_gateway(
        &upstream,
        "certificates = [\n\
         { cert = \"open.pem\", key = \"open.key\" },\n\
         { cert = \"shut.pem\", key = \"shut.key\", client_ca = \"clients.pem\" },\n]",
    )
    .certificate("open", &authority.server(&["*.app.test"]))
    .certificate("shut", &authority.server(&["shut.app.test"]))
    .file("clients.pem", authority.pem())
    .start()
    .await;
    for (identity, name, host, status) in [
        (None, "open.app.test", "also.app.test", 200),
        (None, "open.app.test", "shut.app.test", 421),
        (None, "open.app.test", "shut.app.test:443", 421),
        (Some(authority.client("alice", &[])), "shut.app.test", "open.app.test", 421),
    ] {
        let mut config = (*tls::client_config(&authority, identity.as_ref())).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tls::handshake(address(&gateway), name, &Arc::new(config)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        for (host, status) in [(name, 200), (host, status), (name, 200)] {
            let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
            sender = within("a free stream", sender.ready()).await.unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let response = within("a response", response).await.unwrap();
            assert_eq!(response.status(), status, "{name} {host}");
        }
        connection.abort();
    }
    assert!(upstream.requests().iter().all(|request| request.header("host") != Some("shut.app.test:443")));
}

#[tokio::test]
async fn client_hello_in_records_of_one_byte_is_accepted() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway =
        tls_gateway(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;

    let client = tls::client_config(&authority, None);
    let name = "app.test".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(client, name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(address(&gateway)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // Each byte of the message is in a separate record, and each byte of the records is sent separately.
    for byte in &hello[5..] {
        for part in [hello[0], hello[1], hello[2], 0, 1, *byte] {
            stream.write_all(&[part]).await.unwrap();
        }
    }
    let mut response = [0; 6];
    within("a ServerHello", stream.read_exact(&mut response)).await.unwrap();
    assert_eq!(
        (response[0], response[5]),
        (0x16, 2),
        "not a handshake record with a ServerHello: {response:?}"
    );
}

#[tokio::test]
async fn other_protocol_at_a_tls_port_is_closed_and_plain_http_is_400() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let lines = format!("handshake_timeout = \"500ms\"\n{APP}");
    let gateway =
        tls_gateway(&upstream, &lines).certificate("app", &authority.server(&["app.test"])).start().await;

    let sslv2 = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec();
    let huge = [&b"\x16\x03\x01\xff\xff"[..], &[1; 70_000]].concat();
    let garbage = (0..=255).cycle().take(10_000).collect();
    let truncated = b"\x16\x03\x01\x02\x00\x01\x00".to_vec();
    for bytes in [sslv2, huge, garbage, truncated, Vec::new()] {
        let mut client = Client::connect(address(&gateway)).await;
        client.try_send(&bytes).await;
        let rest = client.read_to_end().await;
        // At most an alert. An incomplete first message times out.
        assert!(rest.len() <= 7, "{rest:?}");
    }
    let mut client = Client::connect(address(&gateway)).await;
    let response = client.request(&Request::get("/")).await;
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    assert!(client.is_closed().await);
    assert_eq!(upstream.request_count(), 0);

    let client = tls::client_config(&authority, None);
    let mut client = tls::connect(address(&gateway), "app.test", &client).await;
    assert_eq!(client.request(&Request::get("/")).await.status, 200, "the gateway no longer serves");
    let log = gateway.log();
    let (_, since) = log.split_once("\"ready\"").unwrap();
    assert!(
        !since.contains("ERROR") && !since.contains("WARN"),
        "invalid input was logged as a warning: {since}"
    );
}

#[tokio::test]
async fn connection_ends_with_close_notify() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway =
        tls_gateway(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;

    let client = tls::client_config(&authority, None);
    let mut stream = tls::handshake(address(&gateway), "app.test", &client).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut response = String::new();
    // rustls returns an error if the stream ends without close_notify.
    within("the end", stream.read_to_string(&mut response)).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

fn certificate(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn changed_certificates_are_reloaded_and_invalid_ones_are_rejected() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let [first, second, third] = [(); 3].map(|()| authority.server(&["app.test"]));
    let gateway = tls_gateway(&upstream, APP).certificate("app", &first).start().await;
    let at = address(&gateway);
    let new_client = || tls::client_config(&authority, None);
    let served = async || certificate(&tls::handshake(at, "app.test", &new_client()).await.unwrap());
    let mut open = tls::connect(at, "app.test", &new_client()).await;
    let before = served().await;

    second.write(gateway.directory(), "app");
    gateway.wait_for_line("certificates reloaded").await;
    let after = served().await;
    assert_ne!(after, before);
    assert_eq!(open.request(&Request::get("/")).await.status, 200, "an open connection was closed");

    // A key of another certificate, a file that is not PEM, and a missing file.
    for break_files in [
        (|directory: &Path, third: &Identity| fs::write(directory.join("app.key"), &third.key))
            as fn(&Path, &Identity) -> _,
        |directory, _| fs::write(directory.join("app.pem"), "no certificate"),
        |directory, _| fs::remove_file(directory.join("app.key")),
    ] {
        let failures =
            gateway.events("changed certificates are invalid; the previous ones stay in use").len();
        break_files(gateway.directory(), &third).unwrap();
        eventually("an error", async || {
            gateway.events("changed certificates are invalid; the previous ones stay in use").len() > failures
        })
        .await;
        assert_eq!(served().await, after, "an invalid certificate is served");
    }
    // As in Kubernetes: the files are symlinks into a directory that is a symlink, too, and is replaced.
    let directory = gateway.directory();
    fs::create_dir(directory.join("v3")).unwrap();
    third.write(&directory.join("v3"), "app");
    fs::remove_file(directory.join("app.pem")).unwrap();
    for file in ["app.pem", "app.key"] {
        std::os::unix::fs::symlink(format!("data/{file}"), directory.join(file)).unwrap();
    }
    std::os::unix::fs::symlink("v3", directory.join("data")).unwrap();
    eventually("the third certificate", async || ![&before, &after].contains(&&served().await)).await;
    let third = served().await;
    fs::create_dir(directory.join("v4")).unwrap();
    first.write(&directory.join("v4"), "app");
    std::os::unix::fs::symlink("v4", directory.join("next")).unwrap();
    fs::rename(directory.join("next"), directory.join("data")).unwrap();
    eventually("the first certificate", async || served().await == before).await;
    assert_ne!(third, before);
    assert!(!gateway.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn invalid_certificate_is_an_error_at_start_and_an_expired_one_a_warning() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let (one, other) = (authority.server(&["app.test"]), authority.server(&["app.test"]));
    let mixed = Identity { certificate: one.certificate.clone(), key: other.key };
    let failure = tls_gateway(&upstream, APP).certificate("app", &mixed).fail_to_start().await;
    assert_eq!(failure.status.code(), Some(2));
    assert!(failure.log.contains("`listeners.tls.certificates.key` does not match the certificate"));
    let failure = tls_gateway(&upstream, APP).file("app.pem", &one.certificate).fail_to_start().await;
    assert!(failure.log.contains("`listeners.tls.certificates.key` cannot be read from"), "{}", failure.log);
    // Clients may accept an expired certificate.
    let gateway = tls_gateway(&upstream, APP)
        .certificate("app", &authority.expired_server(&["app.test"]))
        .start()
        .await;
    gateway.wait_for_line("the certificate of `listeners.tls.certificates.cert` has expired").await;
}

#[tokio::test]
async fn redirect_to_https_redirects_plain_requests_and_hsts_is_sent_over_tls() {
    let (upstream, authority) = (Upstream::start(), Authority::new("Test CA"));
    let gateway = Gateway::builder()
        .listener("address = \"127.0.0.1:0\"\nredirect_to_https = true")
        .listener("address = \"127.0.0.1:0\"\nredirect_to_https = { port = 8443, status = 301 }")
        .listener(
            "address = \"127.0.0.1:0\"\nhsts = { max_age = \"365days\", include_subdomains = true }\n\
             tls.certificates = [{ cert = \"app.pem\", key = \"app.key\" }]",
        )
        .listener("address = \"127.0.0.1:0\"\nredirect_to_https = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .certificate("app", &authority.server(&["app.test"]))
        .upstream("app", &upstream)
        .route("/app", "public", "")
        .start()
        .await;
    let plain = gateway.addresses("http");

    for (host, location) in [
        ("app.test", "https://app.test/a%20b?c=d"),
        ("App.test.:8080", "https://app.test/a%20b?c=d"),
        ("[::1]:80", "https://[::1]/a%20b?c=d"),
    ] {
        let response = Request::new("POST", "/a%20b?c=d").header("Host", host).send(plain[0]).await;
        assert_eq!((response.status, response.header("location")), (308, Some(location)));
        assert_eq!(response.header("strict-transport-security"), None, "HSTS without TLS");
    }
    let response = Request::get("/x").header("Host", "app.test").send(plain[1]).await;
    assert_eq!((response.status, response.header("location")), (301, Some("https://app.test:8443/x")));
    let mut old = Client::connect(plain[0]).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.read_until("\r\n").await, "HTTP/1.0 400 Bad Request\r\n", "a redirect without a host");
    let forwarded = Request::get("/app").header("X-Forwarded-Proto", "https").send(plain[2]).await;
    assert_eq!(forwarded.status, 200, "a request over TLS to a trusted proxy was redirected");
    let before = upstream.request_count();

    let client = tls::client_config(&authority, None);
    let mut client = tls::connect(address(&gateway), "app.test", &client).await;
    for (path, status) in [("/app", 200), ("/nothing", 404), ("//", 400)] {
        let response = client.request(&Request::get(path)).await;
        assert_eq!(response.status, status);
        let hsts = response.header("strict-transport-security");
        assert_eq!(hsts, Some("max-age=31536000; includeSubDomains"), "{path}");
    }
    assert_eq!(upstream.request_count(), before + 1);
}

#[tokio::test]
async fn hsts_header_of_the_upstream_takes_precedence() {
    let authority = Authority::new("Test CA");
    let upstream = Upstream::responding(|_| {
        crate::support::scripted_response::ScriptedResponse::ok("ok")
            .header("Strict-Transport-Security", "max-age=1")
    });
    let gateway = Gateway::builder()
        .listener("address = \"127.0.0.1:0\"\nhsts = \"1day\"\n[listeners.tls]\ncertificates = [{ cert = \"app.pem\", key = \"app.key\" }]")
        .certificate("app", &authority.server(&["app.test"]))
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;
    let mut client = tls::connect(address(&gateway), "app.test", &tls::client_config(&authority, None)).await;
    let response = client.request(&Request::get("/")).await;
    assert_eq!(response.header("strict-transport-security"), Some("max-age=1"));
    assert_eq!(field(&gateway.events("listening")[0], "listener"), "https");
}
