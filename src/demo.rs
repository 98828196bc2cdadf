//! The built-in demo app: the upstream of `sessiongate demo`, and the server `builtin:demo` in `gateway.toml`.
//!
//! The app knows nothing about sessions, cookies or DynamoDB, and trusts every header. It shows the headers that it
//! receives: as a page to browsers, as text to curl, as JSON to the page's script. Its forms respond with session
//! commands, which the gateway carries out. `sessiongate demo` adds a link that logs a browser in.

mod form;
mod page;
mod page_kind;
mod received;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use form::Form;
use page::{Links, Page};
use page_kind::PageKind;
use received::Received;

pub use received::{HeaderOrigin, HeaderOrigins};

use crate::headers::SESSION_ACTION;

/// Maximum number of open connections. Further ones wait in the kernel's queue; the gateway opens far fewer.
const MAX_CONNECTIONS: usize = 512;

/// Timeout for receiving a request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The app, before it listens.
pub struct App {
    page: Page,
    origins: HeaderOrigins,
    may_write: bool,
    login_link: Option<LoginLink>,
    observer: Option<Box<dyn Fn(AppRequest) + Send + Sync>>,
}

/// A link that logs a browser in: `/become/TOKEN`.
pub struct LoginLink {
    /// The last segment of the link's path. It cannot be guessed, so no other site can link to it.
    pub token: String,
    /// Creates a session, or finds the existing one, and returns a `Set-Cookie` value for it; `None` if that fails.
    pub log_in: Box<dyn Fn() -> BoxFuture<'static, Option<HeaderValue>> + Send + Sync>,
}

/// A request as the app received it.
#[derive(Clone, Debug)]
pub struct AppRequest {
    /// The gateway's request id; empty if the request does not come from a gateway.
    pub request_id: String,
    /// The headers that the gateway injected from the session: names and values.
    pub injected: Vec<(String, String)>,
    /// Whether the app's response asks for a new session id.
    pub rotates: bool,
}

/// The app, listening on a loopback port until this is dropped.
#[derive(Debug)]
pub struct RunningApp {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl App {
    /// Creates an app behind a gateway that sets the headers of `origins`. The app shows where each header comes from.
    pub fn new(origins: HeaderOrigins) -> Self {
        Self { page: Page::new(), origins, may_write: false, login_link: None, observer: None }
    }

    /// Sets whether the app's route has `writes = true`. If not, the app's forms are disabled.
    #[must_use]
    pub fn with_writes(self, may_write: bool) -> Self {
        Self { may_write, ..self }
    }

    /// Adds a log-in link.
    #[must_use]
    pub fn with_login_link(self, login_link: LoginLink) -> Self {
        Self { login_link: Some(login_link), ..self }
    }

    /// Calls `observer` for each request just before the app responds. It must not block.
    #[must_use]
    pub fn with_observer(self, observer: impl Fn(AppRequest) + Send + Sync + 'static) -> Self {
        Self { observer: Some(Box::new(observer)), ..self }
    }

    /// Listens on a free loopback port, and serves in a background task.
    ///
    /// # Errors
    /// Returns an error if no loopback port can be bound.
    pub async fn spawn(self) -> io::Result<RunningApp> {
        self.serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// Serves on `listener` in a background task.
    ///
    /// # Errors
    /// Returns an error if the listener's address cannot be read.
    pub fn serve(self, listener: TcpListener) -> io::Result<RunningApp> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(Arc::new(self), listener));
        Ok(RunningApp { address, _task: AbortOnDropHandle::new(task) })
    }

    async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (request, body) = request.into_parts();
        let received = Received::new(&request.headers, &self.origins);
        let path = request.uri.path();
        let response = if let Some(token) = path.strip_prefix("/become/") {
            self.log_in(token, request.uri.query()).await
        } else if let Some(form) = Form::from_request(&request.method, path) {
            match form.commands(&received, body).await {
                Some(commands) => {
                    let mut response = see_other(request.uri.query());
                    response.headers_mut().extend(commands);
                    response
                }
                None => respond(
                    StatusCode::BAD_REQUEST,
                    "text/plain; charset=utf-8",
                    format!("The name must have 1 to {} characters on one line\n", form::MAX_NAME),
                ),
            }
        } else if path.ends_with("/whoami") {
            respond(StatusCode::OK, "application/json", received.to_json())
        } else {
            let kind = PageKind::from_path(path);
            if wants_html(&request.headers) {
                let links = Links {
                    login_link: self.login_link.as_ref().map(|link| link.path(kind, &request.uri)),
                    log_in: with_next("/log-in", kind, &request.uri),
                    may_write: self.may_write,
                };
                let page = self.page.render(kind, &received, &links);
                let mut response = respond(kind.status(), "text/html; charset=utf-8", page);
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.page.policy());
                response
            } else {
                respond(kind.status(), "text/plain; charset=utf-8", received.to_text(kind))
            }
        };
        if let Some(observer) = &self.observer {
            observer(AppRequest {
                request_id: received.request_id().to_owned(),
                injected: received.injected(),
                rotates: response.headers().get(SESSION_ACTION).is_some_and(|action| action == "rotate"),
            });
        }
        response
    }

    async fn log_in(&self, token: &str, query: Option<&str>) -> Response<Full<Bytes>> {
        let Some(link) = self.login_link.as_ref().filter(|link| link.token == token) else {
            return respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "No such link\n".to_owned());
        };
        let Some(cookie) = (link.log_in)().await else {
            return respond(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain; charset=utf-8",
                "The session could not be created\n".to_owned(),
            );
        };
        let mut response = see_other(query);
        response.headers_mut().insert(header::SET_COOKIE, cookie);
        response
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("origins", &self.origins).finish_non_exhaustive()
    }
}

impl LoginLink {
    fn path(&self, kind: PageKind, uri: &Uri) -> String {
        with_next(&format!("/become/{}", self.token), kind, uri)
    }
}

impl fmt::Debug for LoginLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoginLink(..)")
    }
}

impl RunningApp {
    /// Returns the address that the app listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Returns `path`. On the log-in page, appends the page's own `next` query, so that logging in leads to the requested page.
fn with_next(path: &str, kind: PageKind, uri: &Uri) -> String {
    match uri.query().filter(|query| kind == PageKind::Login && query.starts_with("next=")) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

async fn accept(app: Arc<App>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        // Fails if no descriptor is left, or the client has disconnected. Both are temporary.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = Arc::clone(&app);
        connections.spawn(async move {
            serve_connection(app, stream).await;
            drop(permit);
        });
    }
}

async fn serve_connection(app: Arc<App>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.handle(request).await) }
    });
    // Errors are ignored: the peer has disconnected or sent invalid HTTP.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // With `no-referrer`, browsers would send the forms with `Origin: null`, and the CSRF check would refuse them.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn see_other(query: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", String::new());
    response.headers_mut().insert(header::LOCATION, next_location(query));
    response
}

/// Returns whether the client accepts `text/html` by name, as browsers do. curl sends `*/*` and gets text.
fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")))
}

/// Returns the redirect target: `next` of the query if it is a path on this host, else the home page.
///
/// Browsers read `//host` and `/\host` as another host, and ignore tabs and line breaks in them.
fn next_location(query: Option<&str>) -> HeaderValue {
    query
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("next=")))
        .map(|next| percent_encoding::percent_decode_str(next).collect::<Vec<u8>>())
        .filter(|next| next.iter().all(u8::is_ascii_graphic))
        .filter(|next| match next.as_slice() {
            [b'/', second, ..] => !matches!(second, b'/' | b'\\'),
            [b'/'] => true,
            _ => false,
        })
        .and_then(|next| HeaderValue::from_bytes(&next).ok())
        .unwrap_or(HeaderValue::from_static("/"))
}

#[cfg(test)]
mod tests;
