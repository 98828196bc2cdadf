//! Whether the gateway can serve: the tables of its realms answer and take writes, and every upstream that a route uses
//! has a server that takes requests.
//!
//! A report is good for a second, and made once for all who ask meanwhile: a probe of the gateway is no load for what
//! is behind it. It is made within [`LIMIT`], whatever does not answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::proxy::Gateway;
use crate::session::Realm;
use crate::time::Clock;

/// How long a report is good.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// How long a table has to answer.
const LIMIT: Duration = Duration::from_secs(2);

/// The latest report.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Arc<ReadinessReport>)>>);

/// What answers and what does not, each in a word.
#[derive(Debug)]
pub(super) struct ReadinessReport {
    /// By realm.
    pub(super) stores: BTreeMap<String, Cow<'static, str>>,
    /// By upstream.
    pub(super) upstreams: BTreeMap<String, &'static str>,
}

/// What is well.
const OK: &str = "ok";

impl Readiness {
    /// How it stands now, or stood less than a second ago.
    pub(super) async fn report(&self, gateway: &Gateway) -> Arc<ReadinessReport> {
        let mut latest = self.0.lock().await;
        if let Some((made, report)) = &*latest
            && Clock.mono().saturating_duration_since(*made) < GOOD_FOR
        {
            return Arc::clone(report);
        }
        let stores = join_all(gateway.realms.iter().map(|realm| store(realm))).await;
        let upstreams = gateway.upstreams.iter().map(|upstream| {
            let word = upstream.report().unavailable().unwrap_or(OK);
            (upstream.config().name.clone(), word)
        });
        let report = ReadinessReport { stores: stores.into_iter().collect(), upstreams: upstreams.collect() };
        let report = Arc::new(report);
        *latest = Some((Clock.mono(), Arc::clone(&report)));
        report
    }
}

impl ReadinessReport {
    pub(super) fn is_ready(&self) -> bool {
        self.stores.values().all(|word| word == OK) && self.upstreams.values().all(|word| *word == OK)
    }
}

async fn store(realm: &Realm) -> (String, Cow<'static, str>) {
    let table = realm.table();
    // A word, and no more: who asks need not have brought the token.
    let word = match tokio::time::timeout(LIMIT, table.probe()).await {
        Ok(Ok(())) => match table.unwritable() {
            None => OK.into(),
            Some(label) => format!("not writable: {label}").into(),
        },
        Ok(Err(error)) => error.label().into(),
        Err(_) => "no answer".into(),
    };
    (realm.name().to_owned(), word)
}
