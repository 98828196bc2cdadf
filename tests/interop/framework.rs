//! The description of a framework: its app, its sessions, and the gateway's configuration.

use serde_json::Value;

use crate::support::packages::Runtime;
use crate::support::table::now;

/// A framework.
///
/// Its app has the pages `/app/visit`, which creates a session; `/app/login?name=NAME`; `/app/rename?name=NAME`;
/// `/app/count`; `/app/forget`, which logs out and keeps the session if the framework supports that; `/app/logout`; and
/// `/app/show`, which returns `{ "login": NAME or null, "session": CLAIMS }`.
#[derive(Debug)]
pub(crate) struct Framework {
    /// The realm's `format`, and the name that the packages are installed under.
    pub(crate) format: &'static str,
    pub(crate) runtime: Runtime,
    pub(crate) packages: &'static [&'static str],
    /// The app's script in this directory.
    pub(crate) script: &'static str,
    /// The table's name, and the name and type of its key attribute.
    pub(crate) table: (&'static str, &'static str, &'static str),
    /// Returns the value of the row's key attribute for the value of a session cookie.
    pub(crate) row_key: fn(cookie: &str) -> String,
    /// The name of the session cookie.
    pub(crate) cookie: &'static str,
    /// Whether the app sets the cookie in each response, and not only if the session has changed or is due.
    pub(crate) always_sends_cookie: bool,
    /// The attributes of the gateway's cookie after a reissue, in alphabetical order.
    pub(crate) cookie_attributes: &'static str,
    /// The app's signing key, which the gateway reads from the environment variable `APP_SECRET`.
    pub(crate) secret: Option<&'static str>,
    /// The realm's `cache.ttl`. Where the gateway can detect the app's changes, it is longer than a test, so that no change
    /// is seen just because the cached row has expired.
    pub(crate) cache_ttl: &'static str,
    /// Further lines of the realm.
    pub(crate) realm: &'static str,
    /// Further header lines of the reader's route.
    pub(crate) headers: &'static str,
    /// Further routes.
    pub(crate) routes: &'static str,
    /// How to make a session old enough to be due for a reissue.
    pub(crate) aging: Aging,
    /// Panics unless the second row is the first one after a reissue.
    pub(crate) assert_reissued: fn(&Value, &Value),
    /// Panics unless this is the row, or `Null`, that a logout of the app leaves.
    pub(crate) assert_logged_out: fn(&Value),
}

/// How a session is made older.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Aging {
    /// Subtracts this many seconds from the times in these attributes.
    Attributes(&'static [&'static str], i64),
    /// Requests a page of the app.
    Page(&'static str),
}

impl Framework {
    /// Returns the sections of the realm and the routes.
    pub(crate) fn configuration(&self) -> String {
        let Self { format, cache_ttl, realm, headers, routes, .. } = self;
        let keys = match self.secret {
            Some(_) => "[sessions.main.keys]\ncurrent = { env = \"APP_SECRET\" }",
            None => "",
        };
        format!(
            r#"
            [sessions.main]
            format = "{format}"
            {realm}
            {keys}
            [sessions.main.cache]
            ttl = "{cache_ttl}"

            [[routes]]
            path = "/app"
            session = "main"
            access = "optional"
            upstream = "app"

            [[routes]]
            path = "/reader"
            session = "main"
            access = "required"
            upstream = "reader"
            [routes.headers]
            X-User = "user.name"
            X-Roles = {{ claim = "roles", join = "," }}
            X-Count = "count"
            {headers}

            [[routes]]
            path = "/writer"
            session = "main"
            access = "optional"
            upstream = "reader"
            writes = true
            {routes}
            "#
        )
    }
}

/// Panics unless `row` equals `old` except for these attributes, which must be times this many seconds from now.
pub(crate) fn assert_times_changed(old: &Value, row: &Value, times: &[(&str, i64)]) {
    let mut expected = old.clone();
    for &(attribute, seconds) in times {
        let time: f64 = row[attribute]["N"].as_str().expect("a number").parse().expect("a number");
        assert!((time - (now() + seconds) as f64).abs() < 30.0, "{attribute} of {row}");
        expected[attribute] = row[attribute].clone();
    }
    assert_eq!(*row, expected);
}

/// Panics unless the row has been deleted.
pub(crate) fn assert_deleted(row: &Value) {
    assert_eq!(*row, Value::Null);
}
