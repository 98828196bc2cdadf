//! The demo's user, alice. She has two sessions. The demo prints the cookie of one and keeps that session alive. The log-in
//! link gives the other to browsers, and that session expires when it is not used.

use std::time::Duration;

use http::HeaderValue;
use serde_json::json;
use tokio::sync::Mutex;

use crate::claims::Claims;
use crate::cli::context::RealmContext;
use crate::cli::failure::Failure;
use crate::format::{SessionId, SessionRecord};
use crate::session;
use crate::session::judge::{Life, Policy, SessionVerdict, judge};
use crate::session::reference::Ref;
use crate::store::table::Read;
use crate::time::{Clock, Timestamp};

/// Interval at which a session is reissued to keep it alive. It is well below the session's timeout.
const REISSUE_INTERVAL: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Alice {
    realm: RealmContext,
    policy: Policy,
    /// The latest session that the log-in link gave out.
    link_session: Mutex<Option<DemoSession>>,
}

/// One of alice's sessions.
#[derive(Clone, Debug)]
pub(super) struct DemoSession {
    pub(super) reference: Ref,
    id: SessionId,
}

/// The session that the log-in link gives out.
#[derive(Debug)]
pub(super) enum LinkSession {
    /// The previous session, which is still live.
    Existing(DemoSession),
    /// A new session.
    New(DemoSession),
}

impl Alice {
    pub(super) fn new(realm: RealmContext) -> Self {
        let policy = Policy::new(&realm.config);
        Self { realm, policy, link_session: Mutex::new(None) }
    }

    /// Returns the session for the log-in link: the previous one if it is live, else a new one.
    pub(super) async fn link_session(&self) -> Result<LinkSession, Failure> {
        // The lock is held throughout, so that concurrent requests do not create two sessions.
        let mut current = self.link_session.lock().await;
        let now = Clock.wall();
        if let Some(session) = current.as_ref()
            && self.is_live(session, now).await?
        {
            return Ok(LinkSession::Existing(session.clone()));
        }
        let new = self.create_session().await?;
        *current = Some(new.clone());
        Ok(LinkSession::New(new))
    }

    /// Creates a session.
    pub(super) async fn create_session(&self) -> Result<DemoSession, Failure> {
        let format = self.realm.format.as_ref();
        let now = Clock.wall();
        let created = session::create(format, &self.realm.table, &self.policy, claims(), now).await?;
        let reference = format.parse_cookie(created.cookie.expose());
        let id = reference.map_err(|fault| Failure::internal(fault.to_string()))?.id;
        Ok(DemoSession { reference: created.reference, id })
    }

    /// Keeps a session alive until it is revoked, as regular requests would.
    pub(super) async fn keep_alive(&self, session: &DemoSession) {
        loop {
            tokio::time::sleep(REISSUE_INTERVAL).await;
            match self.reissue(session, Clock.wall()).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => tracing::warn!(reason = failure.message, "alice's session was not reissued"),
            }
        }
    }

    /// Returns the session's cookie as `name=value`.
    pub(super) fn cookie(&self, session: &DemoSession) -> String {
        format!("{}={}", self.realm.config.cookie.name, self.realm.format.cookie_value(&session.id, 1))
    }

    /// Returns a Set-Cookie value for the session. The gateway adds the realm's attributes.
    pub(super) fn set_cookie(&self, session: &DemoSession) -> Option<HeaderValue> {
        HeaderValue::try_from(self.cookie(session)).ok()
    }

    async fn is_live(&self, session: &DemoSession, now: Timestamp) -> Result<bool, Failure> {
        Ok(self.read(session, now).await?.is_some())
    }

    /// Reissues the session if a reissue is due. Returns whether the session is live.
    async fn reissue(&self, session: &DemoSession, now: Timestamp) -> Result<bool, Failure> {
        let Some((record, life)) = self.read(session, now).await? else { return Ok(false) };
        if let Some(due) = life.due {
            let touch = self.realm.format.touch(&record, due.touch_times(now));
            // If the condition fails, a request has just reissued the session, or the session has ended. The next call finds
            // out which.
            self.realm.table.update(&self.realm.format.key(&session.id), &touch.update).await?;
        }
        Ok(true)
    }

    /// Reads the session. Returns `None` if it is not live.
    async fn read(
        &self,
        session: &DemoSession,
        now: Timestamp,
    ) -> Result<Option<(SessionRecord, Life)>, Failure> {
        let row = self.realm.table.get(&self.realm.format.key(&session.id), Read::Strong).await?;
        let record = row.and_then(|row| self.realm.format.decode(&row).ok());
        Ok(record.and_then(|record| match judge(&self.policy, &record, now) {
            SessionVerdict::Live(life) => Some((record, life)),
            SessionVerdict::Idle | SessionVerdict::TooOld => None,
        }))
    }
}

fn claims() -> Claims {
    [
        ("user", json!("alice")),
        ("name", json!("Alice Liddell")),
        ("tenant", json!("Wonderland")),
        ("roles", json!(["admin", "editor"])),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
