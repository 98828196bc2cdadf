//! TLS, HTTP/2 and Unix sockets to nginx.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use socket2::{Domain, Socket, Type};

use super::gateway;
use crate::support::certificates::Authority;
use crate::support::client::Request;
use crate::support::gateway::{Builder, Gateway};
use crate::support::packages::skip;
use crate::support::program;
use crate::support::{DEADLINE, eventually};

/// A running nginx, which responds with `PROTOCOL HOST SNI CLIENT` and is killed when this value is dropped.
struct Nginx {
    process: Child,
    directory: tempfile::TempDir,
    /// Bound but not listening, so that no other process gets these ports.
    ports: Vec<(Socket, u16)>,
}

const TLS: usize = 0;
const TLS_HTTP1: usize = 1;
const H2C: usize = 2;

impl Nginx {
    /// If nginx is not installed, calls [`skip`] and returns `None`.
    fn start(authority: &Authority) -> Option<Self> {
        if let Err(error) = Command::new("nginx").arg("-v").stderr(Stdio::null()).status() {
            skip(&format!("cannot run nginx: {error}"));
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        authority.write(&path.join("ca.pem"));
        authority.server(&["app.internal", "localhost"]).write(path, "server");
        let ports: Vec<_> = (0..3).map(|_| port()).collect();
        let at = |index: usize| format!("127.0.0.1:{}", ports[index].1);
        let file = format!(
            "daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; log_format c '$server_protocol $status';\n\
             client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
             server {{\n\
             listen {} ssl http2 reuseport; listen {} ssl reuseport; listen {} http2 reuseport; listen unix:{}/s.sock;\n\
             ssl_certificate server.pem; ssl_certificate_key server.key;\n\
             ssl_client_certificate ca.pem; ssl_verify_client optional;\n\
             location = /healthz {{ root .; access_log checks.log c; try_files /healthy =503; }}\n\
             location / {{ return 200 \"$server_protocol $http_host $ssl_server_name $ssl_client_s_dn\"; }}\n\
             }} }}\n",
            at(TLS),
            at(TLS_HTTP1),
            at(H2C),
            path.display()
        );
        std::fs::write(path.join("nginx.conf"), file).expect("writes");
        let process = Command::new("nginx")
            .args(["-p", &path.display().to_string(), "-c", "nginx.conf", "-e", "error.log"])
            .spawn()
            .expect("starts");
        Some(Self { process, directory, ports })
    }

    fn url(&self, scheme: &str, index: usize) -> String {
        format!("{scheme}://127.0.0.1:{}", self.ports[index].1)
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Waits until nginx listens, and returns its response.
    async fn response(&self, gateway: &Gateway) -> String {
        let get = Request::get("/").header("Host", "shop.test");
        eventually("nginx", || async { gateway.send(&get).await.status == 200 }).await;
        gateway.send(&get).await.text()
    }

    fn tls(&self, lines: &str) -> String {
        format!("[upstreams.app.tls]\nca = \"{}/ca.pem\"\n{lines}", self.path().display())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_port(true).expect("is possible");
    socket.set_reuse_address(true).expect("is possible");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("binds");
    let port = socket.local_addr().expect("is bound").as_socket().expect("is an address").port();
    (socket, port)
}

fn long_timeout(servers: &[String], lines: &str) -> Builder {
    gateway(servers, &format!("connect_timeout = \"{}s\"\n{lines}", DEADLINE.as_secs()))
}

#[tokio::test]
async fn each_kind_of_server_gets_its_protocol_and_tls_settings() {
    let authority = Authority::new("Internal");
    let Some(nginx) = Nginx::start(&authority) else { return };
    let client = authority.client("gateway", &[]).write(nginx.path(), "client");
    let with_name = nginx.tls("server_name = \"app.internal\"");
    let with_certificate = format!(
        "{with_name}\ncert = \"{}\"\nkey = \"{}\"",
        client.certificate.display(),
        client.key.display()
    );
    let unix = format!("unix:{}/s.sock", nginx.path().display());
    for (server, lines, expected) in [
        (nginx.url("h2c", H2C), String::new(), "HTTP/2.0 shop.test  "),
        (unix, String::new(), "HTTP/1.1 shop.test  "),
        (nginx.url("https", TLS), with_name.clone(), "HTTP/2.0 shop.test app.internal "),
        (
            nginx.url("https", TLS),
            format!("protocol = \"http1\"\n{with_name}"),
            "HTTP/1.1 shop.test app.internal ",
        ),
        (nginx.url("https", TLS_HTTP1), with_name.clone(), "HTTP/1.1 shop.test app.internal "),
        (
            nginx.url("https", TLS),
            with_certificate,
            "HTTP/2.0 shop.test app.internal CN=gateway,O=Acme\\, Inc.",
        ),
        (format!("https://localhost:{}", nginx.ports[TLS].1), nginx.tls(""), "HTTP/2.0 shop.test localhost "),
    ] {
        let gateway = long_timeout(std::slice::from_ref(&server), &lines).start().await;
        assert_eq!(nginx.response(&gateway).await, expected, "{server} {lines}");
    }
}

#[tokio::test]
async fn server_certificate_of_another_issuer_or_name_is_502_and_the_client_is_not_told_why() {
    let authority = Authority::new("Internal");
    let Some(nginx) = Nginx::start(&authority) else { return };
    let server = nginx.url("https", TLS);
    let trusted = long_timeout(std::slice::from_ref(&server), &nginx.tls("server_name = \"app.internal\""))
        .start()
        .await;
    nginx.response(&trusted).await;
    let other = nginx.path().join("other.pem");
    Authority::new("Other").write(&other);
    let untrusted =
        format!("[upstreams.app.tls]\nca = \"{}\"\nserver_name = \"app.internal\"", other.display());
    for (lines, reason) in [
        (untrusted, "invalid peer certificate: UnknownIssuer"),
        (
            nginx.tls("server_name = \"other.internal\""),
            "invalid peer certificate: certificate not valid for name",
        ),
    ] {
        let gateway = long_timeout(std::slice::from_ref(&server), &lines).start().await;
        let refused = gateway.send(&Request::get("/")).await;
        assert_eq!(refused.status, 502);
        assert!(
            !refused.text().contains("certificate"),
            "the response names the certificate: {}",
            refused.text()
        );
        gateway.wait_for_line(reason).await;
    }
}

#[tokio::test]
async fn health_checks_use_the_protocol_of_requests() {
    let authority = Authority::new("Internal");
    let Some(nginx) = Nginx::start(&authority) else { return };
    let unix = format!("unix:{}/s.sock", nginx.path().display());
    let with_name = nginx.tls("server_name = \"app.internal\"");
    let healthy = nginx.path().join("healthy");
    let health = "health = { path = \"/healthz\", interval = \"500ms\", healthy = 1, unhealthy = 1 }";
    for (server, lines, protocol) in [
        (nginx.url("h2c", H2C), "", "HTTP/2.0"),
        (nginx.url("https", TLS), with_name.as_str(), "HTTP/2.0"),
        (nginx.url("https", TLS_HTTP1), with_name.as_str(), "HTTP/1.1"),
        (unix, "", "HTTP/1.1"),
    ] {
        std::fs::write(&healthy, "yes").expect("writes");
        let gateway =
            long_timeout(std::slice::from_ref(&server), &format!("{health}\n{lines}")).start().await;
        nginx.response(&gateway).await;
        std::fs::remove_file(&healthy).expect("is there");
        let get = Request::get("/").header("Host", "shop.test");
        eventually("503 of the unhealthy server", || async { gateway.send(&get).await.status == 503 }).await;
        std::fs::write(&healthy, "yes").expect("writes");
        nginx.response(&gateway).await;
        let log = std::fs::read_to_string(nginx.path().join("checks.log")).expect("is there");
        let lines: Vec<_> = log.lines().rev().take(2).collect();
        assert_eq!(lines, [format!("{protocol} 200"), format!("{protocol} 503")], "{server}");
    }
}

#[tokio::test]
async fn check_connect_tests_each_kind_of_server() {
    let authority = Authority::new("Internal");
    let Some(nginx) = Nginx::start(&authority) else { return };
    let unix = format!("unix:{}/s.sock", nginx.path().display());
    let missing = format!("unix:{}/missing.sock", nginx.path().display());
    let (with_name, wrong) =
        (nginx.tls("server_name = \"app.internal\""), nginx.tls("server_name = \"other.internal\""));
    // Wait until nginx listens.
    nginx.response(&long_timeout(std::slice::from_ref(&unix), "").start().await).await;
    for (server, lines, is_good, expected) in [
        (nginx.url("https", TLS), &with_name, true, "accepts connections, over TLS, and speaks HTTP/2"),
        (
            nginx.url("https", TLS_HTTP1),
            &with_name,
            true,
            "accepts connections, over TLS, and speaks HTTP/1.1",
        ),
        (nginx.url("https", TLS), &wrong, false, "certificate not valid for name"),
        (nginx.url("https", H2C), &with_name, false, "cannot connect to"),
        (nginx.url("h2c", H2C), &String::new(), true, "accepts connections"),
        (unix, &String::new(), true, "s.sock accepts connections"),
        (missing, &String::new(), false, "missing.sock"),
    ] {
        let file = nginx.path().join("gateway.toml");
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[store.embedded]\n[[routes]]\npath = \"/\"\n\
             access = \"public\"\nupstream = \"app\"\n[upstreams.app]\nservers = [\"{server}\"]\n{lines}"
        );
        std::fs::write(&file, text).expect("writes");
        let mut check = tokio::process::Command::new(env!("CARGO_BIN_EXE_sessiongate"));
        check.args(["check", "--connect", "--config"]).arg(&file);
        let (succeeded, _, stderr) = program::run(&mut check, "").await;
        assert_eq!(succeeded, is_good, "{server}: {stderr}");
        assert!(stderr.contains(expected), "{server}: {stderr}");
    }
}
