//! `sessiongate explain`: a dry run of one request. The gateway's own code decides the request, and the output also shows
//! the cookies and rows that the decision is based on.

mod report;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, COOKIE, HOST, HeaderValue};
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::config::{Config, StoreConfig, TrustedProxies};
use crate::proxy::{DryRun, ListenerPolicy, Peer, Refusal, dry_run};
use crate::server;
use crate::session::reference::Ref;
use crate::store::Store;
use crate::store::table::Read;
use crate::telemetry::Telemetry;
use crate::time::{Clock, Now};
use crate::upstream::ClientBody;

use super::args::{ConfigFile, Explain};
use super::context::{self, IfMissing, RealmContext};
use super::failure::{CommandResult, Failure};
use super::output;
use super::row::JudgedRow;
use super::session::{cookie_text, cookie_values, describe_fault, is_bare_value};

/// Size of the in-memory connection: more than the head of any request that the gateway accepts.
const PIPE_SIZE: usize = 256 * 1024;

/// The result of a dry run.
struct Explanation {
    dry_run: DryRun,
    /// The log-in redirect that a browser gets if the outcome is 401 for other clients.
    browser_refusal: Option<Refusal>,
    cookies: Vec<Cookie>,
    now: Now,
}

/// One cookie with the realm's cookie name.
enum Cookie {
    /// A cookie that the format rejects, with the reason.
    Refused(String),
    /// A valid cookie: the session's ref, the version in the cookie, and the session's row.
    Names(Ref, u64, Box<Result<Option<JudgedRow>, String>>),
}

pub(super) fn run(args: &Explain, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let cookie = args.cookie.as_deref().map(cookie_text).transpose()?;
    let explanation = super::block_on(explain(&config, args, cookie.as_deref()))?;
    let mut stdout = output::stdout();
    if args.json {
        writeln!(stdout, "{}", explanation.to_json(args))?;
    } else {
        explanation.print(args, &config, &mut stdout)?;
    }
    Ok(())
}

async fn explain(config: &Config, args: &Explain, cookie: Option<&str>) -> Result<Explanation, Failure> {
    let now = Clock.now();
    let store = open_store(config, cookie).await?;
    let tasks = TaskTracker::new();
    let telemetry = Telemetry::without_access_log().map_err(|error| Failure::internal(error.to_string()))?;
    let evaluator = Evaluator { config, store: &store, tasks: &tasks, telemetry: &telemetry, now };
    // A first run without a cookie finds the route and so the realm, whose cookie name is needed.
    let first = evaluator.evaluate(request(args, None)?).await?;
    let realm = first.route.as_ref().and_then(|route| route.realm.as_ref());
    let (Some(cookie), Some(realm)) = (cookie, realm) else {
        return Ok(Explanation {
            browser_refusal: browser_refusal(&evaluator, args, None, &first).await?,
            dry_run: first,
            cookies: vec![],
            now,
        });
    };
    let name = realm.cookie_name().to_owned();
    let values = cookie_values(cookie, &name);
    let header = if is_bare_value(cookie, &name) { format!("{name}={cookie}") } else { cookie.to_owned() };
    let dry_run = evaluator.evaluate(request(args, Some(&header))?).await?;
    let mut cookies = Vec::new();
    if let Some(config) = config.realms.iter().find(|config| config.name == realm.name()) {
        let context = RealmContext::new(&store, config);
        for value in values {
            cookies.push(look_up(&context, value, now).await);
        }
    }
    let browser_refusal = browser_refusal(&evaluator, args, Some(&header), &dry_run).await?;
    Ok(Explanation { dry_run, browser_refusal, cookies, now })
}

/// Opens the store. Without a cookie nothing is read, so an empty store in memory suffices.
async fn open_store(config: &Config, cookie: Option<&str>) -> Result<Store, Failure> {
    let empty = StoreConfig::Embedded { path: None, listen: None };
    match cookie {
        None => match Store::open(&empty).await {
            Ok(store) => Ok(store),
            // This build has no embedded engine.
            Err(_) => context::open_store(&config.store, IfMissing::Fail).await,
        },
        Some(_) => context::open_store(&config.store, IfMissing::Fail).await,
    }
}

/// Returns the log-in redirect that a browser would get if `dry_run` has ended with 401.
async fn browser_refusal(
    evaluator: &Evaluator<'_>,
    args: &Explain,
    cookie: Option<&str>,
    dry_run: &DryRun,
) -> Result<Option<Refusal>, Failure> {
    if !matches!(dry_run.outcome, Err(Refusal::Unauthenticated(_)))
        || args.headers.iter().any(|(name, _)| name == ACCEPT)
    {
        return Ok(None);
    }
    let mut request = request(args, cookie)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/html"));
    let for_browser = evaluator.evaluate(request).await?;
    Ok(for_browser.outcome.err().filter(|refusal| matches!(refusal, Refusal::Login(_))))
}

fn request(args: &Explain, cookie: Option<&str>) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut request = Request::builder()
        .method(args.method.clone())
        .uri(&args.path)
        .header(HOST, &args.host)
        .body(Empty::new())
        .map_err(|error| Failure::usage(format!("invalid request: {error}")))?;
    for (name, value) in &args.headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    if let Some(cookie) = cookie {
        // The message must not quote the value, which is a secret.
        let cookie = HeaderValue::from_str(cookie)
            .map_err(|_| Failure::usage("the cookie contains characters that a header cannot have"))?;
        request.headers_mut().append(COOKIE, cookie);
    }
    Ok(request)
}

/// Evaluates requests. Each gets a gateway of its own, so that it does not count against the rate limits of the next one.
struct Evaluator<'c> {
    config: &'c Config,
    store: &'c Store,
    tasks: &'c TaskTracker,
    telemetry: &'c Telemetry,
    now: Now,
}

impl Evaluator<'_> {
    /// Evaluates `request` as if this machine had sent it to the first listener. The request is sent over an in-memory
    /// connection, so that hyper parses it like a client's.
    async fn evaluate(&self, request: Request<Empty<Bytes>>) -> Result<DryRun, Failure> {
        let gateway = server::gateway(self.config, self.store, self.tasks, self.telemetry, Vec::new());
        let policy = match self.config.listeners.first() {
            Some(listener) => ListenerPolicy::new(listener),
            None => ListenerPolicy::trusting(TrustedProxies::default()),
        };
        let peer = Peer::new(Some(Ipv4Addr::LOCALHOST.into()), &Arc::new(policy), None);
        let invalid = |error: hyper::Error| Failure::usage(format!("invalid request: {error}"));
        let (client, server) = tokio::io::duplex(PIPE_SIZE);
        let (sender, mut evaluated) = mpsc::channel(1);
        let service = service_fn(|request: Request<Incoming>| {
            let (gateway, peer, sender, now) = (&gateway, &peer, sender.clone(), self.now);
            async move {
                // The send cannot fail, since there is only one request.
                let _ = sender.try_send(dry_run(gateway, peer, request.map(ClientBody::from), now).await);
                Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let sending = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(client)).await?;
            let (response, _) = tokio::join!(
                async {
                    let response = sender.send_request(request).await;
                    drop(sender);
                    response
                },
                connection
            );
            response.map(drop)
        };
        let (_, sent) = tokio::join!(serving, sending);
        match (evaluated.try_recv(), sent) {
            (Ok(dry_run), _) => Ok(dry_run),
            (Err(_), Err(error)) => Err(invalid(error)),
            (Err(_), Ok(())) => Err(Failure::internal("the request was not evaluated")),
        }
    }
}

/// Parses one cookie value and reads its row.
async fn look_up(realm: &RealmContext, value: &[u8], now: Now) -> Cookie {
    match realm.format.parse_cookie(value) {
        Err(fault) => Cookie::Refused(describe_fault(fault, realm.format.as_ref())),
        Ok(reference) => {
            let key = realm.format.key(&reference.id);
            let row = realm.table.get(&key, Read::Strong).await;
            let row = row.map(|row| row.map(|item| JudgedRow::judge(realm, &key, &item, now.wall)));
            Cookie::Names(Ref::of(&key), reference.version, Box::new(row.map_err(|error| error.to_string())))
        }
    }
}
