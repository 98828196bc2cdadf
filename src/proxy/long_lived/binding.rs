//! Session bindings: long-lived responses and WebSockets end when their session ends.
//!
//! A binding is pending at first, and costs only memory: an ordinary response is complete before the session is first
//! rechecked. Then it becomes active. An active binding ends the response when the session ends, when its user changes,
//! or when its claims no longer meet the route's requirements.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use crate::proxy::model::{Exchange, Route};
use crate::proxy::response::CookieAction;
use crate::session::{Session, SessionMonitor, SessionStatus, Usage};

/// A pending binding.
#[derive(Debug)]
pub(in crate::proxy) struct SessionBinding {
    route: Arc<Route>,
    session: Arc<Session>,
    /// When the session is first rechecked.
    due: Instant,
}

/// An active binding: the session is monitored.
#[derive(Debug)]
pub(in crate::proxy) struct ActiveBinding {
    route: Arc<Route>,
    /// The session as it was when the response began.
    session: Arc<Session>,
    monitor: SessionMonitor,
}

/// The reason why the gateway ended a long-lived response or a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The session has ended.
    SessionEnded,
    /// The session still exists, but its user has logged out or another user has logged in.
    LoggedOut,
    /// The claims no longer meet the route's requirements.
    Forbidden,
    /// The gateway is draining.
    Draining,
}

impl SessionBinding {
    /// Returns the binding of the response to a request that began at `began`, or `None` if it has no session, or if the
    /// route does not recheck sessions.
    pub(in crate::proxy) fn new(exchange: Exchange, cookie: &CookieAction, began: Instant) -> Option<Self> {
        let Exchange { visitor, route, .. } = exchange;
        let due = began + route.streams.recheck?;
        let session = cookie.session(visitor)?;
        Some(Self { route, session, due })
    }

    /// Returns when the session is first rechecked.
    pub(in crate::proxy) fn due(&self) -> Instant {
        self.due
    }

    /// Monitors the session from now on.
    pub(in crate::proxy) fn activate(self) -> Option<ActiveBinding> {
        let Self { route, session, due } = self;
        let (realm, recheck) = (route.realm.as_ref()?, route.streams.recheck?);
        let monitor = realm.monitor(&session, recheck, due - recheck);
        Some(ActiveBinding { route, session, monitor })
    }
}

impl ActiveBinding {
    /// Returns a handle that records use of the session.
    pub(super) fn usage(&self) -> Usage {
        self.monitor.usage()
    }

    async fn ended(mut self) -> EndReason {
        loop {
            match self.monitor.changed().await {
                SessionStatus::Ended => return EndReason::SessionEnded,
                SessionStatus::Live(session) => {
                    let claims = &session.record().claims;
                    let before = &self.session.record().claims;
                    if self.route.realm.as_ref().is_some_and(|realm| !realm.keeps_user(before, claims)) {
                        return EndReason::LoggedOut;
                    }
                    if !self.route.require.iter().all(|requirement| requirement.holds(claims)) {
                        return EndReason::Forbidden;
                    }
                }
            }
        }
    }
}

/// Waits until the response must end. Waits forever without a binding.
pub(in crate::proxy) async fn session_end(binding: Option<ActiveBinding>) -> EndReason {
    match binding {
        Some(binding) => binding.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits until the response must end, or the gateway drains.
pub(super) async fn session_end_or_drain(
    binding: Option<ActiveBinding>,
    mut stopped: watch::Receiver<bool>,
) -> EndReason {
    tokio::select! {
        reason = session_end(binding) => reason,
        // A closed channel also means that the gateway is stopping.
        _ = stopped.wait_for(|stopped| *stopped) => EndReason::Draining,
    }
}

impl EndReason {
    /// Returns the label for logs and metrics.
    pub(in crate::proxy) fn label(self) -> &'static str {
        match self {
            Self::SessionEnded => "session-ended",
            Self::LoggedOut => "logged-out",
            Self::Forbidden => "forbidden",
            Self::Draining => "draining",
        }
    }
}
