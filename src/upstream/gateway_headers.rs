//! The request headers that the gateway adds to the client's.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::{Fields, write_field};
use crate::header_lines::HeaderLines;

/// Headers that the gateway adds to a request. Names here never also appear in the client's headers.
#[derive(Clone, Debug, Default)]
pub struct GatewayHeaders {
    /// Host is separate, since it may depend on the server.
    host: Option<HeaderValue>,
    lines: HeaderLines,
}

impl GatewayHeaders {
    /// Returns headers that are only Host, with capacity for `bytes` of others.
    pub(crate) fn new(host: HeaderValue, bytes: usize) -> Self {
        Self { host: Some(host), lines: HeaderLines::with_capacity(bytes) }
    }

    /// Adds a header whose name the client's headers do not have, because headers of that name were removed.
    pub(crate) fn insert(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.lines.push(name, value);
    }

    /// Adds headers whose names the client's headers do not have.
    pub(crate) fn extend(&mut self, lines: &HeaderLines) {
        self.lines.extend(lines);
    }

    /// Adds a header, and removes headers of the same name from `fields`, the client's.
    pub(crate) fn replace(&mut self, fields: &mut Fields, name: &HeaderName, value: &HeaderValue) {
        fields.remove(name);
        self.insert(name, value);
    }

    /// Sets Host, replacing an earlier value.
    pub(crate) fn set_host(&mut self, host: HeaderValue) {
        self.host = Some(host);
    }

    /// Returns Host.
    pub(super) fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Returns the size of the headers in an HTTP/1.1 head, in bytes.
    pub(super) fn written_size(&self) -> usize {
        let host = self.host.as_ref().map_or(0, |host| HOST.as_str().len() + host.len() + 4);
        host + self.lines.as_bytes().len()
    }

    /// Appends the headers to an HTTP/1.1 head.
    pub(super) fn write(&self, head: &mut Vec<u8>) {
        if let Some(host) = &self.host {
            write_field(HOST.as_str(), host.as_bytes(), head);
        }
        head.extend_from_slice(self.lines.as_bytes());
    }

    /// Returns all headers in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.host.iter().map(|host| (HOST, host.clone())).chain(self.lines.iter())
    }

    /// Removes the names of these headers from `fields`.
    pub(crate) fn remove_from(&self, fields: &mut Fields) {
        for (name, _) in self.iter() {
            fields.remove(&name);
        }
    }

    /// Inserts the headers into `headers`, replacing those of the same name.
    pub(crate) fn insert_into(&self, headers: &mut HeaderMap) {
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
        self.lines.insert_into(headers);
    }
}
