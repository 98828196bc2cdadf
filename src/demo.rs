//! The built-in legacy app: what stands behind the gateway in `sessiongate demo`, and as `builtin:demo` in
//! `gateway.toml`.
//!
//! It is what its name says: it knows nothing of sessions, cookies or DynamoDB, and believes every header it gets. All
//! it does is to show them: as a page to browsers, as text to curl, as JSON to the page's own script. Its forms order
//! changes of the session, which are the gateway's to make. The demo adds one thing to it, a link that hands out a
//! session, and that hook is given from outside.

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

/// More connections than this wait in the system's queue; the gateway in front keeps far fewer.
const CONNECTIONS: usize = 512;

/// How long a connection may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The app, not yet listening.
pub struct App {
    page: Page,
    origins: HeaderOrigins,
    is_obeyed: bool,
    entrance: Option<DemoLogin>,
    tell: Option<Box<dyn Fn(Heard) + Send + Sync>>,
}

/// A link that makes its visitor a user: `/become/TOKEN`.
pub struct DemoLogin {
    /// What the link ends in. Unguessable, so that no page on the web can link to it.
    pub token: String,
    /// Makes the session, or finds the one that is still alive, and answers with the `Set-Cookie` for it; `None` if
    /// that cannot be done just now.
    pub admit: Box<dyn Fn() -> BoxFuture<'static, Option<HeaderValue>> + Send + Sync>,
}

/// What the app tells of one request.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What the gateway calls it; empty if it came from elsewhere.
    pub request_id: String,
    /// The headers that the gateway injected, as they came.
    pub injected: Vec<(String, String)>,
    /// Whether it is to give the session a new id.
    pub rotates: bool,
}

/// The app, listening on a loopback port until this is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl App {
    /// An app behind a gateway that sets the headers of `origins`. It shows which of its headers are the gateway's.
    pub fn new(origins: HeaderOrigins) -> Self {
        Self { page: Page::new(), origins, is_obeyed: false, entrance: None, tell: None }
    }

    /// The same app behind a route that lets it change sessions, if `is_obeyed`; else its forms say that they are idle.
    #[must_use]
    pub fn with_writes(self, is_obeyed: bool) -> Self {
        Self { is_obeyed, ..self }
    }

    /// The same app with an entrance.
    #[must_use]
    pub fn with_entrance(self, entrance: DemoLogin) -> Self {
        Self { entrance: Some(entrance), ..self }
    }

    /// The same app, telling of each request just before it answers. The app waits for `tell`, so that must be quick.
    #[must_use]
    pub fn with_narration(self, tell: impl Fn(Heard) + Send + Sync + 'static) -> Self {
        Self { tell: Some(Box::new(tell)), ..self }
    }

    /// Listens on a free loopback port and serves from a task of its own.
    ///
    /// # Errors
    /// Returns an error if no loopback port can be bound.
    pub async fn spawn(self) -> io::Result<Running> {
        self.serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// Serves on `listener` from a task of its own.
    ///
    /// # Errors
    /// Returns an error if the listener cannot tell its address.
    pub fn serve(self, listener: TcpListener) -> io::Result<Running> {
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(Arc::new(self), listener));
        Ok(Running { address, _task: AbortOnDropHandle::new(task) })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (request, body) = request.into_parts();
        let received = Received::new(&request.headers, &self.origins);
        let path = request.uri.path();
        let response = if let Some(token) = path.strip_prefix("/become/") {
            self.admit(token, request.uri.query()).await
        } else if let Some(form) = Form::of(&request.method, path) {
            match form.order(&received, body).await {
                Some(order) => {
                    let mut response = see_other(request.uri.query());
                    response.headers_mut().extend(order);
                    response
                }
                None => respond(
                    StatusCode::BAD_REQUEST,
                    "text/plain; charset=utf-8",
                    format!("A name is a text of 1 to {} characters in one line\n", form::MAX_NAME),
                ),
            }
        } else if path.ends_with("/whoami") {
            respond(StatusCode::OK, "application/json", received.to_json())
        } else {
            let kind = PageKind::from_path(path);
            if wants_html(&request.headers) {
                let links = Links {
                    entrance: self.entrance.as_ref().map(|entrance| entrance.link(kind, &request.uri)),
                    log_in: onward("/log-in", kind, &request.uri),
                    is_obeyed: self.is_obeyed,
                };
                let page = self.page.render(kind, &received, &links);
                let mut response = respond(kind.status(), "text/html; charset=utf-8", page);
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.page.policy());
                response
            } else {
                respond(kind.status(), "text/plain; charset=utf-8", received.to_text(kind))
            }
        };
        if let Some(tell) = &self.tell {
            tell(Heard {
                request_id: received.request_id().to_owned(),
                injected: received.injected(),
                rotates: response.headers().get(SESSION_ACTION).is_some_and(|action| action == "rotate"),
            });
        }
        response
    }

    async fn admit(&self, token: &str, query: Option<&str>) -> Response<Full<Bytes>> {
        let Some(entrance) = self.entrance.as_ref().filter(|entrance| entrance.token == token) else {
            return respond(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "No such link\n".to_owned());
        };
        let Some(cookie) = (entrance.admit)().await else {
            return respond(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain; charset=utf-8",
                "The session could not be made\n".to_owned(),
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

impl DemoLogin {
    fn link(&self, kind: PageKind, uri: &Uri) -> String {
        onward(&format!("/become/{}", self.token), kind, uri)
    }
}

impl fmt::Debug for DemoLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Entrance(..)")
    }
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// `path` as a link on a page: the login page's goes on to where the visitor was headed.
fn onward(path: &str, kind: PageKind, uri: &Uri) -> String {
    match uri.query().filter(|query| kind == PageKind::Login && query.starts_with("next=")) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

async fn accept(app: Arc<App>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        // Out of descriptors, or a client that is gone already: neither is worth more than the next try.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let app = Arc::clone(&app);
        connections.spawn(async move {
            converse(app, stream).await;
            drop(slot);
        });
    }
}

async fn converse(app: Arc<App>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    // An error here is the peer's: it hung up, or did not speak HTTP.
    let _gone = http1::Builder::new()
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
    // With `no-referrer`, browsers would send the forms with `Origin: null`, which proves nothing.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn see_other(query: Option<&str>) -> Response<Full<Bytes>> {
    let mut response = respond(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", String::new());
    response.headers_mut().insert(header::LOCATION, destination(query));
    response
}

/// Browsers ask for HTML by name; curl takes anything and is better served with text.
fn wants_html(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .any(|accept| accept.to_str().is_ok_and(|accept| accept.contains("text/html")))
}

/// Where a visitor goes on to: the `next` of the query if it is a path on this very host, else the home page.
///
/// Browsers read `//host` and `/\host` as another host, and skip tabs and line breaks before they look.
fn destination(query: Option<&str>) -> HeaderValue {
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
