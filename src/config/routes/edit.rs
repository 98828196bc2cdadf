//! `[routes.request_headers]` and `[routes.response_headers]`: headers of constant text that are set, added and removed.
//!
//! 1. No name that HTTP or the gateway itself gives a meaning, in either direction: framing, hop-by-hop, cookies, the
//!    way of the request, `X-Session-*`, and what `[routes.headers]` injects.
//! 2. A value is text of the operator's and a few variables that cannot end a header: an address, a host, a scheme, an id.
//! 3. What could not be told from its contrary is an error: a name that is set and removed, or set twice.

use http::{HeaderName, HeaderValue};

use super::headers::{self, HeaderRule};
use super::template::{self, Piece};
use crate::config::diagnostic::Diagnostic;
use crate::config::section::Section;
use crate::config::value::{Fault, listed, text};

/// What is done to the headers of one direction, in this order: removed, set, added.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// These go.
    pub remove: Vec<HeaderName>,
    /// These have this value and no other.
    pub set: Vec<HeaderEdit>,
    /// These have this value beside those that they have.
    pub add: Vec<HeaderEdit>,
}

/// A header that is written.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderEdit {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: EditValue,
}

/// A header's value.
#[derive(Clone, Debug, PartialEq)]
pub enum EditValue {
    /// The same for every request.
    Constant(HeaderValue),
    /// Made for each one. All of the text is printable ASCII.
    Template(Vec<Piece<Variable>>),
}

/// What a value may say of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `{client_ip}`
    ClientIp,
    /// `{host}`: the host that the client asked for, without port.
    Host,
    /// `{scheme}`: `http` or `https`, as the client used it.
    Scheme,
    /// `{request_id}`
    RequestId,
}

/// Which headers are edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl HeaderEdits {
    /// Whether nothing is done.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// Reads `[routes.request_headers]` of the route `name`, which injects `injected`.
pub(super) fn request(section: &mut Section<'_, '_>, name: &str, injected: &[HeaderRule]) -> HeaderEdits {
    let edits = section.table("request_headers", |section| read(section, Direction::Request, name));
    let named = edits.set.iter().map(|edit| &edit.name).chain(&edits.remove);
    for name in named.filter(|name| injected.iter().any(|rule| rule.name == **name)) {
        let fault = Fault::new(format!("edits `{name}`, which `headers` sets or removes on every request"));
        section.refuse("request_headers", &[], fault);
    }
    edits
}

/// Reads `allow_overrides` of a route that edits headers as `edits` says.
pub(super) fn overrides(section: &mut Section<'_, '_>, edits: &HeaderEdits) -> Vec<HeaderName> {
    let allowed = section.list("allow_overrides", text(override_name)).unwrap_or_default();
    if let Some(name) = edits.remove.iter().find(|name| allowed.contains(name)) {
        let fault = Fault::new(format!("holds `{name}`, which `request_headers` removes"));
        section.refuse("allow_overrides", &["request_headers/remove"], fault);
    }
    allowed
}

fn override_name(text: &str) -> Result<HeaderName, Fault> {
    let name = headers::plain(text)?;
    if crate::headers::is_override(name.as_str()) {
        return Ok(name);
    }
    let fault = Fault::new(format!("names `{text}`, which is not among the headers that it lets through"));
    Err(fault.hint(format!("these are {}", listed(&crate::headers::OVERRIDES))))
}

/// Reads `[routes.response_headers]` of the route `name`.
pub(super) fn response(section: &mut Section<'_, '_>, name: &str) -> HeaderEdits {
    section.table("response_headers", |section| read(section, Direction::Response, name))
}

fn read(section: &mut Section<'_, '_>, direction: Direction, route: &str) -> HeaderEdits {
    let set = section.table("set", |section| values(section, direction, route));
    let add = match direction {
        Direction::Request => Vec::new(),
        Direction::Response => section.table("add", |section| values(section, direction, route)),
    };
    let remove = section.list("remove", text(|text| name(text, direction))).unwrap_or_default();
    let is_set = |name: &HeaderName| set.iter().any(|edit| edit.name == *name);
    let twice = |name: &&HeaderName| is_set(name) || add.iter().any(|edit| edit.name == **name);
    if let Some(name) = remove.iter().find(twice) {
        let fault = Fault::new(format!("holds `{name}`, which is written here too"));
        section.refuse("remove", &[], fault.hint("what is set replaces what was there"));
    }
    if let Some(edit) = add.iter().find(|edit| is_set(&edit.name)) {
        let fault = Fault::new(format!("holds `{}`, which is set here too", edit.name));
        section.refuse("add", &[], fault);
    }
    HeaderEdits { remove, set, add }
}

fn values(section: &mut Section<'_, '_>, direction: Direction, route: &str) -> Vec<HeaderEdit> {
    let mut seen: Vec<(HeaderName, std::ops::Range<usize>)> = Vec::new();
    section.entries(|section, entry| {
        let read = name(entry.name, direction).map_err(|fault| (entry.span.clone(), fault));
        let read = read.and_then(|name| {
            let value = text(|text| value(text, route))(entry.value.get_ref());
            Ok(HeaderEdit { name, value: value.map_err(|fault| (entry.value.span(), fault))? })
        });
        match read {
            Ok(edit) => {
                if let Some((_, first)) = seen.iter().find(|(name, _)| *name == edit.name) {
                    let twice = format!("`{}` is the name of two headers", section.name(entry.name));
                    let twice = Diagnostic::error(twice).related(first.clone(), "the first");
                    section.report(twice, Some(entry.span.clone()));
                }
                seen.push((edit.name.clone(), entry.span));
                Some(edit)
            }
            Err((span, fault)) => {
                section.refuse_at(entry.name, span, fault);
                None
            }
        }
    })
}

fn name(text: &str, direction: Direction) -> Result<HeaderName, Fault> {
    let name = headers::plain(text)?;
    let is_reserved = match direction {
        Direction::Request => headers::is_reserved(&name),
        Direction::Response => is_reserved(&name),
    };
    if !is_reserved {
        return Ok(name);
    }
    let hint = match (direction, name.as_str()) {
        (Direction::Request, "host") => "`upstream_host` says which Host the upstream gets",
        (Direction::Request, "cookie") => "`forward_cookie` of a realm says whether upstreams see its cookie",
        (Direction::Request, "forwarded" | "via") => {
            "it tells the way of the request, and is always written anew"
        }
        (Direction::Request, name) if name.starts_with("x-forwarded-") => {
            "it tells the way of the request, and is always written anew"
        }
        (Direction::Response, "location") => {
            "`redirect` answers with one, `rewrite_location` changes the upstream's"
        }
        (Direction::Response, "set-cookie") => {
            "`[sessions.NAME.cookie]` says what the session's cookie is like"
        }
        (Direction::Request | Direction::Response, _) => "it is not a route's to change",
    };
    Err(Fault::new(format!("names `{text}`, which HTTP or sessiongate itself uses")).hint(hint))
}

/// Whether a response's header frames it, concerns one connection, or says what only the one who answers can know.
fn is_reserved(name: &HeaderName) -> bool {
    let name_text = name.as_str();
    crate::headers::is_hop_by_hop(name)
        || crate::headers::is_control(name)
        || ["grpc-", "sec-websocket-"].iter().any(|prefix| name_text.starts_with(prefix))
        || matches!(
            name_text,
            "allow"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "date"
                | "location"
                | "set-cookie"
                | "www-authenticate"
                | "x-request-id"
        )
}

fn value(text: &str, route: &str) -> Result<EditValue, Fault> {
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(Fault::new(format!("must not hold `{}`", c.escape_debug())));
    }
    if text.trim_matches(' ').len() < text.len() {
        return Err(
            Fault::new("must not begin or end with a space").hint("no reader of a header would see it")
        );
    }
    let pieces = template::parse(text, |name| match name {
        "client_ip" => Ok(Some(Variable::ClientIp)),
        "host" => Ok(Some(Variable::Host)),
        "scheme" => Ok(Some(Variable::Scheme)),
        "request_id" => Ok(Some(Variable::RequestId)),
        "route" => Ok(None),
        _ => {
            let fault = Fault::new(format!("knows no `{{{name}}}`"));
            Err(fault
                .hint("there are {client_ip}, {host}, {scheme}, {request_id} and {route}; `{{` is a brace"))
        }
    })?;
    let mut joined: Vec<Piece<Variable>> = Vec::new();
    for piece in pieces {
        // A route's name is known by now, so it is text.
        let piece = match piece {
            Piece::Text(text) => Piece::Text(text),
            Piece::Variable(None) => Piece::Text(route.to_owned()),
            Piece::Variable(Some(variable)) => Piece::Variable(variable),
        };
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
            (_, piece) => joined.push(piece),
        }
    }
    match joined.as_slice() {
        [Piece::Text(text)] => {
            let constant = HeaderValue::from_str(text).map_err(|_| Fault::new("is not a header's value"))?;
            Ok(EditValue::Constant(constant))
        }
        _ => Ok(EditValue::Template(joined)),
    }
}
