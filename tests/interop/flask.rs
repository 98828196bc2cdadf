//! Flask with Flask-Session and Flask-Login.

use super::framework::{Aging, Framework, assert_deleted, assert_times_changed};
use super::scenario;
use crate::support::packages::Runtime;

const FLASK: Framework = Framework {
    format: "flask-session",
    runtime: Runtime::Python,
    packages: &[
        "boto3==1.43.106",
        "flask==3.1.3",
        "flask-login==0.6.3",
        "flask-session==0.8.0",
        "mypy-boto3-dynamodb==1.43.124",
        "waitress==3.0.2",
    ],
    script: "flask_app.py",
    table: ("Sessions", "id", "S"),
    // `ID.SIGNATURE`
    row_key: |cookie| format!("session:{}", cookie.split_once('.').expect("a signature").0),
    cookie: "session",
    always_sends_cookie: true,
    cookie_attributes: "HttpOnly; Max-Age=2678400; Path=/",
    secret: Some("the flask app's secret key"),
    cache_ttl: "1m",
    realm: "",
    headers: "",
    routes: "",
    aging: Aging::Attributes(&["expiration"], 3600),
    assert_reissued: |aged, row| assert_times_changed(aged, row, &[("expiration", 31 * 86_400)]),
    assert_logged_out: assert_deleted,
};

scenario::suite!(FLASK, scenario::forged_signature_is_401);
