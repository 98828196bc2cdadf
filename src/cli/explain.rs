//! `sessiongate explain`: a dry run of one request. The gateway's own code decides it; the cookies and rows that the
//! decision is made of are shown beside it.

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
use super::failure::{CommandResult, Failure};
use super::output;
use super::row::JudgedRow;
use super::session::{cookie_text, cookie_values, describe_fault, is_bare};
use super::site::{self, Reach, Site};

/// More than the head of any request that the gateway accepts.
const PIPE: usize = 256 * 1024;

/// Everything that is shown.
struct Explanation {
    dry_run: DryRun,
    /// The refusal that a browser loading the page would get instead of a 401.
    page: Option<Refusal>,
    cookies: Vec<Cookie>,
    now: Now,
}

/// One cookie of the realm's name.
enum Cookie {
    /// It is not one of ours.
    Refused(String),
    /// It names this session, and this is its row.
    Names(Ref, u64, Box<Result<Option<JudgedRow>, String>>),
}

pub(super) fn run(args: &Explain, file: &ConfigFile) -> CommandResult {
    let config = site::load(file)?;
    let given = args.cookie.as_deref().map(cookie_text).transpose()?;
    let explanation = super::block_on(explain(&config, args, given.as_deref()))?;
    let mut stdout = output::stdout();
    if args.json {
        writeln!(stdout, "{}", explanation.to_json(args))?;
    } else {
        explanation.print(args, &config, &mut stdout)?;
    }
    Ok(())
}

async fn explain(config: &Config, args: &Explain, given: Option<&str>) -> Result<Explanation, Failure> {
    let now = Clock.now();
    let store = store(config, given).await?;
    let tasks = TaskTracker::new();
    let telemetry = Telemetry::without_access_log().map_err(|error| Failure::internal(error.to_string()))?;
    let evaluator = Evaluator { config, store: &store, tasks: &tasks, telemetry: &telemetry, now };
    // The cookie's name is the realm's, and the realm is the route's, which takes a request to find.
    let first = evaluator.evaluate(request(args, None)?).await?;
    let realm = first.route.as_ref().and_then(|route| route.realm.as_ref());
    let (Some(given), Some(realm)) = (given, realm) else {
        return Ok(Explanation {
            page: page(&evaluator, args, None, &first).await?,
            dry_run: first,
            cookies: vec![],
            now,
        });
    };
    let name = realm.cookie_name().to_owned();
    let values = cookie_values(given, &name);
    let header = if is_bare(given, &name) { format!("{name}={given}") } else { given.to_owned() };
    let dry_run = evaluator.evaluate(request(args, Some(&header))?).await?;
    let mut cookies = Vec::new();
    if let Some(config) = config.realms.iter().find(|config| config.name == realm.name()) {
        let site = Site::over(&store, config);
        for value in values {
            cookies.push(look(&site, value, now).await);
        }
    }
    let page = page(&evaluator, args, Some(&header), &dry_run).await?;
    Ok(Explanation { dry_run, page, cookies, now })
}

/// The store that the cookie's session would be in. Without a cookie nothing is read, so an empty one will do.
async fn store(config: &Config, given: Option<&str>) -> Result<Store, Failure> {
    let empty = StoreConfig::Embedded { path: None, listen: None };
    match given {
        None => match Store::open(&empty).await {
            Ok(store) => Ok(store),
            // A build without the embedded engine.
            Err(_) => site::open_store(&config.store, Reach::Existing).await,
        },
        Some(_) => site::open_store(&config.store, Reach::Existing).await,
    }
}

/// Returns the refusal that a browser loading the page would get instead of a 401, if that is a log-in redirect.
async fn page(
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
    let page = evaluator.evaluate(request).await?;
    Ok(page.outcome.err().filter(|refusal| matches!(refusal, Refusal::Login(_))))
}

fn request(args: &Explain, cookie: Option<&str>) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut request = Request::builder()
        .method(args.method.clone())
        .uri(&args.path)
        .header(HOST, &args.host)
        .body(Empty::new())
        .map_err(|error| Failure::usage(format!("this makes no request: {error}")))?;
    for (name, value) in &args.headers {
        request.headers_mut().append(name.clone(), value.clone());
    }
    if let Some(cookie) = cookie {
        // The value is a secret, and so is what is wrong with it.
        let cookie = HeaderValue::from_str(cookie)
            .map_err(|_| Failure::usage("the cookie holds characters that a header cannot carry"))?;
        request.headers_mut().append(COOKIE, cookie);
    }
    Ok(request)
}

/// Evaluates requests, each in a gateway of its own, so that one does not count against the rates of the next.
struct Evaluator<'c> {
    config: &'c Config,
    store: &'c Store,
    tasks: &'c TaskTracker,
    telemetry: &'c Telemetry,
    now: Now,
}

impl Evaluator<'_> {
    /// Evaluates `request` as one that arrived at the first listener from this machine. hyper parses it, as it would parse
    /// a client's: it is sent over a connection within the process.
    async fn evaluate(&self, request: Request<Empty<Bytes>>) -> Result<DryRun, Failure> {
        let gateway = server::gateway(self.config, self.store, self.tasks, self.telemetry, Vec::new());
        let policy = match self.config.listeners.first() {
            Some(listener) => ListenerPolicy::new(listener),
            None => ListenerPolicy::trusting(TrustedProxies::default()),
        };
        let peer = Peer::new(Some(Ipv4Addr::LOCALHOST.into()), &Arc::new(policy), None);
        let broken = |error: hyper::Error| Failure::usage(format!("this makes no request: {error}"));
        let (client, server) = tokio::io::duplex(PIPE);
        let (sender, mut evaluated) = mpsc::channel(1);
        let service = service_fn(|request: Request<Incoming>| {
            let (gateway, peer, sender, now) = (&gateway, &peer, sender.clone(), self.now);
            async move {
                // There is only one request, so the channel has room.
                let _only = sender.try_send(dry_run(gateway, peer, request.map(ClientBody::from), now).await);
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
            (Err(_), Err(error)) => Err(broken(error)),
            (Err(_), Ok(())) => Err(Failure::internal("the request was not evaluated")),
        }
    }
}

async fn look(site: &Site, value: &[u8], now: Now) -> Cookie {
    match site.format.parse_cookie(value) {
        Err(fault) => Cookie::Refused(describe_fault(fault, site.format.as_ref())),
        Ok(reference) => {
            let key = site.format.key(&reference.id);
            let row = site.table.get(&key, Read::Strong).await;
            let row = row.map(|row| row.map(|item| JudgedRow::judge(site, &key, &item, now.wall)));
            Cookie::Names(Ref::of(&key), reference.version, Box::new(row.map_err(|error| error.to_string())))
        }
    }
}
