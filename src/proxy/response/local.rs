//! Local responses, of routes without an upstream: redirects and constant responses.
//!
//! The route's access rule applies as on any other route. Responses of routes that are not public are not cacheable.

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use percent_encoding::utf8_percent_encode;

use super::body::ResponseBody;
use crate::config::{Access, Destination, Piece, Redirect, RedirectVariable, Respond};
use crate::message::Response;
use crate::proxy::refusal::{Malformed, Refusal};
use crate::proxy::request::{LOCATION_UNSAFE, Sanitized, URI_COMPONENT, UpgradeChecked};

/// Returns the route's local response, or `None` if the route has an upstream.
///
/// # Errors
/// Returns a refusal if a redirect needs a host that the request does not name.
pub(in crate::proxy) fn local(checked: &UpgradeChecked) -> Result<Option<Response<ResponseBody>>, Refusal> {
    let mut response = match &checked.route().destination {
        Destination::Upstream(_) => return Ok(None),
        Destination::Redirect(redirect) => redirected(redirect, checked.request())?,
        Destination::Respond(respond) => constant(respond),
    };
    if checked.route().access != Access::Public {
        response.fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(Some(response))
}

fn redirected(redirect: &Redirect, request: &Sanitized) -> Result<Response<ResponseBody>, Refusal> {
    let location = location(&redirect.to, request.host(), request.path(), request.target().query());
    let location = location.and_then(|location| HeaderValue::from_str(&location).ok());
    let location = location.ok_or(Refusal::Malformed(Malformed::Host))?;
    let mut response = Response::new(redirect.status, ResponseBody::full(bytes::Bytes::new()));
    response.fields.insert(LOCATION, location);
    Ok(response)
}

fn constant(respond: &Respond) -> Response<ResponseBody> {
    let body = ResponseBody::full(bytes::Bytes::from(respond.body.clone()));
    let mut response = Response::new(respond.status, body);
    if !respond.body.is_empty()
        && let Ok(content_type) = HeaderValue::from_str(&respond.content_type)
    {
        response.fields.insert(CONTENT_TYPE, content_type);
    }
    response
}

/// Returns the location for a request, or `None` if `pieces` refer to the host and the request has none.
fn location(
    pieces: &[Piece<RedirectVariable>],
    host: &str,
    path: &str,
    query: Option<&str>,
) -> Option<String> {
    let mut text = String::new();
    let mut skips_ampersand = false;
    for (at, piece) in pieces.iter().enumerate() {
        match piece {
            Piece::Text(literal) if std::mem::take(&mut skips_ampersand) => {
                text.push_str(literal.strip_prefix('&').unwrap_or(literal));
            }
            Piece::Text(literal) => text.push_str(literal),
            Piece::Variable(RedirectVariable::Host) if host.is_empty() => return None,
            Piece::Variable(RedirectVariable::Host) => text.push_str(host),
            Piece::Variable(variable @ (RedirectVariable::Path | RedirectVariable::Uri)) => {
                text.extend(utf8_percent_encode(path, LOCATION_UNSAFE));
                if let Some(query) = query.filter(|_| *variable == RedirectVariable::Uri) {
                    text.push('?');
                    text.extend(utf8_percent_encode(query, LOCATION_UNSAFE));
                }
            }
            Piece::Variable(variable @ (RedirectVariable::EncodedPath | RedirectVariable::EncodedUri)) => {
                text.extend(utf8_percent_encode(path, URI_COMPONENT));
                if let Some(query) = query.filter(|_| *variable == RedirectVariable::EncodedUri) {
                    text.push_str("%3F");
                    text.extend(utf8_percent_encode(query, URI_COMPONENT));
                }
            }
            Piece::Variable(RedirectVariable::Query) => match (query, pieces.get(at + 1)) {
                (Some(query), _) => text.extend(utf8_percent_encode(query, LOCATION_UNSAFE)),
                // Without a query, one of the separators around it is removed.
                (None, Some(Piece::Text(next))) if next.starts_with('&') && text.ends_with(['?', '&']) => {
                    skips_ampersand = true;
                }
                (None, _) => text.truncate(text.trim_end_matches(['?', '&']).len()),
            },
        }
    }
    Some(text)
}
