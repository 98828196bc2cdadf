//! A route's edits of request and response headers.
//!
//! 1. In requests, an edited header is removed in every spelling that an upstream could take for it, and then set.
//! 2. In an upstream's response, a header that is set has the configured value and no other. Edits are made before the
//!    session cookie is written, so that none can undo its privacy from caches.
//! 3. In a response of the gateway's own, the headers that it already has stay, and the rest is added: a refusal has the
//!    security headers that a page of the app has.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::request::Sanitized;
use crate::config::{EditValue, HeaderEdit, HeaderEdits, Piece, Variable};
use crate::headers;

/// The variables that the values of edits can refer to.
#[derive(Debug)]
pub(super) struct EditVariables<'r> {
    client: Option<IpAddr>,
    host: &'r str,
    secure: bool,
    id: &'r HeaderValue,
}

/// Edits with the values that they have for one request.
#[derive(Debug)]
pub(super) struct PreparedEdits<'r> {
    edits: &'r HeaderEdits,
    /// The values of the headers that are set, then of those that are added, in order.
    values: SmallVec<[HeaderValue; 4]>,
}

impl<'r> EditVariables<'r> {
    pub(super) fn from_request(request: &'r Sanitized, id: &'r HeaderValue) -> Self {
        let origin = request.origin();
        Self { client: origin.client, host: request.host(), secure: origin.secure, id }
    }
}

impl<'r> PreparedEdits<'r> {
    /// Returns no edits.
    pub(super) fn none() -> Self {
        static NONE: HeaderEdits = HeaderEdits { set: Vec::new(), add: Vec::new(), remove: Vec::new() };
        Self { edits: &NONE, values: SmallVec::new() }
    }

    pub(super) fn new(edits: &'r HeaderEdits, variables: &EditVariables<'_>) -> Self {
        let values = edits.set.iter().chain(&edits.add).map(|edit| value(&edit.value, variables)).collect();
        Self { edits, values }
    }

    /// Edits the headers of a request.
    pub(super) fn apply_to_request(&self, headers: &mut HeaderMap) {
        if self.edits.is_empty() {
            return;
        }
        let set = self.edits.set.iter().map(|edit| &edit.name);
        let edited = self.edits.remove.iter().chain(set);
        let gone: SmallVec<[HeaderName; 4]> = headers
            .keys()
            .filter(|name| edited.clone().any(|other| headers::fold_alike(name.as_str(), other.as_str())))
            .cloned()
            .collect();
        for name in gone {
            headers.remove(name);
        }
        self.write(headers, |_, _| true);
    }

    /// Edits the headers of an upstream's response.
    pub(super) fn apply_to_response(&self, headers: &mut HeaderMap) {
        for name in &self.edits.remove {
            headers.remove(name);
        }
        self.write(headers, |_, _| true);
    }

    /// Adds the headers to a response of the gateway's own that it does not have already.
    pub(super) fn complete(&self, headers: &mut HeaderMap) {
        self.write(headers, |headers, name| !headers.contains_key(name));
    }

    fn write(&self, headers: &mut HeaderMap, may: impl Fn(&HeaderMap, &HeaderName) -> bool) {
        let mut values = self.values.iter();
        for (HeaderEdit { name, .. }, value) in self.edits.set.iter().zip(values.by_ref()) {
            if may(headers, name) {
                headers.insert(name.clone(), value.clone());
            }
        }
        for (HeaderEdit { name, .. }, value) in self.edits.add.iter().zip(values) {
            if may(headers, name) {
                headers.append(name.clone(), value.clone());
            }
        }
    }
}

fn value(value: &EditValue, variables: &EditVariables<'_>) -> HeaderValue {
    match value {
        EditValue::Constant(constant) => constant.clone(),
        EditValue::Template(pieces) => {
            let text: String = pieces.iter().map(|piece| text(piece, variables)).collect();
            // All of it is printable ASCII, which a header value can carry.
            HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
        }
    }
}

fn text(piece: &Piece<Variable>, variables: &EditVariables<'_>) -> String {
    match piece {
        Piece::Text(text) => text.clone(),
        Piece::Variable(Variable::ClientIp) => {
            variables.client.map_or_else(|| "unknown".to_owned(), |client| client.to_string())
        }
        Piece::Variable(Variable::Host) => variables.host.to_owned(),
        Piece::Variable(Variable::Scheme) => if variables.secure { "https" } else { "http" }.to_owned(),
        Piece::Variable(Variable::RequestId) => variables.id.to_str().unwrap_or_default().to_owned(),
    }
}
