//! Readiness: the gateway is ready if the tables of its realms respond and accept writes, and every upstream has an
//! available server.
//!
//! A report is reused for a second, and concurrent checks share one, so that frequent checks put little load on the
//! tables. The check of each table has a timeout of [`TABLE_TIMEOUT`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Mutex;

use crate::proxy::Gateway;
use crate::session::Realm;
use crate::time::Clock;

/// How long a report is reused.
const REPORT_TTL: Duration = Duration::from_secs(1);
/// Timeout for the response of a table.
const TABLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Creates reports and caches the latest one.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Arc<ReadinessReport>)>>);

/// The state of each table and upstream: [`OK`], or the problem in a few words.
#[derive(Debug)]
pub(super) struct ReadinessReport {
    /// States of tables, by realm.
    pub(super) stores: BTreeMap<String, Cow<'static, str>>,
    /// States of upstreams, by name.
    pub(super) upstreams: BTreeMap<String, &'static str>,
}

/// The state of a table or upstream that can be used.
const OK: &str = "ok";

impl Readiness {
    /// Returns a report that is less than [`REPORT_TTL`] old.
    pub(super) async fn report(&self, gateway: &Gateway) -> Arc<ReadinessReport> {
        // The lock is held during the checks, so that concurrent callers wait for one report.
        let mut latest = self.0.lock().await;
        if let Some((created, report)) = &*latest
            && Clock.mono().saturating_duration_since(*created) < REPORT_TTL
        {
            return Arc::clone(report);
        }
        let stores = join_all(gateway.realms.iter().map(|realm| check_table(realm))).await;
        let upstreams = gateway.upstreams.iter().map(|upstream| {
            let state = upstream.report().unavailable().unwrap_or(OK);
            (upstream.config().name.clone(), state)
        });
        let report = ReadinessReport { stores: stores.into_iter().collect(), upstreams: upstreams.collect() };
        let report = Arc::new(report);
        *latest = Some((Clock.mono(), Arc::clone(&report)));
        report
    }
}

impl ReadinessReport {
    pub(super) fn is_ready(&self) -> bool {
        self.stores.values().all(|state| state == OK) && self.upstreams.values().all(|state| *state == OK)
    }
}

/// Checks a realm's table, and returns the realm's name and the table's state.
async fn check_table(realm: &Realm) -> (String, Cow<'static, str>) {
    let table = realm.table();
    // The state contains no details, since the check needs no token.
    let state = match tokio::time::timeout(TABLE_TIMEOUT, table.probe()).await {
        Ok(Ok(())) => match table.write_failure() {
            None => OK.into(),
            Some(label) => format!("not writable: {label}").into(),
        },
        Ok(Err(error)) => error.label().into(),
        Err(_) => "no response".into(),
    };
    (realm.name().to_owned(), state)
}
