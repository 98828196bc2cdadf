//! What the gateway says of a request, beside what the client says.
//!
//! It stays a list until it is written. To put it into the client's headers would cost more than all else that is done
//! to a request: every name is looked up, and the map is made anew as it grows.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Headers that go to the upstream with those of the request. A name that is said here is none of the request's own.
#[derive(Clone, Debug, Default)]
pub struct GatewayHeaders(Vec<(HeaderName, HeaderValue)>);

impl GatewayHeaders {
    /// Nothing yet, with room for `count` headers.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Says this. The client cannot have said it: what clients may not say was taken off.
    pub(crate) fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Says this in place of whatever `headers`, the request's own, say.
    pub(crate) fn replace(&mut self, headers: &mut HeaderMap, name: HeaderName, value: HeaderValue) {
        headers.remove(&name);
        self.insert(name, value);
    }

    /// Names the host, in place of the one that is named.
    pub(crate) fn set_host(&mut self, host: HeaderValue) {
        self.0.retain(|(name, _)| *name != HOST);
        self.insert(HOST, host);
    }

    /// The host that is named.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.iter().find_map(|(name, value)| (*name == HOST).then_some(value))
    }

    /// All of it, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Takes out of `headers` what is said here, so that it is said once.
    pub(crate) fn clear(&self, headers: &mut HeaderMap) {
        for (name, _) in self.iter() {
            headers.remove(name);
        }
    }

    /// Writes it into `headers`, over what is there.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        headers.reserve(self.0.len());
        for (name, value) in self.iter() {
            headers.insert(name.clone(), value.clone());
        }
    }
}
