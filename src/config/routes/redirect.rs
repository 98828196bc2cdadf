//! `redirect` and `respond`: routes whose responses the gateway generates.
//!
//! A redirect cannot become an open redirect: the host of its location is constant, or the request's own host, and no
//! other part of the request can change it.

use http::StatusCode;

use super::rewrite::authority;
use super::template::{self, Piece};
use crate::config::section::Section;
use crate::config::value::{Fault, integer, string, text};

/// `redirect = "https://new.example.com{uri}"`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The status: 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// The location. Its literal text is printable ASCII without spaces.
    pub to: Vec<Piece<RedirectVariable>>,
}

/// A part of the request in a redirect's location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectVariable {
    /// `{uri}`: path and query, with only the characters that are unsafe in a Location percent-encoded.
    Uri,
    /// `{path}`
    Path,
    /// `{uri}` after a `?` or `#`: percent-encoded.
    EncodedUri,
    /// `{path}` after a `?` or `#`: percent-encoded.
    EncodedPath,
    /// `{query}`, which is only allowed after a `?` or `#`.
    Query,
    /// `{host}`: lower case, without port.
    Host,
}

/// `respond = { status = 503, body = "…" }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// The status: 200 to 599, but not a redirect.
    pub status: StatusCode,
    /// The body. Empty for 204, 205 and 304.
    pub body: String,
    /// The Content-Type of the body.
    pub content_type: String,
}

pub(super) fn redirect(section: &mut Section<'_, '_>) -> Option<Redirect> {
    let permanent = StatusCode::PERMANENT_REDIRECT;
    section.text_or_table(
        "redirect",
        |text| Ok(Redirect { status: permanent, to: location(text)? }),
        |section| {
            let to = section.require("to", text(location));
            let status = section.get("status", |value| {
                let statuses = [301, 302, 303, 307, 308].map(|code| (code, StatusCode::from_u16(code).ok()));
                let code = integer(300..=399)(value).unwrap_or_default();
                let status = statuses.into_iter().find(|(known, _)| *known == code);
                status
                    .and_then(|(_, status)| status)
                    .ok_or_else(|| Fault::new("must be 301, 302, 303, 307 or 308"))
            });
            Some(Redirect { status: status.unwrap_or(permanent), to: to? })
        },
    )
}

pub(super) fn respond(section: &mut Section<'_, '_>) -> Option<Respond> {
    section.table("respond", |section| {
        let status = section.get("status", |value| {
            let code: u16 = integer(200..=599)(value)?;
            StatusCode::from_u16(code).map_err(|_| Fault::new("is not a valid status"))
        });
        let body = section.get("body", |value| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => string(value),
        });
        let content_type = section.get("content_type", text(content_type));
        let status = status.unwrap_or(StatusCode::OK);
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
            && section.has("body")
        {
            let fault = Fault::new(format!("is not allowed with status {}", status.as_u16()));
            section.refuse("body", &[], fault);
        }
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let fault = Fault::new("must not be a redirect").hint("use `redirect`, which sends a Location");
            section.refuse("status", &[], fault);
        }
        if section.has("content_type") && !section.has("body") {
            let fault = Fault::new("has no effect without `body`");
            section.refuse("content_type", &["body"], fault);
        }
        section.is_present().then(|| Respond {
            status,
            body: body.unwrap_or_default(),
            content_type: content_type.unwrap_or_else(|| "text/plain; charset=utf-8".to_owned()),
        })
    })
}

fn content_type(text: &str) -> Result<String, Fault> {
    let has_type =
        text.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty());
    if has_type && text.chars().all(|c| matches!(c, ' '..='~')) && !text.ends_with(' ') {
        return Ok(text.to_owned());
    }
    Err(Fault::new("is not a valid media type").hint("for example \"text/html; charset=utf-8\""))
}

fn location(text: &str) -> Result<Vec<Piece<RedirectVariable>>, Fault> {
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '\\' | '"' | '<' | '>')) {
        return Err(Fault::new(format!("must not contain `{}`", c.escape_debug())).hint("percent-encode it"));
    }
    match text.split_once("://") {
        Some(("http" | "https", rest)) => host(rest)?,
        Some(_) | None if text.starts_with('/') && !text.starts_with("//") => {}
        Some(_) | None => {
            let fault = Fault::new("must begin with `https://`, `http://` or a single `/`");
            return Err(fault.hint("for example \"https://new.example.com{uri}\""));
        }
    }
    let mut pieces = template::parse(text, |name| match name {
        "uri" => Ok(RedirectVariable::Uri),
        "path" => Ok(RedirectVariable::Path),
        "query" => Ok(RedirectVariable::Query),
        "host" => Ok(RedirectVariable::Host),
        _ => {
            let fault = Fault::new(format!("contains the unknown variable `{{{name}}}`"));
            Err(fault.hint("known variables: {uri}, {path}, {query} and {host}"))
        }
    })?;
    // The text before a piece. The location's host can contain no variable but `{host}`, which `host` has checked.
    let mut before = String::new();
    for piece in &mut pieces {
        let in_query = before.contains(['?', '#']);
        match piece {
            Piece::Text(text) => before.push_str(text),
            Piece::Variable(RedirectVariable::Host) => before.push_str("{host}"),
            Piece::Variable(RedirectVariable::Query) if !in_query => {
                let fault = Fault::new("must have `{query}` after a `?`");
                return Err(fault.hint("`{uri}` is the path and its query"));
            }
            Piece::Variable(RedirectVariable::Query) => before.push('q'),
            // After a `/`, the first segment of the path would become a host.
            Piece::Variable(RedirectVariable::Uri | RedirectVariable::Path)
                if !in_query && before.ends_with('/') =>
            {
                return Err(Fault::new(
                    "must not have a `/` before `{uri}` or `{path}`, which begin with one",
                ));
            }
            Piece::Variable(variable) => {
                if in_query {
                    *variable = if *variable == RedirectVariable::Uri {
                        RedirectVariable::EncodedUri
                    } else {
                        RedirectVariable::EncodedPath
                    };
                }
                before.push_str("/p");
            }
        }
    }
    Ok(pieces)
}

/// Checks the text after `://`: it must begin with a host, whose only variable may be `{host}`.
fn host(rest: &str) -> Result<(), Fault> {
    let ends = [rest.find(['/', '?', '#']), rest.find("{uri}"), rest.find("{path}")];
    let end = ends.into_iter().flatten().min().unwrap_or(rest.len());
    let host = rest.get(..end).unwrap_or(rest);
    if host.contains("{query}") {
        return Err(Fault::new("must not contain `{query}` in its host"));
    }
    authority(&host.replace("{host}", "host.example")).map(drop)
}
