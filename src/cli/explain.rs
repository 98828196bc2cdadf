//! `sessiongate explain`: a dry run of one request. The gateway's own code decides the request, and the output also shows
//! the cookies and rows that the decision is based on.

mod report;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use http::header::{ACCEPT, COOKIE, HOST, HeaderValue};
use tokio_util::task::TaskTracker;

use crate::config::{Config, StoreConfig, TrustedProxies};
use crate::fields::write_field;
use crate::http1::{HeadLimits, ParsedRequest};
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
    Invalid(String),
    /// A valid cookie: the session's ref, the version in the cookie, and the session's row.
    Valid(Ref, u64, Box<Result<Option<JudgedRow>, String>>),
}

pub(super) fn run(args: &Explain, file: &ConfigFile) -> CommandResult {
    let config = context::load(file)?;
    let cookie = args.cookie.as_deref().map(cookie_text).transpose()?;
    let explanation = super::block_on(explain(&config, args, cookie.as_deref()))?;
    let mut stdout = output::stdout();
    if args.json {
        writeln!(stdout, "{}", output::json(&explanation.to_json(args)))?;
    } else {
        explanation.print(args, &config, &mut stdout)?;
    }
    Ok(())
}

async fn explain(config: &Config, args: &Explain, cookie: Option<&str>) -> Result<Explanation, Failure> {
    let now = Clock.now();
    let sends_cookie = cookie.is_some() || args.headers.iter().any(|(name, _)| name == COOKIE);
    let store = open_store(config, sends_cookie).await?;
    let tasks = TaskTracker::new();
    let telemetry = Telemetry::without_access_log().map_err(|error| Failure::internal(error.to_string()))?;
    let evaluator = Evaluator { config, store: &store, tasks: &tasks, telemetry: &telemetry, now };
    // A first run without the cookie finds the route, and with it the realm and the name of its cookie.
    let first = evaluator.evaluate(&request(args, None, None)?).await?;
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
    let dry_run = evaluator.evaluate(&request(args, Some(&header), None)?).await?;
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

/// Opens the store. If the request sends no cookie, nothing is read, so an empty store in memory suffices.
async fn open_store(config: &Config, sends_cookie: bool) -> Result<Store, Failure> {
    let empty = StoreConfig::Embedded { path: None, listen: None };
    // A build without the embedded engine cannot open it.
    if !sends_cookie && let Ok(store) = Store::open_without_tasks(&empty).await {
        return Ok(store);
    }
    context::open_store(&config.store, IfMissing::Fail).await
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
    let for_browser = evaluator.evaluate(&request(args, cookie, Some("text/html"))?).await?;
    Ok(for_browser.outcome.err().filter(|refusal| matches!(refusal, Refusal::Login(_))))
}

/// Returns the head of the request, as a client would send it.
fn request(args: &Explain, cookie: Option<&str>, accept: Option<&str>) -> Result<Vec<u8>, Failure> {
    if args.path.bytes().chain(args.host.bytes()).any(|byte| byte <= b' ') {
        return Err(Failure::usage(
            "invalid request: the path or the host contains a space or a control character",
        ));
    }
    let mut head = format!("{} {} HTTP/1.1\r\n", args.method, args.path).into_bytes();
    write_field(HOST.as_str(), args.host.as_bytes(), &mut head);
    for (name, value) in &args.headers {
        write_field(name.as_str(), value.as_bytes(), &mut head);
    }
    if let Some(cookie) = cookie {
        // The message must not quote the value, which is a secret.
        let cookie = HeaderValue::from_str(cookie)
            .map_err(|_| Failure::usage("the cookie contains characters that a header cannot contain"))?;
        write_field(COOKIE.as_str(), cookie.as_bytes(), &mut head);
    }
    if let Some(accept) = accept {
        write_field(ACCEPT.as_str(), accept.as_bytes(), &mut head);
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// Evaluates requests. Each gets its own gateway, so that it does not count against the rate limits of the next one.
struct Evaluator<'c> {
    config: &'c Config,
    store: &'c Store,
    tasks: &'c TaskTracker,
    telemetry: &'c Telemetry,
    now: Now,
}

impl Evaluator<'_> {
    /// Evaluates the request with this head as if this machine had sent it to the first listener.
    async fn evaluate(&self, head: &[u8]) -> Result<DryRun, Failure> {
        let gateway = server::gateway(self.config, self.store, self.tasks, self.telemetry, Vec::new());
        let policy = match self.config.listeners.first() {
            Some(listener) => ListenerPolicy::new(listener),
            None => ListenerPolicy::trusting(TrustedProxies::default()),
        };
        let peer = Peer::new(Some(Ipv4Addr::LOCALHOST.into()), &Arc::new(policy), None);
        let limits = HeadLimits { bytes: gateway.limits.header_bytes, lines: gateway.limits.headers };
        let invalid = |error: &str| Failure::usage(format!("invalid request: {error}"));
        let parsed = ParsedRequest::parse(head, limits).map_err(|error| invalid(&error.to_string()))?;
        let (parsed, _) = parsed.ok_or_else(|| invalid("the request's head is incomplete"))?;
        let body = match &parsed.body {
            Some(decoder) => ClientBody::announced(decoder.remaining()),
            None => ClientBody::with_invalid_framing(),
        };
        Ok(dry_run(&gateway, &peer, parsed.into_request(body), self.now).await)
    }
}

/// Parses one cookie value and reads its row.
async fn look_up(realm: &RealmContext, value: &[u8], now: Now) -> Cookie {
    match realm.format.parse_cookie(value) {
        Err(fault) => Cookie::Invalid(describe_fault(fault, realm.format.as_ref())),
        Ok(reference) => {
            let key = realm.format.key(&reference.id);
            let row = realm.table.get(&key, Read::Strong).await;
            let row = row.map(|row| row.map(|item| JudgedRow::judge(realm, &key, &item, now.wall)));
            Cookie::Valid(
                Ref::from_key(&key),
                reference.version,
                Box::new(row.map_err(|error| error.to_string())),
            )
        }
    }
}
