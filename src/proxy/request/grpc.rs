//! Detection of gRPC calls.

use http::Method;
use http::header::CONTENT_TYPE;

use crate::fields::Fields;

/// Returns whether a request is a gRPC call. gRPC-Web does not count: its clients read the HTTP status.
pub(in crate::proxy) fn is_call(method: &Method, fields: &Fields) -> bool {
    let is_grpc = |value: &[u8]| {
        let rest = value.strip_prefix(b"application/grpc");
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    };
    *method == Method::POST && fields.get(&CONTENT_TYPE).is_some_and(is_grpc)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

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
            let fields = Fields::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(is_call(&method, &fields), expected, "{method} {content_type}");
        }
    }
}
