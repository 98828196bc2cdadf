//! A site: a framework's app, an app without sessions, and a gateway in front of both.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sessiongate::item::{Attribute, Item, Number};

use super::app::{App, Browser};
use super::framework::{Aging, Framework};
use crate::support::client::Response;
use crate::support::gateway::Gateway;
use crate::support::ministack::Ministack;
use crate::support::packages::Runtime;
use crate::support::session_commands::command_target;
use crate::support::table::{self, call};

/// An implementation of DynamoDB's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dynamodb {
    /// The gateway's embedded engine, which the app uses through the gateway's `listen` address.
    Embedded,
    /// ministack, which shares no code with the embedded engine.
    Ministack,
}

/// A running site.
pub(crate) struct Site {
    pub(crate) framework: &'static Framework,
    pub(crate) gateway: Gateway,
    app: App,
    _reader: App,
    dynamodb: SocketAddr,
    _ministack: Option<Ministack>,
}

impl Site {
    /// Starts a site. Returns `None` if something that it needs cannot be installed.
    pub(crate) async fn start(framework: &'static Framework, dynamodb: Dynamodb) -> Option<Self> {
        let Framework { runtime, format, packages, script, table: (table, key, key_type), .. } = *framework;
        let mut app = App::start(runtime, format, packages, script).await?;
        let mut reader = App::start(Runtime::Python, "reader", &["waitress==3.0.2"], "reader.py").await?;
        let ministack = match dynamodb {
            Dynamodb::Embedded => None,
            Dynamodb::Ministack => Some(Ministack::start()?),
        };
        let store = match &ministack {
            None => "[store.embedded]\nlisten = \"127.0.0.1:0\"".to_owned(),
            Some(ministack) => {
                call(ministack.address(), "CreateTable", table::schema_of(table, key, key_type)).await;
                let endpoint = ministack.address();
                format!("[store.dynamodb]\nendpoint = \"http://{endpoint}\"\ntimeout = \"5s\"")
            }
        };
        let gateway = Gateway::builder()
            .server("workers = 2")
            .store(&store)
            .env("APP_SECRET", framework.secret.unwrap_or_default())
            .upstream_at("app", app.address, "")
            .upstream_at("reader", reader.address, "")
            .toml(&framework.configuration())
            .start()
            .await;
        let dynamodb = match &ministack {
            None => gateway.addresses("dynamodb")[0],
            Some(ministack) => ministack.address(),
        };
        app.point_to(dynamodb);
        reader.point_to(dynamodb);
        Some(Self { framework, gateway, app, _reader: reader, dynamodb, _ministack: ministack })
    }

    /// Returns a browser without a session.
    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.framework.cookie)
    }

    /// Returns a browser in which Alice has just logged in.
    pub(crate) async fn logged_in(&self) -> Browser {
        let mut browser = self.browser();
        self.get(&mut browser, "/app/login?name=Alice").await;
        browser
    }

    /// Requests a page through the gateway.
    pub(crate) async fn get(&self, browser: &mut Browser, target: &str) -> Response {
        let response = browser.get(self.gateway.address(), target).await;
        assert!(!target.starts_with("/app/") || response.status == 200, "{target}: {}", response.text());
        response
    }

    /// Requests a page from the app without the gateway.
    pub(crate) async fn get_directly(&self, browser: &mut Browser, target: &str) -> Response {
        browser.get(self.app.address, target).await
    }

    /// Returns the status of the reader, which requires a user.
    pub(crate) async fn reader_status(&self, browser: &mut Browser) -> u16 {
        self.get(browser, "/reader").await.status
    }

    /// Returns the headers that the reader receives, with their names in WSGI.
    pub(crate) async fn reader(&self, browser: &mut Browser) -> Value {
        self.get(browser, "/reader").await.json()
    }

    /// Returns the login and the claims that the app sees without the gateway.
    pub(crate) async fn shown(&self, browser: &mut Browser) -> Value {
        self.get_directly(browser, "/app/show").await.json()
    }

    /// Makes the reader, which has no sessions, respond with these headers, which are commands to the gateway.
    pub(crate) async fn command(&self, browser: &mut Browser, headers: &[(&str, &str)]) -> Response {
        self.get(browser, &command_target("/writer", headers)).await
    }

    /// Returns the session's row, or `Null` if there is none.
    pub(crate) async fn row(&self, browser: &Browser) -> Value {
        let (table, ..) = self.framework.table;
        let request = json!({ "TableName": table, "Key": self.key(browser), "ConsistentRead": true });
        call(self.dynamodb, "GetItem", request).await["Item"].take()
    }

    /// Makes the session old enough to be due for a reissue, without the gateway. Returns its row.
    pub(crate) async fn age(&self, browser: &mut Browser) -> Value {
        match self.framework.aging {
            Aging::Page(page) => {
                self.get_directly(browser, page).await;
            }
            Aging::Attributes(attributes, seconds) => {
                let (table, ..) = self.framework.table;
                for attribute in attributes {
                    let request = json!({
                        "TableName": table,
                        "Key": self.key(browser),
                        "UpdateExpression": "SET #time = #time - :age",
                        "ExpressionAttributeNames": { "#time": attribute },
                        "ExpressionAttributeValues": { ":age": { "N": seconds.to_string() } },
                    });
                    call(self.dynamodb, "UpdateItem", request).await;
                }
            }
        }
        self.row(browser).await
    }

    fn key(&self, browser: &Browser) -> Value {
        let Framework { table: (_, name, key_type), row_key, .. } = self.framework;
        json!({ *name: { *key_type: row_key(browser.value()) } })
    }
}

/// A row of strings and numbers as the gateway's formats read it.
pub(crate) fn item(row: &Value) -> Item {
    let attribute = |value: &Value| match (value["S"].as_str(), value["N"].as_str()) {
        (Some(text), _) => Attribute::String(text.to_owned()),
        (None, number) => Attribute::Number(Number::from_text(number.expect("a string or a number"))),
    };
    row.as_object().expect("a row").iter().map(|(name, value)| (name.clone(), attribute(value))).collect()
}
