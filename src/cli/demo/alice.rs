//! The demo's user. She has two sessions: one whose cookie is printed, which the demo keeps alive, and one that her link
//! hands to browsers, which ends when it is not used.

use std::time::Duration;

use http::HeaderValue;
use serde_json::json;
use tokio::sync::Mutex;

use crate::claims::Claims;
use crate::cli::failure::Failure;
use crate::cli::site::Site;
use crate::format::{SessionId, SessionRecord};
use crate::session;
use crate::session::judge::{Life, Policy, SessionVerdict, judge};
use crate::session::reference::Ref;
use crate::store::table::Read;
use crate::time::{Clock, Timestamp};

/// How often a session that is kept alive is used: well within its timeout.
const USE_EVERY: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub(super) struct Alice {
    site: Site,
    policy: Policy,
    /// The session of the link.
    ticket: Mutex<Option<Ticket>>,
}

/// What stands for her session.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    pub(super) reference: Ref,
    id: SessionId,
}

/// Her session, as she comes in with it.
#[derive(Debug)]
pub(super) enum Visit {
    /// The session she had is still alive.
    Again(Ticket),
    /// She needed a new one.
    New(Ticket),
}

impl Alice {
    pub(super) fn new(site: Site) -> Self {
        let policy = Policy::new(&site.config);
        Self { site, policy, ticket: Mutex::new(None) }
    }

    /// The session of her link: the one that she has if it is alive, else a new one.
    pub(super) async fn visit(&self) -> Result<Visit, Failure> {
        // One visit at a time, so that two at once do not make two sessions.
        let mut ticket = self.ticket.lock().await;
        let now = Clock.now().wall;
        if let Some(ticket) = ticket.as_ref()
            && self.is_alive(ticket, now).await?
        {
            return Ok(Visit::Again(ticket.clone()));
        }
        let new = self.sign_in().await?;
        *ticket = Some(new.clone());
        Ok(Visit::New(new))
    }

    /// Makes a session of its own.
    pub(super) async fn sign_in(&self) -> Result<Ticket, Failure> {
        let format = self.site.format.as_ref();
        let now = Clock.now().wall;
        let made = session::create(format, &self.site.table, &self.policy, claims(), now).await?;
        let reference = format.parse_cookie(made.cookie.expose());
        let id = reference.map_err(|fault| Failure::internal(fault.to_string()))?.id;
        Ok(Ticket { reference: made.reference, id })
    }

    /// Keeps a session alive until it is revoked, as regular requests would.
    pub(super) async fn keep_alive(&self, ticket: &Ticket) {
        loop {
            tokio::time::sleep(USE_EVERY).await;
            match self.reissue(ticket, Clock.now().wall).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => tracing::warn!(reason = failure.message, "alice's session was not reissued"),
            }
        }
    }

    /// `name=value`, as curl takes it.
    pub(super) fn cookie(&self, ticket: &Ticket) -> String {
        format!("{}={}", self.site.config.cookie.name, self.site.format.cookie_value(&ticket.id, 1))
    }

    /// What gives it to a browser. The gateway adds the rest of the attributes: it knows the realm's.
    pub(super) fn set_cookie(&self, ticket: &Ticket) -> Option<HeaderValue> {
        HeaderValue::try_from(self.cookie(ticket)).ok()
    }

    async fn is_alive(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Failure> {
        Ok(self.read(ticket, now).await?.is_some())
    }

    /// Moves the session's deadline if that is due. Returns whether the session is alive.
    async fn reissue(&self, ticket: &Ticket, now: Timestamp) -> Result<bool, Failure> {
        let Some((record, life)) = self.read(ticket, now).await? else { return Ok(false) };
        if let Some(due) = life.due {
            let touch = self.site.format.touch(&record, due.touch_times(now));
            // A refusal means that a request has just moved it, or that the session has ended; the next turn tells.
            self.site.table.update(&self.site.format.key(&ticket.id), &touch.update).await?;
        }
        Ok(true)
    }

    /// The session, if it is alive.
    async fn read(&self, ticket: &Ticket, now: Timestamp) -> Result<Option<(SessionRecord, Life)>, Failure> {
        let row = self.site.table.get(&self.site.format.key(&ticket.id), Read::Strong).await?;
        let record = row.and_then(|row| self.site.format.decode(&row).ok());
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
