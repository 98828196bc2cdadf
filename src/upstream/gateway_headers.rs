//! The request headers that the gateway adds to the client's.
//!
//! They stay a list of their own until the request is written.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::Fields;

/// Headers that the gateway adds to a request. Names here never also appear in the client's headers.
#[derive(Clone, Debug, Default)]
pub struct GatewayHeaders(Vec<(HeaderName, HeaderValue)>);

impl GatewayHeaders {
    /// Returns an empty list with capacity for `count` headers.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Adds a header whose name the client's headers do not have, because headers of that name were removed.
    pub(crate) fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.0.push((name, value));
    }

    /// Adds a header, and removes headers of the same name from `fields`, the client's.
    pub(crate) fn replace(&mut self, fields: &mut Fields, name: HeaderName, value: HeaderValue) {
        fields.remove(&name);
        self.insert(name, value);
    }

    /// Sets Host, replacing an earlier value.
    pub(crate) fn set_host(&mut self, host: HeaderValue) {
        self.0.retain(|(name, _)| *name != HOST);
        self.insert(HOST, host);
    }

    /// Returns Host.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.iter().find_map(|(name, value)| (*name == HOST).then_some(value))
    }

    /// Returns all headers in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Removes the names of this list from `fields`.
    pub(crate) fn remove_from(&self, fields: &mut Fields) {
        for (name, _) in self.iter() {
            fields.remove(name);
        }
    }

    /// Inserts the headers into `headers`, replacing those of the same name.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        headers.reserve(self.0.len());
        for (name, value) in self.iter() {
            headers.insert(name.clone(), value.clone());
        }
    }
}
