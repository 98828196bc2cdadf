//! What ties a response or a WebSocket to its session: it does not outlive it.
//!
//! An ordinary response is over before the first look is due, and has cost nothing but the place for what is needed
//! then. One that goes on is told when the session ends, or when a claim that its route requires no longer holds.

use std::sync::Arc;
use std::time::Instant;

use http::Response;
use http::header::CONTENT_TYPE;
use hyper::body::Body as _;
use tokio::sync::watch;

use super::Route;
use super::admit::Visitor;
use super::body::ResponseBody;
use super::inject::Exchange;
use super::respond::Renewal;
use crate::config::StreamsConfig;
use crate::session::{Outcome, Session, Standing, Usage, Watch};

/// What is needed to look after the session behind something that has begun.
#[derive(Debug)]
pub(super) struct Bond {
    route: Arc<Route>,
    session: Arc<Session>,
    /// When the first look is due.
    due: Instant,
}

/// A session that is being looked after.
#[derive(Debug)]
pub(super) struct Tie {
    route: Arc<Route>,
    /// The session as it was when the response began.
    session: Arc<Session>,
    watch: Watch,
}

/// Why something that could have gone on was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The session has ended.
    SessionEnded,
    /// The session goes on, but its user has logged out, or another one has logged in.
    LoggedOut,
    /// A claim that the route requires no longer holds.
    Forbidden,
    /// The gateway is draining.
    Draining,
}

impl Bond {
    /// The bond of the response to a request of `began`; none if nobody's session is behind it, or the route has it go
    /// on regardless.
    pub(super) fn new(exchange: Exchange, renewal: &Renewal, began: Instant) -> Option<Self> {
        let Exchange { visitor, route, .. } = exchange;
        let due = began + route.streams.recheck?;
        let session = match (renewal, visitor) {
            // It may be another one by now.
            (Renewal::Ordered(Outcome::Goes(going)), _) => Arc::clone(&going.session),
            (Renewal::Ordered(Outcome::Ended), _) => return None,
            (_, Visitor::Session(active)) => active.session,
            (_, Visitor::Public | Visitor::Anonymous | Visitor::Unknown) => return None,
        };
        Some(Self { route, session, due })
    }

    /// When the first look is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Looks after the session from now on.
    pub(super) fn tie(self) -> Option<Tie> {
        let Self { route, session, due } = self;
        let (realm, recheck) = (route.realm.as_ref()?, route.streams.recheck?);
        let watch = realm.watch(&session, recheck, due - recheck);
        Some(Tie { route, session, watch })
    }
}

impl Tie {
    /// Where to note that the session is used.
    pub(super) fn usage(&self) -> Usage {
        self.watch.usage()
    }

    async fn loosed(mut self) -> Ending {
        loop {
            match self.watch.changed().await {
                Standing::Ended => return Ending::SessionEnded,
                Standing::Live(session) => {
                    let claims = &session.record().claims;
                    let before = &self.session.record().claims;
                    if self.route.realm.as_ref().is_some_and(|realm| !realm.keeps_user(before, claims)) {
                        return Ending::LoggedOut;
                    }
                    if !self.route.require.iter().all(|requirement| requirement.holds(claims)) {
                        return Ending::Forbidden;
                    }
                }
            }
        }
    }
}

/// Ties a response's body to its session. A stream of events goes on by nature: it is tied from the start, may be silent
/// for long, and does not keep the gateway from ending.
pub(super) fn bind(
    response: &mut Response<ResponseBody>,
    bond: Option<Bond>,
    streams: &StreamsConfig,
    stopped: &watch::Receiver<bool>,
) {
    let kind = response.headers().get(CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.split(|&byte| byte == b';').next());
    let is_events = kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"));
    let body = response.body_mut();
    if is_events && !body.is_end_stream() {
        let ending = loosed_or_stopped(bond.and_then(Bond::tie), stopped.clone());
        body.go_on(streams.idle_timeout, Box::pin(ending));
    } else if let Some(bond) = bond {
        body.bind(bond);
    }
}

/// Waits for the end of what is tied to a session.
pub(super) async fn loosed(tie: Option<Tie>) -> Ending {
    match tie {
        Some(tie) => tie.loosed().await,
        None => std::future::pending().await,
    }
}

/// The same, or for the gateway's own end: of what would keep it from ending.
pub(super) async fn loosed_or_stopped(tie: Option<Tie>, mut stopped: watch::Receiver<bool>) -> Ending {
    tokio::select! {
        ending = loosed(tie) => ending,
        // A sender that is gone means the same as being told.
        _ = stopped.wait_for(|stopped| *stopped) => Ending::Draining,
    }
}

impl Ending {
    /// The cause in one word, for logs and counts.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::SessionEnded => "session-ended",
            Self::LoggedOut => "logged-out",
            Self::Forbidden => "forbidden",
            Self::Draining => "draining",
        }
    }
}
