//! `sessiongate demo`: a store, an app and the gateway in one process, a user with a session, and a line on stdout for
//! each request. Only the app is special to the demo: the gateway is the same as in `serve`, and its configuration is
//! written to a file for the commands in another terminal.

mod alice;
mod event_printer;
mod welcome;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::config::environment::System;
use crate::config::{self, Config};
use crate::demo::{App, HeaderOrigins, LoginLink};
use crate::server::{Inherited, ListenError, Server, StartError};
use crate::store::Store;
use crate::telemetry::Telemetry;

use super::args::Demo;
use super::context::{self, RealmContext};
use super::failure::{CommandResult, Failure};
use super::serve::{self, StopSignals};

use alice::{Alice, LinkSession};
use event_printer::{DemoEvent, EventPrinter, LogParser};
use welcome::Welcome;

const CONFIG: &str = include_str!("demo/gateway.toml");

/// Maximum number of events that wait to be printed. Further events are dropped.
const EVENT_QUEUE: usize = 4096;

/// A loopback address with a port that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) fn run(args: &Demo) -> CommandResult {
    serve::on_control_runtime(demo(args.port))
}

async fn demo(port: u16) -> CommandResult {
    let mut stop = StopSignals::listen()?;
    let directory = temporary_directory()?;
    let (sender, events) = mpsc::channel(EVENT_QUEUE);
    event_printer::log_warnings();

    let app = TcpListener::bind(ANY_PORT).await.map_err(|error| cannot_listen(&error))?;
    let app_address = app.local_addr().map_err(|error| cannot_listen(&error))?;
    let wanted = SocketAddr::new(ANY_PORT.ip(), port);
    let config = parse_config(wanted, ANY_PORT, app_address)?;
    let store = Store::open(&config.store).await?;
    let log_parser = Box::new(LogParser::new(sender.clone()));
    let telemetry = Telemetry::without_access_log()
        .and_then(|metrics_only| metrics_only.with_access_log(log_parser, config.server.workers));
    let telemetry = telemetry.map_err(|error| Failure::internal(error.to_string()))?;
    let (server, port_in_use) = start(&config, &store, &telemetry, app_address).await?;
    let gateway = server.addresses().first().copied().unwrap_or(wanted);
    let file = write_config(&directory, gateway, store.api_address().unwrap_or(ANY_PORT), app_address)?;

    let realm = RealmContext::new(&store, context::select_realm(&config, None)?);
    let alice = Arc::new(Alice::new(realm));
    let session = alice.create_session().await?;
    let token = token()?;
    let _app = App::new(HeaderOrigins::from_config(&config))
        .with_writes(true)
        .with_login_link(login_link(token.clone(), Arc::clone(&alice), sender.clone()))
        .with_observer(move |request| {
            // If the queue is full, the terminal cannot keep up, and the event is dropped.
            let _ = sender.try_send(DemoEvent::AppRequest(request));
        })
        .serve(app)
        .map_err(|error| cannot_listen(&error))?;

    let welcome = Welcome {
        gateway,
        port_in_use: port_in_use.then_some(port),
        link: format!("http://{gateway}/become/{token}"),
        cookie: alice.cookie(&session),
        file,
    };
    welcome.print(session.reference)?;
    let keep_alive = async {
        alice.keep_alive(&session).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        printed = EventPrinter::new(welcome).run(events) => printed?,
        () = stop.recv() => {}
        () = keep_alive => {}
    }
    serve::drain(server, &mut stop).await;
    Ok(())
}

/// Starts the gateway, on a free port if the configured one is in use. Returns the server, and whether the port was in use.
async fn start(
    config: &Config,
    store: &Store,
    telemetry: &Telemetry,
    app: SocketAddr,
) -> Result<(Server, bool), Failure> {
    match Server::start(config, store, telemetry, Inherited::none()).await {
        Ok(server) => Ok((server, false)),
        Err(StartError::Open(ListenError::Bind { error, .. }))
            if error.kind() == std::io::ErrorKind::AddrInUse =>
        {
            let config = parse_config(ANY_PORT, ANY_PORT, app)?;
            Ok((Server::start(&config, store, telemetry, Inherited::none()).await?, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the link that gives a browser alice's session. Each use that creates a new session sends an event.
fn login_link(token: String, alice: Arc<Alice>, events: mpsc::Sender<DemoEvent>) -> LoginLink {
    let log_in = move || {
        let (alice, events) = (Arc::clone(&alice), events.clone());
        let cookie = async move {
            let session = match alice.link_session().await.ok()? {
                LinkSession::Existing(session) => session,
                LinkSession::New(session) => {
                    let _ = events.try_send(DemoEvent::NewSession(session.reference));
                    session
                }
            };
            alice.set_cookie(&session)
        };
        Box::pin(cookie) as futures_util::future::BoxFuture<'static, _>
    };
    LoginLink { token, log_in: Box::new(log_in) }
}

/// Returns the text of the configuration with these addresses.
fn config_text(gateway: SocketAddr, store: SocketAddr, app: SocketAddr) -> String {
    CONFIG
        .replace("{{gateway}}", &gateway.to_string())
        .replace("{{store}}", &store.to_string())
        .replace("{{app}}", &app.to_string())
}

fn parse_config(gateway: SocketAddr, store: SocketAddr, app: SocketAddr) -> Result<Config, Failure> {
    let (config, report) = config::parse(&config_text(gateway, store, app), Path::new("demo.toml"), &System);
    config.ok_or_else(|| Failure::internal(format!("the demo's own configuration is invalid\n{report}")))
}

/// Writes the configuration with the actual addresses, for the commands in another terminal.
fn write_config(
    directory: &TempDir,
    gateway: SocketAddr,
    store: SocketAddr,
    app: SocketAddr,
) -> Result<PathBuf, Failure> {
    let file = directory.path().join("gateway.toml");
    match std::fs::write(&file, config_text(gateway, store, app)) {
        Ok(()) => Ok(file),
        Err(error) => Err(Failure::internal(format!("cannot write `{}`: {error}", file.display()))),
    }
}

/// Creates a directory that is removed when the demo ends.
fn temporary_directory() -> Result<TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("sessiongate-demo-")
        .tempdir()
        .map_err(|error| Failure::internal(format!("cannot create a temporary directory: {error}")))
}

fn token() -> Result<String, Failure> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::internal(format!("cannot generate random bytes: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn cannot_listen(error: &std::io::Error) -> Failure {
    Failure::internal(format!("cannot listen on a loopback port: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_has_no_errors_or_warnings() {
        let at = |port| SocketAddr::new(ANY_PORT.ip(), port);
        let text = config_text(at(1), at(2), at(3));
        let (config, report) = config::parse(&text, Path::new("demo.toml"), &System);
        assert!(config.is_some() && report.is_empty(), "{report}");
    }
}
