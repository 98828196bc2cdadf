//! TLS in front: which certificate a client sees, what is asked of it, and what becomes of those who speak something else.

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

/// A gateway whose first listener has these lines below `[listeners.tls]`.
fn secured(upstream: &Upstream, lines: &str) -> Builder {
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
async fn curl_visits_over_both_versions_and_the_upstream_is_told() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;
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
async fn the_certificate_is_the_one_of_the_name_and_else_the_first() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(
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
        let shown = program::run(&mut openssl, "").await.1;
        let Some(mut x509) = program::command("openssl") else { return };
        x509.args(["x509", "-noout", "-ext", "subjectAltName"]);
        let names = program::run(&mut x509, &shown).await.1;
        assert_eq!(names.lines().last().map(str::trim), Some(subject), "{name:?}");
    }
}

#[tokio::test]
async fn http2_is_negotiated_where_it_is_served() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let identity = authority.server(&["app.test"]);
    for (listener, curl_asks, spoken) in
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
        curl.args(["-sSk", curl_asks, "-o", "/dev/null", "-w", "%{http_version} %{http_code}"]);
        let (_, stdout, stderr) = program::run(curl.arg(format!("https://{}/", address(&gateway))), "").await;
        assert_eq!(stdout, format!("{spoken} 200"), "{stderr}");
    }
}

#[tokio::test]
async fn versions_below_the_least_are_refused() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let lines = format!("min_version = \"1.3\"\n{APP}");
    let gateway =
        secured(&upstream, &lines).certificate("app", &authority.server(&["app.test"])).start().await;

    for (flag, is_served) in [("-tls1_2", false), ("-tls1_3", true)] {
        let Some(mut openssl) = program::command("openssl") else { return };
        openssl.args(["s_client", "-connect", &address(&gateway).to_string(), flag]);
        assert_eq!(program::run(&mut openssl, "").await.0, is_served, "{flag}");
    }
}

#[tokio::test]
async fn sessions_are_resumed_by_both_versions() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;
    let client = tls::client_config(&authority, None);

    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = tls::handshake(address(&gateway), "app.test", &client).await.unwrap();
        let mut asking = Client::over(stream);
        // Tickets come with the answer.
        assert_eq!(asking.request(&Request::get("/")).await.status, 200);
        drop(asking);
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
async fn clients_show_certificates_that_hold() {
    let (upstream, ours, theirs) = (Upstream::start(), Authority::new("ours"), Authority::new("theirs"));
    let (alice, mallory) = (ours.client("alice", &[]), theirs.client("alice", &[]));
    for (auth, without) in
        [("", false), ("client_auth = \"required\"\n", false), ("client_auth = \"optional\"\n", true)]
    {
        let gateway = secured(&upstream, &format!("client_ca = \"clients.pem\"\n{auth}{APP}"))
            .certificate("app", &ours.server(&["app.test"]))
            .file("clients.pem", ours.pem())
            .start()
            .await;
        for (identity, is_served) in [(Some(&alice), true), (Some(&mallory), false), (None, without)] {
            let client = tls::client_config(&ours, identity);
            // Of TLS 1.3, a client is turned away after its own half of the handshake.
            let is_answered = match tls::handshake(address(&gateway), "app.test", &client).await {
                Ok(stream) => answers(Client::over(stream)).await,
                Err(_) => false,
            };
            assert_eq!(is_answered, is_served, "{auth:?} {:?}", identity.map(|_| ()));
        }
    }
}

/// Whether a request on this connection is answered 200.
async fn answers(mut client: Client) -> bool {
    client.send_request(&Request::get("/").header("Host", "app.test")).await;
    client.read_response().await.is_ok_and(|answer| answer.status == 200)
}

#[tokio::test]
async fn what_a_certificate_says_reaches_the_upstream_and_nothing_else_does() {
    let (upstream, ours) = (Upstream::start(), Authority::new("ours"));
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
        .certificate("app", &ours.server(&["app.test"]))
        .file("clients.pem", ours.pem())
        .start()
        .await;
    let zoe = ours.client("Zoë 100%", &["zoe.test", "10.0.0.7", "::1"]);
    let lies = |path: &str| {
        let names = ["X-Subject", "X-Issuer", "x-serial", "X_Fingerprint", "X-Names"];
        names.into_iter().fold(Request::get(path), |request, name| request.header(name, "a lie"))
    };

    let with = tls::client_config(&ours, Some(&zoe));
    let mut client = tls::connect(address(&gateway), "app.test", &with).await;
    assert_eq!(client.request(&lies("/")).await.status, 200);
    let told = upstream.last_request();
    assert_eq!(told.all("x-subject"), ["CN=Zo%C3%AB 100%25,O=Acme\\, Inc."]);
    assert_eq!(told.all("x-issuer"), ["CN=ours"]);
    assert_eq!(told.all("x-names"), ["DNS:zoe.test,IP:10.0.0.7,IP:::1"]);
    let (serial, fingerprint) = (told.header("x-serial").unwrap(), told.header("x-fingerprint").unwrap());
    if let Some(mut openssl) = program::command("openssl") {
        openssl.args(["x509", "-noout", "-serial", "-fingerprint", "-sha256"]);
        let (_, said, _) = program::run(&mut openssl, &zoe.certificate).await;
        assert!(said.contains(&format!("serial={serial}\n")), "{serial} {said}");
        assert!(said.replace(':', "").to_lowercase().contains(fingerprint), "{fingerprint} {said}");
    }
    // On a resumed session the certificate is the one of the first.
    drop(client);
    let stream = tls::handshake(address(&gateway), "app.test", &with).await.unwrap();
    assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(Client::over(stream).request(&lies("/")).await.status, 200);
    assert_eq!(upstream.last_request().all("x-subject").len(), 1);

    // Without a certificate, without TLS, or on a route that does not ask: none, whatever the client says.
    let mut nobody = tls::connect(address(&gateway), "app.test", &tls::client_config(&ours, None)).await;
    assert_eq!(nobody.request(&lies("/")).await.status, 200);
    let without = [upstream.last_request()];
    assert_eq!(gateway.send(&lies("/")).await.status, 200);
    let plain = [upstream.last_request()];
    let mut client = tls::connect(address(&gateway), "app.test", &with).await;
    assert_eq!(client.request(&lies("/other")).await.status, 200);
    for received in without.iter().chain(&plain).chain([&upstream.last_request()]) {
        for name in ["x-subject", "x-issuer", "x-serial", "x_fingerprint", "x-fingerprint", "x-names"] {
            assert_eq!(received.header(name), None, "{name}");
        }
    }
}

#[tokio::test]
async fn a_request_for_a_host_with_another_rule_for_clients_is_misdirected() {
    let (upstream, ours) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(
        &upstream,
        "certificates = [\n\
         { cert = \"open.pem\", key = \"open.key\" },\n\
         { cert = \"also.pem\", key = \"also.key\" },\n\
         { cert = \"shut.pem\", key = \"shut.key\", client_ca = \"clients.pem\" },\n]",
    )
    .certificate("open", &ours.server(&["open.test"]))
    .certificate("also", &ours.server(&["also.test"]))
    .certificate("shut", &ours.server(&["shut.test", "*.shut.test"]))
    .file("clients.pem", ours.pem())
    .start()
    .await;
    let alice = tls::client_config(&ours, Some(&ours.client("alice", &[])));
    let nobody = tls::client_config(&ours, None);

    for (client, name, host, status) in [
        (&nobody, "open.test", "open.test", 200),
        (&nobody, "open.test", "also.test:443", 200),
        (&nobody, "open.test", "unheard.test", 200),
        (&nobody, "open.test", "shut.test", 421),
        (&nobody, "open.test", "SHUT.test.", 421),
        (&nobody, "open.test", "x.shut.test:8443", 421),
        (&alice, "shut.test", "shut.test", 200),
        (&alice, "shut.test", "x.shut.test", 200),
        (&alice, "shut.test", "open.test", 421),
        (&alice, "shut.test", "unheard.test", 421),
    ] {
        let mut client = tls::connect(address(&gateway), name, client).await;
        let answer = client.request(&Request::get("/").header("Host", host)).await;
        assert_eq!(answer.status, status, "{name} {host}");
        let again = client.request(&Request::get("/").header("Host", name)).await;
        assert_eq!(again.status, 200, "the connection is as good as before");
    }
    let mut refused = tls::connect(address(&gateway), "shut.test", &nobody).await;
    assert!(refused.is_closed().await, "no certificate, no entry");
    // Who names no host at all has come under the first certificate's rule.
    let Some(mut curl) = program::command("curl") else { return };
    curl.args(["-sSk", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Host: shut.test"]);
    let (_, stdout, stderr) = program::run(curl.arg(format!("https://{}/", address(&gateway))), "").await;
    assert_eq!(stdout, "421", "{stderr}");
}

/// A client may take one HTTP/2 connection for all hosts that its certificate names (RFC 9113, 9.1.1); where they have
/// other rules it is sent to make another, and the one that it has goes on.
#[tokio::test]
async fn hosts_that_share_a_connection_share_its_rule_for_clients() {
    let (upstream, ours) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(
        &upstream,
        "certificates = [\n\
         { cert = \"open.pem\", key = \"open.key\" },\n\
         { cert = \"shut.pem\", key = \"shut.key\", client_ca = \"clients.pem\" },\n]",
    )
    .certificate("open", &ours.server(&["*.app.test"]))
    .certificate("shut", &ours.server(&["shut.app.test"]))
    .file("clients.pem", ours.pem())
    .start()
    .await;
    for (identity, name, host, status) in [
        (None, "open.app.test", "also.app.test", 200),
        (None, "open.app.test", "shut.app.test", 421),
        (None, "open.app.test", "shut.app.test:443", 421),
        (Some(ours.client("alice", &[])), "shut.app.test", "open.app.test", 421),
    ] {
        let mut config = (*tls::client_config(&ours, identity.as_ref())).clone();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = tls::handshake(address(&gateway), name, &Arc::new(config)).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        for (host, status) in [(name, 200), (host, status), (name, 200)] {
            let request = http::Request::get(format!("https://{host}/")).body(()).unwrap();
            sender = within("room for a stream", sender.ready()).await.unwrap();
            let (answer, _) = sender.send_request(request, true).unwrap();
            let answer = within("an answer", answer).await.unwrap();
            assert_eq!(answer.status(), status, "{name} {host}");
        }
        connection.abort();
    }
    assert!(upstream.requests().iter().all(|request| request.header("host") != Some("shut.app.test:443")));
}

#[tokio::test]
async fn a_client_hello_in_records_of_one_byte_is_understood() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;

    let client = tls::client_config(&authority, None);
    let name = "app.test".try_into().unwrap();
    let mut session = rustls::ClientConnection::new(client, name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    let mut stream = TcpStream::connect(address(&gateway)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // Each byte of the message in a record of its own, and each byte of the records on its own.
    for byte in &hello[5..] {
        for part in [hello[0], hello[1], hello[2], 0, 1, *byte] {
            stream.write_all(&[part]).await.unwrap();
        }
    }
    let mut answer = [0; 6];
    within("a ServerHello", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!((answer[0], answer[5]), (0x16, 2), "a handshake record with a ServerHello: {answer:?}");
}

#[tokio::test]
async fn what_is_not_tls_is_closed_and_plain_http_is_told() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let lines = format!("handshake_timeout = \"500ms\"\n{APP}");
    let gateway =
        secured(&upstream, &lines).certificate("app", &authority.server(&["app.test"])).start().await;

    let sslv2 = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec();
    let huge = [&b"\x16\x03\x01\xff\xff"[..], &[1; 70_000]].concat();
    let garbage = (0..=255).cycle().take(10_000).collect();
    let cut = b"\x16\x03\x01\x02\x00\x01\x00".to_vec();
    for bytes in [sslv2, huge, garbage, cut, Vec::new()] {
        let mut client = Client::connect(address(&gateway)).await;
        client.try_send(&bytes).await;
        let rest = client.read_to_end().await;
        // At most an alert; what never ends its first message runs out of time.
        assert!(rest.len() <= 7, "{rest:?}");
    }
    let mut client = Client::connect(address(&gateway)).await;
    let answer = client.request(&Request::get("/")).await;
    assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
    assert!(client.is_closed().await);
    assert_eq!(upstream.request_count(), 0);

    let client = tls::client_config(&authority, None);
    let mut client = tls::connect(address(&gateway), "app.test", &client).await;
    assert_eq!(client.request(&Request::get("/")).await.status, 200, "and the gateway is well");
    let log = gateway.log();
    let (_, since) = log.split_once("\"ready\"").unwrap();
    assert!(!since.contains("ERROR") && !since.contains("WARN"), "who is hostile makes no noise: {since}");
}

#[tokio::test]
async fn the_end_of_a_connection_is_said() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let gateway = secured(&upstream, APP).certificate("app", &authority.server(&["app.test"])).start().await;

    let client = tls::client_config(&authority, None);
    let mut stream = tls::handshake(address(&gateway), "app.test", &client).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // rustls tells a stream that ends with close_notify from one that is cut.
    within("the end", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

fn serial(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn certificates_that_change_are_taken_and_bad_ones_are_not() {
    let (upstream, authority) = (Upstream::start(), Authority::new("ours"));
    let [first, second, third] = [(); 3].map(|()| authority.server(&["app.test"]));
    let gateway = secured(&upstream, APP).certificate("app", &first).start().await;
    let at = address(&gateway);
    let fresh = || tls::client_config(&authority, None);
    let shown = async || serial(&tls::handshake(at, "app.test", &fresh()).await.unwrap());
    let mut kept = tls::connect(at, "app.test", &fresh()).await;
    let before = shown().await;

    second.write(gateway.directory(), "app");
    gateway.wait_for_line("certificates reloaded").await;
    let after = shown().await;
    assert_ne!(after, before);
    assert_eq!(kept.request(&Request::get("/")).await.status, 200, "a connection stays");

    // A key that is another certificate's, a file that is no PEM, and one that is gone.
    for spoil in [
        (|directory: &Path, third: &Identity| fs::write(directory.join("app.key"), &third.key))
            as fn(&Path, &Identity) -> _,
        |directory, _| fs::write(directory.join("app.pem"), "no certificate"),
        |directory, _| fs::remove_file(directory.join("app.key")),
    ] {
        let failures =
            gateway.events("changed certificates are invalid; the previous ones stay in use").len();
        spoil(gateway.directory(), &third).unwrap();
        eventually("an alarm", async || {
            gateway.events("changed certificates are invalid; the previous ones stay in use").len() > failures
        })
        .await;
        assert_eq!(shown().await, after, "the one before stays");
    }
    // As Kubernetes does it: the files are links into a directory that is itself exchanged.
    let directory = gateway.directory();
    fs::create_dir(directory.join("v3")).unwrap();
    third.write(&directory.join("v3"), "app");
    fs::remove_file(directory.join("app.pem")).unwrap();
    for file in ["app.pem", "app.key"] {
        std::os::unix::fs::symlink(format!("data/{file}"), directory.join(file)).unwrap();
    }
    std::os::unix::fs::symlink("v3", directory.join("data")).unwrap();
    eventually("the third", async || ![&before, &after].contains(&&shown().await)).await;
    let third = shown().await;
    fs::create_dir(directory.join("v4")).unwrap();
    first.write(&directory.join("v4"), "app");
    std::os::unix::fs::symlink("v4", directory.join("next")).unwrap();
    fs::rename(directory.join("next"), directory.join("data")).unwrap();
    eventually("the first again", async || shown().await == before).await;
    assert_ne!(third, before);
    assert!(!gateway.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn what_would_not_serve_does_not_start() {
    let (upstream, ours) = (Upstream::start(), Authority::new("ours"));
    let (one, other) = (ours.server(&["app.test"]), ours.server(&["app.test"]));
    let mixed = Identity { certificate: one.certificate.clone(), key: other.key };
    let failure = secured(&upstream, APP).certificate("app", &mixed).fail_to_start().await;
    assert_eq!(failure.status.code(), Some(2));
    assert!(failure.log.contains("`listeners.tls.certificates.key` does not match the certificate"));
    let failure = secured(&upstream, APP).file("app.pem", &one.certificate).fail_to_start().await;
    assert!(failure.log.contains("`listeners.tls.certificates.key` cannot be read from"), "{}", failure.log);
    // An expired certificate is better than none: clients may look away.
    let gateway =
        secured(&upstream, APP).certificate("app", &ours.expired_server(&["app.test"])).start().await;
    gateway.wait_for_line("the certificate of `listeners.tls.certificates.cert` has expired").await;
}

#[tokio::test]
async fn plain_listeners_send_browsers_to_https() {
    let (upstream, ours) = (Upstream::start(), Authority::new("ours"));
    let gateway = Gateway::builder()
        .listener("address = \"127.0.0.1:0\"\nredirect_to_https = true")
        .listener("address = \"127.0.0.1:0\"\nredirect_to_https = { port = 8443, status = 301 }")
        .listener(
            "address = \"127.0.0.1:0\"\nhsts = { max_age = \"365days\", include_subdomains = true }\n\
             tls.certificates = [{ cert = \"app.pem\", key = \"app.key\" }]",
        )
        .listener("address = \"127.0.0.1:0\"\nredirect_to_https = true\ntrusted_proxies = [\"127.0.0.1\"]")
        .certificate("app", &ours.server(&["app.test"]))
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
        let answer = Request::new("POST", "/a%20b?c=d").header("Host", host).send(plain[0]).await;
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)));
        assert_eq!(answer.header("strict-transport-security"), None, "it means nothing without TLS");
    }
    let answer = Request::get("/x").header("Host", "app.test").send(plain[1]).await;
    assert_eq!((answer.status, answer.header("location")), (301, Some("https://app.test:8443/x")));
    let mut old = Client::connect(plain[0]).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        old.read_until("\r\n").await,
        "HTTP/1.0 400 Bad Request\r\n",
        "there is no host to send it to"
    );
    let told = Request::get("/app").header("X-Forwarded-Proto", "https").send(plain[2]).await;
    assert_eq!(told.status, 200, "who came over TLS to a trusted proxy is not sent round in circles");
    let hits = upstream.request_count();

    let client = tls::client_config(&ours, None);
    let mut client = tls::connect(address(&gateway), "app.test", &client).await;
    for (path, status) in [("/app", 200), ("/nothing", 404), ("//", 400)] {
        let answer = client.request(&Request::get(path)).await;
        assert_eq!(answer.status, status);
        let hsts = answer.header("strict-transport-security");
        assert_eq!(hsts, Some("max-age=31536000; includeSubDomains"), "{path}");
    }
    assert_eq!(upstream.request_count(), hits + 1);
}

#[tokio::test]
async fn an_upstream_that_speaks_of_hsts_itself_knows_better() {
    let ours = Authority::new("ours");
    let upstream = Upstream::responding(|_| {
        crate::support::scripted_response::ScriptedResponse::ok("ok")
            .header("Strict-Transport-Security", "max-age=1")
    });
    let gateway = Gateway::builder()
        .listener("address = \"127.0.0.1:0\"\nhsts = \"1day\"\n[listeners.tls]\ncertificates = [{ cert = \"app.pem\", key = \"app.key\" }]")
        .certificate("app", &ours.server(&["app.test"]))
        .upstream("app", &upstream)
        .route("/", "public", "")
        .start()
        .await;
    let mut client = tls::connect(address(&gateway), "app.test", &tls::client_config(&ours, None)).await;
    let answer = client.request(&Request::get("/")).await;
    assert_eq!(answer.header("strict-transport-security"), Some("max-age=1"));
    assert_eq!(field(&gateway.events("listening")[0], "listener"), "https");
}
