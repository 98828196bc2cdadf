//! `sessiongate demo`: a store, a legacy app and the gateway between them in one process, a user with a session, and
//! the story of each request as it happens. Nothing of it is special to the demo but the app: the gateway is the one
//! that `serve` runs, from a configuration that is written down for the other terminal to use.

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
use crate::demo::{App, DemoLogin, HeaderOrigins};
use crate::server::{Inherited, ListenError, Server, StartError};
use crate::store::Store;
use crate::telemetry::Telemetry;

use super::args::Demo;
use super::failure::{CommandResult, Failure};
use super::serve::{self, Stop};
use super::site::{self, Site};

use alice::{Alice, Visit};
use event_printer::{DemoEvent, EventPrinter, LogSubscriber};
use welcome::Welcome;

const CONFIG: &str = include_str!("demo/gateway.toml");

/// More untold requests than this are not told.
const UNTOLD: usize = 4096;

/// A port of this machine's own that the system chooses.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(super) fn run(args: &Demo) -> CommandResult {
    serve::on_control_runtime(demo(args.port))
}

async fn demo(port: u16) -> CommandResult {
    let mut stop = Stop::listen()?;
    let home = home()?;
    let (news, told) = mpsc::channel(UNTOLD);
    event_printer::listen();

    let app = TcpListener::bind(ANY_PORT).await.map_err(|error| no_port(&error))?;
    let app_address = app.local_addr().map_err(|error| no_port(&error))?;
    let wanted = SocketAddr::new(ANY_PORT.ip(), port);
    let config = resolved(wanted, ANY_PORT, app_address)?;
    let store = Store::open(&config.store).await?;
    let ear = Box::new(LogSubscriber::new(news.clone()));
    let telemetry = Telemetry::without_access_log()
        .and_then(|metrics_only| metrics_only.with_access_log(ear, config.server.workers));
    let telemetry = telemetry.map_err(|error| Failure::internal(error.to_string()))?;
    let (server, port_was_taken) = start(&config, &store, &telemetry, app_address).await?;
    let gateway = server.addresses().first().copied().unwrap_or(wanted);
    let file = write_down(&home, gateway, store.served_at().unwrap_or(ANY_PORT), app_address)?;

    let alice = Arc::new(Alice::new(Site::over(&store, site::realm(&config, None)?)));
    let ticket = alice.sign_in().await?;
    let token = token()?;
    let _app = App::new(HeaderOrigins::of(&config))
        .with_writes(true)
        .with_entrance(entrance(token.clone(), Arc::clone(&alice), news.clone()))
        .with_narration(move |heard| {
            // A full queue means that the terminal cannot keep up, and nobody could read it either.
            let _untold = news.try_send(DemoEvent::Heard(heard));
        })
        .serve(app)
        .map_err(|error| no_port(&error))?;

    let welcome = Welcome {
        gateway,
        port_was_taken: port_was_taken.then_some(port),
        link: format!("http://{gateway}/become/{token}"),
        cookie: alice.cookie(&ticket),
        file,
    };
    welcome.print(ticket.reference)?;
    let kept_alive = async {
        alice.keep_alive(&ticket).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        told = EventPrinter::new(welcome).tell(told) => told?,
        () = stop.heard() => {}
        () = kept_alive => {}
    }
    serve::drain(server, &mut stop).await;
    Ok(())
}

/// Starts the gateway, on another port if the one of the configuration is taken.
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
            let config = resolved(ANY_PORT, ANY_PORT, app)?;
            Ok((Server::start(&config, store, telemetry, Inherited::none()).await?, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// The link's end of the entrance: a session for alice, and a word about it if it is new.
fn entrance(token: String, alice: Arc<Alice>, news: mpsc::Sender<DemoEvent>) -> DemoLogin {
    let admit = move || {
        let (alice, news) = (Arc::clone(&alice), news.clone());
        let admitted = async move {
            let ticket = match alice.visit().await.ok()? {
                Visit::Again(ticket) => ticket,
                Visit::New(ticket) => {
                    let _untold = news.try_send(DemoEvent::SignedIn(ticket.reference));
                    ticket
                }
            };
            alice.set_cookie(&ticket)
        };
        Box::pin(admitted) as futures_util::future::BoxFuture<'static, _>
    };
    DemoLogin { token, admit: Box::new(admit) }
}

fn text(gateway: SocketAddr, store: SocketAddr, app: SocketAddr) -> String {
    CONFIG
        .replace("{{gateway}}", &gateway.to_string())
        .replace("{{store}}", &store.to_string())
        .replace("{{app}}", &app.to_string())
}

fn resolved(gateway: SocketAddr, store: SocketAddr, app: SocketAddr) -> Result<Config, Failure> {
    let (config, report) = config::parse(&text(gateway, store, app), Path::new("demo.toml"), &System);
    config.ok_or_else(|| Failure::internal(format!("the demo's own configuration is wrong\n{report}")))
}

/// Writes the configuration to where the commands of the other terminal find it, with the addresses that it came to.
fn write_down(
    home: &TempDir,
    gateway: SocketAddr,
    store: SocketAddr,
    app: SocketAddr,
) -> Result<PathBuf, Failure> {
    let file = home.path().join("gateway.toml");
    match std::fs::write(&file, text(gateway, store, app)) {
        Ok(()) => Ok(file),
        Err(error) => Err(Failure::internal(format!("cannot write `{}`: {error}", file.display()))),
    }
}

/// A directory that goes when the demo ends.
fn home() -> Result<TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("sessiongate-demo-")
        .tempdir()
        .map_err(|error| Failure::internal(format!("cannot make a temporary directory: {error}")))
}

fn token() -> Result<String, Failure> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| Failure::internal(format!("no randomness: {error}")))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn no_port(error: &std::io::Error) -> Failure {
    Failure::internal(format!("cannot listen on a port of this machine: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_without_problems() {
        let at = |port| SocketAddr::new(ANY_PORT.ip(), port);
        let (config, report) = config::parse(&text(at(1), at(2), at(3)), Path::new("demo.toml"), &System);
        assert!(config.is_some() && report.is_empty(), "{report}");
    }
}
