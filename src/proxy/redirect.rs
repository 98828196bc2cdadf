//! Answers of routes that have no upstream: redirects, and constant ones.
//!
//! The route's rule has been applied by now, as for any other request. An answer that not everybody gets is kept out of
//! caches.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Response};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::admit::{Admitted, URI_COMPONENT};
use super::body::ResponseBody;
use super::inbound::Sanitized;
use super::refusal::{Malformed, Refusal};
use crate::config::{Access, Destination, Piece, Place, Redirect, Respond};

/// What a target may hold and a Location may not: what is not ASCII, and what ends a quoted attribute.
const LOCATION_UNSAFE: &AsciiSet = &CONTROLS.add(b'"').add(b'<').add(b'>').add(b'\\');

/// The route's own answer; none if it has an upstream.
///
/// # Errors
/// If it needs a host that the request does not name.
pub(super) fn answer(admitted: &Admitted) -> Result<Option<Response<ResponseBody>>, Refusal> {
    let mut response = match &admitted.route.destination {
        Destination::Upstream(_) => return Ok(None),
        Destination::Redirect(redirect) => redirected(redirect, &admitted.request)?,
        Destination::Respond(respond) => constant(respond),
    };
    if admitted.route.access != Access::Public {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(Some(response))
}

fn redirected(redirect: &Redirect, request: &Sanitized) -> Result<Response<ResponseBody>, Refusal> {
    let location = location(&redirect.to, request.host(), request.path(), request.target().query());
    let location = location.and_then(|location| HeaderValue::from_str(&location).ok());
    let location = location.ok_or(Refusal::Malformed(Malformed::Host))?;
    let mut response = Response::new(ResponseBody::full(bytes::Bytes::new()));
    *response.status_mut() = redirect.status;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

fn constant(respond: &Respond) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::full(bytes::Bytes::from(respond.body.clone())));
    *response.status_mut() = respond.status;
    if !respond.body.is_empty()
        && let Ok(content_type) = HeaderValue::from_str(&respond.content_type)
    {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// The location that `pieces` make of a request; none if it is to name the host and there is none.
fn location(pieces: &[Piece<Place>], host: &str, path: &str, query: Option<&str>) -> Option<String> {
    let mut text = String::new();
    for piece in pieces {
        match piece {
            Piece::Text(literal) => text.push_str(literal),
            Piece::Variable(Place::Host) if host.is_empty() => return None,
            Piece::Variable(Place::Host) => text.push_str(host),
            Piece::Variable(place @ (Place::Path | Place::Uri)) => {
                text.extend(utf8_percent_encode(path, LOCATION_UNSAFE));
                if let Some(query) = query.filter(|_| *place == Place::Uri) {
                    text.push('?');
                    text.extend(utf8_percent_encode(query, LOCATION_UNSAFE));
                }
            }
            Piece::Variable(place @ (Place::EncodedPath | Place::EncodedUri)) => {
                text.extend(utf8_percent_encode(path, URI_COMPONENT));
                if let Some(query) = query.filter(|_| *place == Place::EncodedUri) {
                    text.push_str("%3F");
                    text.extend(utf8_percent_encode(query, URI_COMPONENT));
                }
            }
            Piece::Variable(Place::Query) => match query {
                Some(query) => text.extend(utf8_percent_encode(query, LOCATION_UNSAFE)),
                // What would have led to it leads to nothing.
                None => text.truncate(text.trim_end_matches(['?', '&']).len()),
            },
        }
    }
    Some(text)
}
