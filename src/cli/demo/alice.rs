//! The demo's user, who has a session whenever she is asked for.

use http::HeaderValue;
use serde_json::json;
use tokio::sync::Mutex;

use crate::claims::Claims;
use crate::cli::failure::Failure;
use crate::cli::site::Site;
use crate::format::SessionId;
use crate::session;
use crate::session::judge::{Policy, Verdict, judge};
use crate::session::reference::Ref;
use crate::store::table::Read;
use crate::time::{Clock, Timestamp};

#[derive(Debug)]
pub(super) struct Alice {
    site: Site,
    policy: Policy,
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

    /// Her session: the one that she has if it is alive, else a new one.
    pub(super) async fn visit(&self) -> Result<Visit, Failure> {
        // One visit at a time, so that two at once do not make two sessions.
        let mut ticket = self.ticket.lock().await;
        let now = Clock.now().wall;
        if let Some(ticket) = ticket.as_ref()
            && self.is_alive(ticket, now).await?
        {
            return Ok(Visit::Again(ticket.clone()));
        }
        let new = self.sign_in(now).await?;
        *ticket = Some(new.clone());
        Ok(Visit::New(new))
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
        let row = self.site.table.get(&self.site.format.key(&ticket.id), Read::Strong).await?;
        let record = row.and_then(|row| self.site.format.decode(&row).ok());
        Ok(record.is_some_and(|record| matches!(judge(&self.policy, &record, now), Verdict::Live(_))))
    }

    async fn sign_in(&self, now: Timestamp) -> Result<Ticket, Failure> {
        let format = self.site.format.as_ref();
        let made = session::create(format, &self.site.table, &self.policy, claims(), now).await?;
        let reference = format.parse_cookie(made.cookie.expose());
        let id = reference.map_err(|fault| Failure::internal(fault.to_string()))?.id;
        Ok(Ticket { reference: made.reference, id })
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
