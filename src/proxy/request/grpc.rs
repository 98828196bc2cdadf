//! Detection of gRPC calls.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};

/// Returns whether a request is a gRPC call. gRPC-Web does not count: its clients read the HTTP status.
pub(in crate::proxy) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    let is_grpc = |value: &HeaderValue| {
        let rest = value.as_bytes().strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    *method == Method::POST && headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_content_type_identify_a_grpc_call() {
        for (method, content_type, expected) in [
            (Method::POST, "application/grpc", true),
            (Method::POST, "application/grpc+proto", true),
            (Method::POST, "application/grpc; x", true),
            (Method::POST, "application/grpc-web", false),
            (Method::POST, "application/json", false),
            (Method::GET, "application/grpc", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(is_call(&method, &headers), expected, "{method} {content_type}");
        }
    }
}
