//! `[routes.request_headers]` and `[routes.response_headers]`: headers that are set, added and removed.
//!
//! 1. Names that HTTP or the gateway uses are rejected. In both directions these are framing, hop-by-hop, cookies and
//!    `X-Session-*`; in requests also forwarding information and the headers that `[routes.headers]` injects; in
//!    responses also headers that depend on the individual response.
//! 2. A value consists of literal text and variables that cannot contain a line break: an address, a host, a scheme, an
//!    id.
//! 3. Contradictions are errors: a name that is set and removed, or set twice.

use http::{HeaderName, HeaderValue};

use super::headers::{self, HeaderRule};
use super::template::{self, Piece};
use crate::config::diagnostic::Diagnostic;
use crate::config::section::Section;
use crate::config::value::{Fault, listed, text};
use crate::headers::TRACEPARENT;

/// Edits of the headers of one direction, applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderEdits {
    /// Headers that are removed.
    pub remove: Vec<HeaderName>,
    /// Headers that are set, replacing other values.
    pub set: Vec<HeaderEdit>,
    /// Headers that are added after existing ones of the same name.
    pub add: Vec<HeaderEdit>,
}

/// A header that is set or added.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderEdit {
    /// The header's name.
    pub name: HeaderName,
    /// The header's value.
    pub value: EditValue,
}

/// The value of an edited header.
#[derive(Clone, Debug, PartialEq)]
pub enum EditValue {
    /// A constant.
    Constant(HeaderValue),
    /// A template, filled in for each request. Its literal text is printable ASCII.
    Template(Vec<Piece<Variable>>),
}

/// A variable of a header template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `{client_ip}`
    ClientIp,
    /// `{host}`: the request's host, without port.
    Host,
    /// `{scheme}`: the scheme that the client used, `http` or `https`.
    Scheme,
    /// `{request_id}`
    RequestId,
}

/// The direction of the edited headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl HeaderEdits {
    /// Returns whether there are no edits.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// Reads `[routes.request_headers]` of the route `name` that injects the headers `injected`.
pub(super) fn request(section: &mut Section<'_, '_>, name: &str, injected: &[HeaderRule]) -> HeaderEdits {
    let edits = section.table("request_headers", |section| read(section, Direction::Request, name));
    let named = edits.set.iter().map(|edit| &edit.name).chain(&edits.remove);
    for name in named.filter(|name| injected.iter().any(|rule| rule.name == **name)) {
        let fault = Fault::new(format!("edits `{name}`, which `headers` sets or removes on every request"));
        section.refuse("request_headers", &[], fault);
    }
    edits
}

/// Reads `allow_overrides` of the route with the request header edits `edits`.
pub(super) fn overrides(section: &mut Section<'_, '_>, edits: &HeaderEdits) -> Vec<HeaderName> {
    let allowed = section.list("allow_overrides", text(override_name)).unwrap_or_default();
    if let Some(name) = edits.remove.iter().find(|name| allowed.contains(name)) {
        let fault = Fault::new(format!("contains `{name}`, which `request_headers` removes"));
        section.refuse("allow_overrides", &["request_headers/remove"], fault);
    }
    allowed
}

fn override_name(text: &str) -> Result<HeaderName, Fault> {
    let name = headers::plain(text)?;
    if crate::headers::is_override(name.as_str()) {
        return Ok(name);
    }
    let fault = Fault::new(format!("contains `{text}`, which is not one of the override headers"));
    Err(fault.hint(format!("override headers: {}", listed(&crate::headers::OVERRIDES))))
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
        let fault = Fault::new(format!("contains `{name}`, which is also set or added"));
        section.refuse("remove", &[], fault.hint("`set` already replaces existing values"));
    }
    if let Some(edit) = add.iter().find(|edit| is_set(&edit.name)) {
        let fault = Fault::new(format!("contains `{}`, which is also set", edit.name));
        section.refuse("add", &[], fault);
    }
    HeaderEdits { remove, set, add }
}

fn values(section: &mut Section<'_, '_>, direction: Direction, route: &str) -> Vec<HeaderEdit> {
    let mut seen: Vec<(HeaderName, std::ops::Range<usize>)> = Vec::new();
    section.entries(|section, entry| {
        let read = name(entry.name, direction).and_then(|name| match direction {
            Direction::Request if name == TRACEPARENT => {
                let fault = Fault::new("contains `traceparent`, which only the gateway sets");
                Err(fault.hint("`server.traces` controls it; `remove` may contain it"))
            }
            Direction::Request | Direction::Response => Ok(name),
        });
        let read = read.map_err(|fault| (entry.span.clone(), fault));
        let read = read.and_then(|name| {
            let value = text(|text| value(text, direction, route))(entry.value.get_ref());
            Ok(HeaderEdit { name, value: value.map_err(|fault| (entry.value.span(), fault))? })
        });
        match read {
            Ok(edit) => {
                if let Some((_, first)) = seen.iter().find(|(name, _)| *name == edit.name) {
                    let twice = format!("`{}` is set twice", section.name(entry.name));
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
        (Direction::Request, "host") => "use `upstream_host` to change the Host for the upstream",
        (Direction::Request, "cookie") => "use a realm's `forward_cookie` to control its cookie",
        (Direction::Request, "forwarded" | "via") => "the gateway always sets it",
        (Direction::Request, name) if name.starts_with("x-forwarded-") => {
            "only the gateway and trusted proxies set it"
        }
        (Direction::Response, "location") => {
            "use `redirect`, or `rewrite_location` for the upstream's Location"
        }
        (Direction::Response, "set-cookie") => "use `[sessions.NAME.cookie]` for the session cookie",
        (Direction::Request | Direction::Response, _) => "routes cannot edit it",
    };
    Err(Fault::new(format!("contains `{text}`, which HTTP or sessiongate itself uses")).hint(hint))
}

/// Returns whether a response header is used for framing, is hop-by-hop, or depends on the individual response.
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

fn value(text: &str, direction: Direction, route: &str) -> Result<EditValue, Fault> {
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(Fault::new(format!("must not contain `{}`", c.escape_debug())));
    }
    if text.trim_matches(' ').len() < text.len() {
        return Err(
            Fault::new("must not begin or end with a space").hint("recipients strip it from a header value")
        );
    }
    let pieces = template::parse(text, |name| match name {
        "client_ip" => Ok(Some(Variable::ClientIp)),
        "host" => Ok(Some(Variable::Host)),
        "scheme" => Ok(Some(Variable::Scheme)),
        "request_id" => Ok(Some(Variable::RequestId)),
        "route" => Ok(None),
        _ => {
            let fault = match direction {
                // Credentials for the upstream may contain braces, and the message is logged.
                Direction::Request => Fault::new("contains an unknown variable"),
                Direction::Response => Fault::new(format!("contains the unknown variable `{{{name}}}`")),
            };
            Err(fault.hint(
                "known variables: {client_ip}, {host}, {scheme}, {request_id} and {route}; `{{` is a literal brace",
            ))
        }
    })?;
    let mut joined: Vec<Piece<Variable>> = Vec::new();
    for piece in pieces {
        // `{route}` is constant, so it becomes literal text.
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
            let constant =
                HeaderValue::from_str(text).map_err(|_| Fault::new("is not a valid header value"))?;
            Ok(EditValue::Constant(constant))
        }
        _ => Ok(EditValue::Template(joined)),
    }
}
