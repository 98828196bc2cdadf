//! Flash and CSRF preparation: removes flash messages from the session for the upstream, and creates a CSRF token if the
//! session has none. Both are one conditional write, which is retried if the session is modified concurrently.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::csrf::Forwardable;
use super::mapping;
use crate::proxy::model::Visitor;
use crate::session::{Edit, MutationOutcome, SessionMutation, csrf, flash};
use crate::time::Clock;

/// The result of preparing a session.
#[derive(Debug, Default)]
pub(in crate::proxy) struct SessionPreparation {
    /// The flash messages that were removed from the session.
    pub(in crate::proxy) flash: Vec<String>,
    /// Whether the session was written, so that the browser must be sent its cookie again.
    pub(in crate::proxy) written: bool,
    /// The time spent waiting for the store.
    pub(in crate::proxy) took: Duration,
}

impl SessionPreparation {
    /// Removes flash messages of at most `budget` bytes, and creates the token. If the write fails, the request is
    /// forwarded without them: the messages stay in the session, and the app has no token to write into its page.
    pub(in crate::proxy) async fn run(forwardable: &mut Forwardable, budget: usize) -> Self {
        if !forwardable.route().flash && !forwardable.route().csrf {
            return Self::default();
        }
        let route = Arc::clone(forwardable.route());
        let (Visitor::Session(active), Some(realm)) = (forwardable.visitor_mut(), &route.realm) else {
            return Self::default();
        };
        let claims = &active.session.record().claims;
        let takes_flash = route.flash && flash::has_messages(claims);
        let token = (route.csrf && csrf::token(claims).is_none()).then(csrf::new_token);
        let token = token.and_then(Result::ok);
        if !takes_flash && token.is_none() {
            return Self::default();
        }
        let edit = Edit::Prepare { flash: takes_flash.then_some(budget), csrf: token };
        let mutation = SessionMutation { edits: vec![edit], ..SessionMutation::default() };
        let began = Clock.mono();
        let changed = realm.change(Some(active), mutation).await;
        let unwritten = Self { took: Clock.mono().saturating_duration_since(began), ..Self::default() };
        match changed {
            Ok(MutationOutcome::Updated(updated)) => {
                active.session = updated.session;
                Self { flash: updated.flash, written: true, ..unwritten }
            }
            Ok(MutationOutcome::Ended | MutationOutcome::Unchanged) => unwritten,
            Err(error) => {
                let session = active.session.reference();
                tracing::warn!(route = %route.name, %session, %error, "could not remove flash messages from the session, or create its CSRF token");
                unwritten
            }
        }
    }
}

/// Returns the messages as one header value, percent-encoded and separated by commas.
pub(super) fn flash_header(messages: &[String]) -> Option<HeaderValue> {
    let list: Vec<_> = messages.iter().cloned().map(serde_json::Value::String).collect();
    mapping::list(&list)
}
