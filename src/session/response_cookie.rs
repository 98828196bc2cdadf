//! The session cookie of a response: the gateway's own, and what becomes of the app's.

use http::HeaderValue;

use super::set_cookie::Adopted;
use super::{Active, Realm, UpdatedSession};

impl Realm {
    /// The Set-Cookie that gives the browser its session again.
    pub fn cookie_again(&self, active: &Active, secure: bool) -> HeaderValue {
        self.cookie.write(&self.format.cookie_value(&active.id, active.session.record.version), secure)
    }

    /// The Set-Cookie of a session after a change.
    pub fn cookie_of(&self, going: &UpdatedSession, secure: bool) -> HeaderValue {
        self.cookie.write(&self.format.cookie_value(&going.id, going.session.record.version), secure)
    }

    /// The Set-Cookie that takes the session from the browser.
    pub fn cookie_removal(&self, secure: bool) -> HeaderValue {
        self.cookie.remove(secure)
    }

    /// Reads a Set-Cookie of the upstream. If it is of this realm's cookie, what the app has just written is not what
    /// we remember: the rows of the request's session and of the new cookie are forgotten, and the cookie is given the
    /// realm's attributes.
    pub fn adopt(&self, set_cookie: &HeaderValue, active: Option<&Active>, secure: bool) -> Option<Adopted> {
        let adopted = self.cookie.adopt(set_cookie.as_bytes(), secure, self.clock.now().wall)?;
        if let Some(active) = active {
            self.cache.forget(&active.session.key);
            // Whether it still is a session is for the table to say.
            self.monitors.hasten(&active.session.key, self.clock.mono());
        }
        if let Ok(reference) = self.format.parse_cookie(adopted.value.expose()) {
            self.cache.forget(&self.format.key(&reference.id));
        }
        Some(adopted)
    }
}
