//! The session cookie of a response: the gateway's own, or the app's with the realm's attributes.

use http::HeaderValue;

use super::mutation::UpdatedSession;
use super::realm::Realm;
use super::resolution::Active;
use super::set_cookie::RewrittenCookie;

impl Realm {
    /// Returns the Set-Cookie that renews the request's session cookie.
    pub fn renewed_cookie(&self, active: &Active, secure: bool) -> HeaderValue {
        self.cookie.write(&self.format.cookie_value(&active.id, active.session.record.version), secure)
    }

    /// Returns the Set-Cookie of a session after a change.
    pub fn updated_cookie(&self, updated: &UpdatedSession, secure: bool) -> HeaderValue {
        self.cookie.write(&self.format.cookie_value(&updated.id, updated.session.record.version), secure)
    }

    /// Returns the Set-Cookie that removes the session cookie.
    pub fn cookie_removal(&self, secure: bool) -> HeaderValue {
        self.cookie.remove(secure)
    }

    /// Rewrites a Set-Cookie of the upstream with the realm's attributes. Returns `None` if it is not the session cookie.
    ///
    /// The app has just written the session, so the cached rows of the request's session and of the new cookie are
    /// invalidated.
    pub fn rewrite_cookie(
        &self,
        set_cookie: &[u8],
        active: Option<&Active>,
        secure: bool,
    ) -> Option<RewrittenCookie> {
        let rewritten = self.cookie.rewrite(set_cookie, secure, self.clock.now().wall)?;
        if let Some(active) = active {
            self.cache.invalidate(&active.session.key);
            // The app may have ended the session.
            self.monitors.check_now(&active.session.key, self.clock.mono());
        }
        if let Ok(reference) = self.format.parse_cookie(rewritten.value.expose()) {
            self.cache.invalidate(&self.format.key(&reference.id));
        }
        Some(rewritten)
    }
}
