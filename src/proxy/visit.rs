//! What a route takes from the session, or gives it, before the upstream is asked: flash messages come out once, and a
//! CSRF token is made where there is none.

use std::time::Duration;

use http::HeaderValue;

use super::admit::{Admitted, Visitor};
use crate::session::{Edit, Order, Outcome, csrf, flash};
use crate::time::Clock;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Visit {
    /// The messages that came out.
    pub(super) flash: Vec<String>,
    /// Whether the session was written, so that the browser must be given its cookie again.
    pub(super) written: bool,
    /// How long the store took.
    pub(super) took: Duration,
}

/// Takes the messages out, of at most `budget` bytes, and makes the token. If it cannot be done the request goes on
/// without: the messages wait, and the app has no token to write into its page.
pub(super) async fn visit(admitted: &mut Admitted, budget: usize) -> Visit {
    let route = &admitted.route;
    let (Visitor::Session(active), Some(realm)) = (&mut admitted.visitor, &route.realm) else {
        return Visit::default();
    };
    let claims = &active.session.record().claims;
    let wants_flash = route.flash && flash::waits(claims);
    let token = (route.csrf && csrf::token(claims).is_none()).then(csrf::new_token);
    let token = token.and_then(Result::ok);
    if !wants_flash && token.is_none() {
        return Visit::default();
    }
    let edit = Edit::Visit { flash: wants_flash.then_some(budget), csrf: token };
    let order = Order { edits: vec![edit], ..Order::default() };
    let asked = Clock.mono();
    let changed = realm.change(Some(active), order).await;
    let nothing = Visit { took: Clock.mono().saturating_duration_since(asked), ..Visit::default() };
    match changed {
        Ok(Outcome::Goes(going)) => {
            active.session = going.session;
            Visit { flash: going.flash, written: true, ..nothing }
        }
        Ok(Outcome::Ended | Outcome::Nothing) => nothing,
        Err(error) => {
            let session = active.session.reference();
            tracing::warn!(route = %route.name, %session, %error, "flash messages and token could not be taken");
            nothing
        }
    }
}

/// Messages as one header: percent-encoded, with commas between them.
pub(super) fn flash_header(messages: &[String]) -> Option<HeaderValue> {
    let list: Vec<_> = messages.iter().cloned().map(serde_json::Value::String).collect();
    super::mapping::list(&list)
}
