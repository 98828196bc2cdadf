//! Checks that each vector of `tests/fixtures/session-vectors.json`, which has rows and cookies that real frameworks wrote,
//! is used by a format's tests, or that the README says why its framework is not supported.
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Unsupported frameworks: the prefix of their vectors' ids, and their names in the README.
const NOT_SUPPORTED: [(&str, &str); 13] = [
    ("flask-dynamodb-sessions-", "flask-dynamodb-sessions"),
    ("php-", "PHP"),
    ("laravel-", "Laravel"),
    ("ruby-v2_marshal", "Marshal"),
    ("go-dynastore-", "gorilla"),
    ("gorilla-securecookie-", "gorilla"),
    ("tower-sessions-", "tower-sessions"),
    ("authjs-", "Auth.js"),
    ("shopify-", "Shopify"),
    ("remix-", "Remix"),
    ("architect-", "Architect"),
    ("aspnetcore-", "ASP.NET Core"),
    ("aspnet-", "ASP.NET"),
];

#[test]
fn every_vector_is_tested_or_documented_as_unsupported() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let all: Value = serde_json::from_str(&read("tests/fixtures/session-vectors.json")).unwrap();
    let by_name =
        ["src/format/layout/tests.rs", "src/format/layout/tests/hostile.rs", "src/format/pyramid/tests.rs"];
    let by_name = by_name.map(read).concat();
    // Django's tests run all of its vectors, and count them.
    assert!(read("src/format/django/tests.rs").contains("\"django-"));
    let readme = read("README.md");
    let (_, table) = readme.split_once("| not supported | why |").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let vectors = all["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 64);
    for vector in vectors {
        let id = vector["id"].as_str().unwrap();
        let is_named = by_name.contains(&format!("\"{id}\""));
        let is_django = id.starts_with("django-") && !id.starts_with("django-dysession");
        let unsupported = NOT_SUPPORTED.iter().find(|(prefix, _)| id.starts_with(prefix));
        match unsupported {
            Some((_, name)) => {
                assert!(!is_named && !is_django, "`{id}` is tested, so its framework is supported");
                assert!(table.contains(name), "the README does not say why `{id}` is not supported");
            }
            None => assert!(is_named || is_django, "no test uses `{id}`"),
        }
    }
}
