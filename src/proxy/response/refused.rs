//! Responses to requests that the gateway refuses.
//!
//! The body has a constant title and the request id.

use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{Method, StatusCode};
use smallvec::SmallVec;

use super::body::ResponseBody;
use super::grpc;
use crate::fields::Fields;
use crate::message::Response;
use crate::proxy::refusal::{Challenge, Refusal};
use crate::proxy::request::{is_grpc_call, prefers_html};

/// The format of a refusal's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorFormat {
    /// `application/problem+json` (RFC 9457).
    Problem,
    /// A small HTML page.
    Page,
    /// A gRPC Trailers-Only response.
    Grpc,
}

/// The formats that a client accepts for the body of a refusal. The format is chosen only if the request is refused.
#[derive(Debug, Default)]
pub(in crate::proxy) struct AcceptedErrors {
    is_grpc: bool,
    /// The Accept lines.
    accept: SmallVec<[Bytes; 1]>,
}

impl AcceptedErrors {
    /// Returns the formats that a request with this method and these headers accepts.
    pub(in crate::proxy) fn from_request(method: &Method, fields: &Fields) -> Self {
        let accept = fields.get_all_shared(&ACCEPT).collect();
        Self { is_grpc: is_grpc_call(method, fields), accept }
    }

    fn format(&self) -> ErrorFormat {
        if self.is_grpc {
            ErrorFormat::Grpc
        } else if prefers_html(self.accept.iter().map(|line| &**line)) {
            ErrorFormat::Page
        } else {
            ErrorFormat::Problem
        }
    }
}

/// Returns the response to the refused request `id`, in a format that the client accepts.
pub(in crate::proxy) fn refuse(
    refusal: Refusal,
    id: &HeaderValue,
    accepted: &AcceptedErrors,
) -> Response<ResponseBody> {
    let closes = closes_connection(&refusal);
    let mut response = respond(refusal, id, accepted.format());
    if closes {
        response.fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Returns whether the connection is closed after the response. After an ambiguous head or an unread body, the next bytes
/// may not be a request.
fn closes_connection(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Malformed(_) | Refusal::BodyTooLarge | Refusal::BodyTimeout | Refusal::Internal
    )
}

fn respond(refusal: Refusal, id: &HeaderValue, format: ErrorFormat) -> Response<ResponseBody> {
    if format == ErrorFormat::Grpc {
        return grpc::refuse(refusal.status(), refusal.title());
    }
    let status = refusal.status();
    let (content_type, body) = body(&refusal, status, id.to_str().unwrap_or_default(), format);
    let mut response = Response::new(status, ResponseBody::full(body));
    let fields = &mut response.fields;
    fields.insert(CONTENT_TYPE, content_type);
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match refusal {
        Refusal::Method(allowed) => {
            let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
            if let Ok(allowed) = HeaderValue::from_str(&allowed.join(", ")) {
                fields.insert(ALLOW, allowed);
            }
        }
        Refusal::Unauthenticated(Challenge { realm, cookie }) => {
            let challenge = format!("Cookie realm=\"{realm}\", cookie-name=\"{cookie}\"");
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                fields.insert(WWW_AUTHENTICATE, challenge);
            }
        }
        Refusal::TooMany(wait) => {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            fields.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        Refusal::Login(location) | Refusal::Https(_, location) | Refusal::Merged(location) => {
            fields.insert(LOCATION, location);
        }
        Refusal::StoreUnavailable | Refusal::NoServer | Refusal::Busy => {
            fields.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Refusal::Malformed(_)
        | Refusal::Ambiguous(_)
        | Refusal::Misdirected
        | Refusal::NotFound
        | Refusal::UriTooLong
        | Refusal::TooManyHeaders
        | Refusal::Expectation
        | Refusal::Forbidden
        | Refusal::CrossSite
        | Refusal::Conflict
        | Refusal::Unwritable
        | Refusal::BodyTooLarge
        | Refusal::BodyTimeout
        | Refusal::Unreachable
        | Refusal::BadResponse
        | Refusal::Timeout
        | Refusal::MappingTooLarge
        | Refusal::Internal => {}
    }
    response
}

fn body(refusal: &Refusal, status: StatusCode, id: &str, format: ErrorFormat) -> (HeaderValue, Bytes) {
    let title = refusal.title();
    match format {
        ErrorFormat::Problem | ErrorFormat::Grpc => {
            let problem = serde_json::json!({
                "type": "about:blank",
                "title": title,
                "status": status.as_u16(),
                "instance": id,
            });
            (HeaderValue::from_static("application/problem+json"), Bytes::from(problem.to_string()))
        }
        // A request id has only letters, digits and `-_.`, so it needs no escaping.
        ErrorFormat::Page => {
            let page = format!(
                "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
                 <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
                 <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}}\
                 small{{opacity:.6}}</style><h1>{title}</h1><p><small>{} · {id}</small></p></html>\n",
                status.as_u16(),
            );
            (HeaderValue::from_static("text/html; charset=utf-8"), Bytes::from(page))
        }
    }
}
