//! The operator's constant headers, written into what passes.
//!
//! 1. In requests, what is edited is gone in every spelling that an upstream could take for it before it is set.
//! 2. In an upstream's answer, what is set has the operator's value and no other. That comes before the session's cookie
//!    is written, whose privacy from caches no edit can undo.
//! 3. In an answer of the gateway's own, what it says of itself stays, and the rest is added: a refusal has the security
//!    headers that the page has.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::inbound::Sanitized;
use crate::config::{EditValue, HeaderEdit, HeaderEdits, Piece, Variable};
use crate::headers;

/// What values may say of a request.
#[derive(Debug)]
pub(super) struct Facts<'r> {
    client: Option<IpAddr>,
    host: &'r str,
    secure: bool,
    id: &'r HeaderValue,
}

/// Edits with the values that they have for one request.
#[derive(Debug)]
pub(super) struct Prepared<'r> {
    edits: &'r HeaderEdits,
    /// Of what is set and then of what is added, in order.
    values: SmallVec<[HeaderValue; 4]>,
}

impl<'r> Facts<'r> {
    pub(super) fn of(request: &'r Sanitized, id: &'r HeaderValue) -> Self {
        let origin = request.origin();
        Self { client: origin.client, host: request.host(), secure: origin.secure, id }
    }
}

impl<'r> Prepared<'r> {
    pub(super) fn new(edits: &'r HeaderEdits, facts: &Facts<'_>) -> Self {
        let values = edits.set.iter().chain(&edits.add).map(|edit| value(&edit.value, facts)).collect();
        Self { edits, values }
    }

    /// Edits a request's headers.
    pub(super) fn apply_to_request(&self, headers: &mut HeaderMap) {
        if self.edits.is_empty() {
            return;
        }
        let set = self.edits.set.iter().map(|edit| &edit.name);
        let edited = self.edits.remove.iter().chain(set);
        let gone: SmallVec<[HeaderName; 4]> = headers
            .keys()
            .filter(|name| edited.clone().any(|other| headers::is_alike(name.as_str(), other.as_str())))
            .cloned()
            .collect();
        for name in gone {
            headers.remove(name);
        }
        self.write(headers, |_, _| true);
    }

    /// Edits the headers of an upstream's answer.
    pub(super) fn apply_to_answer(&self, headers: &mut HeaderMap) {
        for name in &self.edits.remove {
            headers.remove(name);
        }
        self.write(headers, |_, _| true);
    }

    /// Adds to the headers of an answer of our own what it does not say already.
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

fn value(value: &EditValue, facts: &Facts<'_>) -> HeaderValue {
    match value {
        EditValue::Constant(constant) => constant.clone(),
        EditValue::Template(pieces) => {
            let text: String = pieces.iter().map(|piece| text(piece, facts)).collect();
            // Printable ASCII all of it, so it is a header's value.
            HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
        }
    }
}

fn text(piece: &Piece<Variable>, facts: &Facts<'_>) -> String {
    match piece {
        Piece::Text(text) => text.clone(),
        Piece::Variable(Variable::ClientIp) => {
            facts.client.map_or_else(|| "unknown".to_owned(), |client| client.to_string())
        }
        Piece::Variable(Variable::Host) => facts.host.to_owned(),
        Piece::Variable(Variable::Scheme) => if facts.secure { "https" } else { "http" }.to_owned(),
        Piece::Variable(Variable::RequestId) => facts.id.to_str().unwrap_or_default().to_owned(),
    }
}
